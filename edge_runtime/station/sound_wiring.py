"""From a station file to the ear for the machine. What is missing degrades the ear, never the inspection."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.capture.microphones.drivers import open_microphone
from edge_runtime.capture.microphones.shared import SharedMicrophone
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import ConfigError
from edge_runtime.lines.sound_line import SoundLine, SoundTap
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.model_choice import ear_bundle
from edge_runtime.predictors.sound import open_sound_model


def open_shared_microphone(cfg: EdgeConfig, clock: Clock) -> SharedMicrophone | None:
    """The station's microphone for whoever listens; None where it has none.

    Raises DeviceError where only the station file, or a package, can mend it.
    """
    return None if cfg.microphone.driver == "off" else SharedMicrophone(open_microphone(cfg.microphone, clock))


def open_sound(
    cfg: EdgeConfig, microphone: SharedMicrophone | None, store: ModelStore, taps: list[SoundTap], clock: Clock
) -> SoundLine | None:
    """The ear, not yet started; None where the station names no sound model.

    Raises ConfigError when there is a model and no microphone: the station file contradicts itself.
    """
    if not cfg.sound.model:
        return None
    if cfg.microphone.driver == "off":
        raise ConfigError(f"sound.model is {cfg.sound.model!r} and microphone.driver is 'off'", "set one or the other")
    if microphone is None:
        return None  # told as the voice's trouble
    return SoundLine(
        microphone=microphone.view(),
        open_model=lambda: open_sound_model(ear_bundle(cfg.sound.model, store), cfg.model),
        cfg=cfg.sound,
        taps=taps,
        clock=clock,
    )


def sound_rule(cfg: EdgeConfig, sound: SoundLine | None) -> Callable[[], str]:
    """Why parts are to be rejected for the sound of the machine; empty while there is no reason, or it is not asked."""
    if sound is None or not cfg.sound.reject:
        return lambda: ""
    return lambda: "the machine sounds abnormal" if sound.asks_reject else ""
