"""Frames in, utterances out: where somebody speaks, in the noise of a factory.

A frame counts as speech when WebRTC's detector (mode 2, behind a 200 Hz high-pass) says so AND the noise gate is open.
Measured on 62 human words: WebRTC alone is open for ever in white noise or hum at 5 dB; both together keep 95-100 % of
the words there with no spurious segment. Short blows (a hammer, a slamming door) still get through: the model behind
must know how to say "that was no command".

Speech begins with 3 voiced frames of 5 and ends after a silence as long as the padding, at least the hangover. What
leaves is cut from `padding_ms` before the first voiced frame to `padding_ms` after the last one; models are trained on
the same padding, so it is part of their bundle. No clock is read: time is that of the chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import DeviceError, ModelError
from edge_runtime.core.manifest import AudioInput
from edge_runtime.core.messages import AudioChunk, Utterance
from edge_runtime.features.audio_level import amplify, speech_gain_db
from edge_runtime.features.noise_gate import WINDOW_MS, NoiseGate, SpeechFilters
from edge_runtime.features.sound_validity import SPEECH, why_invalid

RATES_HZ = (8000, 16_000, 32_000, 48_000)  # what WebRTC's detector takes
OPEN_WINDOW_MS = 30_000  # the open share is told over this time
LATCHED_ABOVE = 0.9


@dataclass(frozen=True, slots=True)
class VoiceActivitySpec:
    """How speech is cut out. The padding belongs to the model that hears the result, the rest to the room."""

    rate_hz: int = 16_000
    frame_ms: int = 30  # 10, 20 or 30: what WebRTC's detector takes
    mode: int = 2  # of WebRTC: 0 takes most for speech, 3 least
    gate_db: float = 3.0  # above the noise floor; 30 ms of steady noise in the band vary by 0.5 dB
    onset: int = 3  # voiced frames ...
    onset_of: int = 5  # ... of so many begin an utterance
    hangover_ms: int = 300  # silence that ends it
    padding_ms: int = 300  # kept before the first and after the last voiced frame
    shortest_ms: int = 120  # from first to last voiced frame; what is shorter is no word
    longest_ms: int = 4000  # from first voiced frame; then it is cut, and what follows is the next utterance
    target_dbfs: float | None = -20.0  # loudness of the speech that leaves; None leaves it as it was

    def __post_init__(self) -> None:
        if self.rate_hz not in RATES_HZ or self.frame_ms not in (10, 20, 30):
            raise ValueError(f"{self.frame_ms} ms at {self.rate_hz} Hz: frames are 10, 20 or 30 ms at {RATES_HZ} Hz")
        if not 1 <= self.onset <= self.onset_of:
            raise ValueError(f"onset {self.onset} of {self.onset_of}: must be 1 to {self.onset_of}")
        if not 0 <= self.mode <= 3:
            raise ValueError(f"mode {self.mode}: WebRTC's detector knows 0 to 3")
        if not 0 <= self.padding_ms <= 2000 or not self.frame_ms <= self.hangover_ms <= 2000:
            raise ValueError(
                f"padding {self.padding_ms} ms, hangover {self.hangover_ms} ms: at most 2000, not negative"
            )
        if not self.shortest_ms < self.longest_ms <= 30_000:
            raise ValueError(f"from {self.shortest_ms} to {self.longest_ms} ms: must be in order, at most 30000")

    @property
    def frame(self) -> int:
        """Samples in one frame."""
        return self.rate_hz * self.frame_ms // 1000


class SpeechDetector:
    """Speech or not, frame by frame. Late by 17 ms, the delay of its filters."""

    def __init__(self, spec: VoiceActivitySpec) -> None:
        self._spec = spec
        self._filters = SpeechFilters(spec.rate_hz, spec.frame)
        self._gate = NoiseGate(spec.frame_ms, spec.gate_db)
        self._webrtc = _detector(spec.mode)

    @property
    def floor_dbfs(self) -> float:
        """Noise floor in the band of speech."""
        return self._gate.floor_dbfs

    def __call__(self, pcm: NDArray[np.int16], is_speaking: bool = False) -> bool:
        """pcm: int16, shape (frame,); is_speaking: an utterance is open, so a little less is enough to go on."""
        heard = self._filters(pcm)
        clipped = np.rint(heard.high_passed).clip(-32768, 32767).astype("<i2")
        is_voice: bool = self._webrtc.is_speech(clipped.tobytes(), self._spec.rate_hz)
        return self._gate(heard.band_dbfs, is_speaking) and is_voice  # the gate learns from every frame

    def learn(self, pcm: NDArray[np.int16]) -> None:
        """Take the noise floor from a recording's beginning before it is heard. Less than a frame tells nothing."""
        frames = min(pcm.size // self._spec.frame, WINDOW_MS // self._spec.frame_ms)
        if frames:
            filters = SpeechFilters(self._spec.rate_hz, self._spec.frame)
            self._gate.learn([filters(frame).band_dbfs for frame in np.split(pcm[: frames * self._spec.frame], frames)])

    def reset(self) -> None:
        """Sound broke off. The floor is kept: the room is the same."""
        self._filters.reset()
        self._webrtc = _detector(self._spec.mode)


def _detector(mode: int) -> Any:
    """WebRTC's detector. Raises DeviceError where its package is missing: a box without a microphone needs none."""
    try:
        import webrtcvad
    except ImportError as err:
        raise DeviceError(
            f"voice activity needs the package webrtcvad-wheels ({err})",
            "tools/install --voice on a box, pip install -e '.[voice]' in a checkout",
        ) from err
    return webrtcvad.Vad(mode)


class OpenShare:
    """Share of the last 30 s in which an utterance was open, and whether that is too much to be speech."""

    def __init__(self, frame_ms: int) -> None:
        self._frames: deque[bool] = deque(maxlen=OPEN_WINDOW_MS // frame_ms)
        self._open = 0

    def __call__(self, is_open: bool) -> None:
        if len(self._frames) == self._frames.maxlen:
            self._open -= self._frames[0]
        self._frames.append(is_open)
        self._open += is_open

    @property
    def ratio(self) -> float:
        return self._open / len(self._frames) if self._frames else 0.0

    @property
    def is_latched(self) -> bool:
        """More than LATCHED_ABOVE of 30 whole seconds: something that is no speech holds the detector open."""
        return len(self._frames) == self._frames.maxlen and self.ratio > LATCHED_ABOVE


class VoiceActivity:
    """Cuts utterances out of a stream of chunks. One thread calls it; `report` may be called from others.

    Chunks may have any length. A hole in their sequence numbers (an overrun) ends the utterance in work.
    """

    def __init__(self, spec: VoiceActivitySpec | None = None) -> None:
        self.spec = spec = spec or VoiceActivitySpec()
        self._detect = SpeechDetector(spec)
        self._quiet_frames = -(-max(spec.hangover_ms, spec.padding_ms) // spec.frame_ms)
        self._padding = spec.rate_hz * spec.padding_ms // 1000
        self._recent: deque[bool] = deque(maxlen=spec.onset_of)
        before = -(-self._padding // spec.frame) + spec.onset_of
        self._before: deque[NDArray[np.int16]] = deque(maxlen=before)  # what may become pre-roll
        self._inside: list[NDArray[np.int16]] = []  # frames of the utterance in work; empty between utterances
        self._lead = 0  # frames in `_inside` before the first voiced one
        self._quiet = 0  # frames since the last voiced one
        self._rest = np.empty(0, np.int16)  # what did not fill a frame
        self._next_seq: int | None = None
        self._end_ns = 0  # of the last sample that was judged
        self._share = OpenShare(spec.frame_ms)
        self._counts = {"frames": 0, "speech_frames": 0, "utterances": 0, "too_short": 0, "capped": 0, "gaps": 0}

    @property
    def is_open(self) -> bool:
        """Somebody is speaking, as far as is known by now."""
        return bool(self._inside)

    @property
    def is_latched(self) -> bool:
        return self._share.is_latched

    def __call__(self, chunk: AudioChunk) -> list[Utterance]:
        """The utterances that end with this chunk. Raises ValueError when the chunk has another rate than the spec."""
        if chunk.rate_hz != self.spec.rate_hz:
            raise ValueError(f"chunk of {chunk.rate_hz} Hz, voice activity is set to {self.spec.rate_hz} Hz")
        done = []
        if self._next_seq not in (None, chunk.seq):
            self._counts["gaps"] += 1
            done += self.flush()
        self._next_seq = chunk.seq + 1
        pcm = np.concatenate((self._rest, chunk.pcm)) if self._rest.size else chunk.pcm
        frame = self.spec.frame
        whole = pcm.size // frame * frame
        chunk_end_ns = chunk.captured_ns + self._duration_ns(chunk.pcm.size)
        for start in range(0, whole, frame):
            self._end_ns = chunk_end_ns - self._duration_ns(pcm.size - start - frame)
            done += self._judge(pcm[start : start + frame])
        self._rest = pcm[whole:]
        return done

    def learn(self, pcm: NDArray[np.int16]) -> None:
        """Before a recording: its first seconds, so that its very first word stands above a known floor.

        A microphone has heard the room before anybody speaks; a file may begin with the word. Measured on 36 human
        words cut at their first sample: 26 heard without it, 36 with it. Half a second of a quiet room in front hears
        them too, but takes the noise of a noisy file for speech: at 20 dB it left 12 of the words understood, this 34.
        """
        self._detect.learn(pcm)

    def flush(self) -> list[Utterance]:
        """The stream has ended or broken off: what is in work, if it is long enough, and a fresh start."""
        done = self._close() if self._inside else []
        self._detect.reset()
        self._recent.clear()
        self._before.clear()
        self._rest, self._next_seq = np.empty(0, np.int16), None
        return done

    def report(self) -> Mapping[str, Any]:
        """Counters since the start; `open_ratio` of the last 30 s, `is_latched` when it stayed above 0.9."""
        return {
            **self._counts,
            "open_ratio": round(self._share.ratio, 3),
            "is_latched": self.is_latched,
            "floor_dbfs": round(self._detect.floor_dbfs, 1),
        }

    def _judge(self, frame: NDArray[np.int16]) -> list[Utterance]:
        is_speech = self._detect(frame, self.is_open)
        self._counts["frames"] += 1
        self._counts["speech_frames"] += is_speech
        done = self._go_on(frame, is_speech) if self._inside else self._wait(frame, is_speech)
        self._share(self.is_open)
        return done

    def _wait(self, frame: NDArray[np.int16], is_speech: bool) -> list[Utterance]:
        self._recent.append(is_speech)
        self._before.append(frame)
        if sum(self._recent) >= self.spec.onset:
            since_voiced = len(self._recent) - self._recent.index(True)
            self._inside = list(self._before)
            self._lead = len(self._inside) - since_voiced
            self._quiet = 0  # the frame that completes the onset is voiced
        return []

    def _go_on(self, frame: NDArray[np.int16], is_speech: bool) -> list[Utterance]:
        self._inside.append(frame)
        self._quiet = 0 if is_speech else self._quiet + 1
        if self._quiet >= self._quiet_frames:
            return self._close()
        if (len(self._inside) - self._lead) * self.spec.frame_ms >= self.spec.longest_ms:
            self._counts["capped"] += 1
            return self._close()
        return []

    def _close(self) -> list[Utterance]:
        """The utterance in work, and back to waiting; the silence behind it may be the pre-roll of the next one."""
        inside, quiet = self._inside, self._quiet
        self._inside, self._quiet = [], 0
        self._recent.clear()
        self._before.clear()
        self._before.extend(inside[len(inside) - quiet :])
        if (len(inside) - self._lead - quiet) * self.spec.frame_ms < self.spec.shortest_ms:
            self._counts["too_short"] += 1
            return []
        self._counts["utterances"] += 1
        return [self._cut(np.concatenate(inside), self._lead * self.spec.frame, quiet * self.spec.frame)]

    def _cut(self, pcm: NDArray[np.int16], lead: int, quiet: int) -> Utterance:
        """`pcm` ends now, its speech goes from `lead` to `quiet` samples before its end. Padding not heard is 0."""
        first, last = lead - self._padding, pcm.size - quiet + self._padding
        cut = np.zeros(last - first, np.int16)
        heard = pcm[max(0, first) : last]
        cut[max(0, -first) : max(0, -first) + heard.size] = heard
        spoken = pcm[lead : pcm.size - quiet]  # as it was heard: what is made louder or quieter clips elsewhere
        flaw = why_invalid(spoken, self.spec.rate_hz, SPEECH)
        if self.spec.target_dbfs is not None:
            cut = amplify(cut, speech_gain_db(cut, self.spec.rate_hz, self.spec.target_dbfs))
        cut.flags.writeable = False
        start_ns = self._end_ns - self._duration_ns(pcm.size - first)
        end_ns = start_ns + self._duration_ns(cut.size)
        return Utterance(start_ns, end_ns, self.spec.rate_hz, cut, self.spec.padding_ms, flaw)

    def _duration_ns(self, samples: int) -> int:
        return samples * SECOND // self.spec.rate_hz


def speech_cutting(microphone: MicrophoneConfig, spec: AudioInput | None) -> VoiceActivitySpec:
    """How speech is cut out: padding and loudness as the model was trained with, frames as the microphone gives them.

    spec: what the model takes; None where there is none. Raises ModelError when it wants another rate than there is.
    """
    rate_hz, frame_ms = microphone.rate_hz, microphone.frame_ms
    if spec is None:
        return VoiceActivitySpec(rate_hz=rate_hz, frame_ms=frame_ms)
    if spec.rate_hz != rate_hz:
        raise ModelError(
            f"the model wants sound at {spec.rate_hz} Hz, the microphone gives {rate_hz}", "set microphone.rate_hz"
        )
    return VoiceActivitySpec(
        rate_hz=rate_hz,
        frame_ms=frame_ms,
        padding_ms=spec.pad_ms,
        hangover_ms=spec.pad_ms,
        target_dbfs=spec.loudness_dbfs,
    )
