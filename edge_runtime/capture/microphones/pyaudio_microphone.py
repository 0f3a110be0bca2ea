"""Driver "pyaudio": any microphone PortAudio knows (ALSA, PulseAudio, JACK), by name, held by a process of its own.

PortAudio may block for ever in open and in read, and free-runs when a source ends. So a child holds the device
(`pyaudio_child`), and what comes through its pipe is the heartbeat: a thread here reads it, judges it, and ends the
child when it is silent too long or talks nonsense. Then it opens the device again by its name, which outlives the
index that PortAudio gives it, after a wait that doubles and is jittered. Nobody else waits for any of it.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_runtime.capture.microphones.audio_ring import AudioRing
from edge_runtime.capture.microphones.microphone import MicrophoneDevice, MicrophoneLost
from edge_runtime.capture.microphones.pyaudio_wire import Decoder, Kind, Message
from edge_runtime.capture.microphones.sound_watch import SoundWatch
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health, State
from edge_runtime.process.child import ChildEnded, ChildProcess

log = logging.getLogger(__name__)

MODULE = "edge_runtime.capture.microphones.pyaudio_child"
TELL_AFTER_S = 4.0  # without sound from the start: health says so
OPEN_WITHIN_S = 4.0  # an idle PulseAudio sink takes 1.8 s to its first chunk, PortAudio's survey about 1 s
MOST_OPEN_S = 20.0  # patience grows by half with each attempt that was too slow, for boxes that are
FIRST_WAIT_S = 0.25  # before a device is opened again; doubles up to `microphone.retry_max_s`
STEADY_AFTER_S = 10.0  # of sound: the next fault is a new one, and the wait starts small again
LOOK_EVERY_S = 0.1  # how soon `stop` and silence are noticed


def open_pyaudio(cfg: MicrophoneConfig, clock: Clock) -> PyAudioMicrophone:
    return PyAudioMicrophone(cfg, clock)


def list_devices(timeout_s: float) -> list[MicrophoneDevice]:
    """What can record, as PortAudio says. Raises DeviceError when it does not answer in time."""
    child = _Child({"do": "list"})
    until = time.monotonic() + timeout_s
    try:
        while (left_s := until - time.monotonic()) > 0:
            for message in child.hear(left_s):
                if message.kind is Kind.DEVICES:
                    return [MicrophoneDevice(**device) for device in json.loads(message.body)]
                if message.kind is Kind.FAULT:
                    raise DeviceError(f"the sound system cannot be asked: {message.body.decode(errors='replace')}")
        raise DeviceError(f"the sound system does not answer within {timeout_s:g} s: a device or its server hangs")
    except _Ended as err:
        raise DeviceError(f"the sound system cannot be asked: {err}") from err
    finally:
        child.end()


class _Ended(Exception):
    """This stream is over; the text says why."""


class PyAudioMicrophone:
    """One device by name. See the module's own words for how it stays alive."""

    def __init__(self, cfg: MicrophoneConfig, clock: Clock) -> None:
        self.name = cfg.name
        self._cfg, self._clock = cfg, clock
        self._ring = AudioRing()
        self._watch = SoundWatch(cfg.rate_hz, cfg.silent_after_s)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._jitter = random.Random()  # spreads retries, guards nothing
        self._opened = ""  # what the child says it has opened
        self._seq = self._captured_ns = -1  # of the last chunk
        self._overruns = self._restarts = self._slow_opens = 0
        self._child_pid: int | None = None

    def start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._ring.open()
            self._thread = threading.Thread(target=self._run, name=f"{self.name}-listen", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        self._stop.set()
        self._ring.close()
        if thread is not None:
            thread.join()

    def read(self, timeout_s: float) -> AudioChunk | None:
        return self._ring.take(timeout_s)

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        return self._watch.health(self._opened or f"opens '{self._cfg.device or 'the default microphone'}'")

    def report(self) -> Mapping[str, Any]:
        return {
            "driver": "pyaudio",
            "device": self._opened,
            "chunks": self._watch.chunks,
            "overruns": self._overruns,
            "overwritten": self._ring.overwritten,
            "clipped_chunks": self._watch.clipped_chunks,
            "silent_chunks": self._watch.silent_chunks,
            "restarts": self._restarts,
            "child_pid": self._child_pid,
        }

    def _run(self) -> None:
        """Outermost loop of the listening thread: one turn for each child."""
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            began_ns, heard = self._clock(), self._watch.chunks
            try:
                self._listen()
            except (_Ended, OSError) as err:
                self._break_off(str(err))
            except Exception as err:
                log.exception("microphone failed name=%s", self.name)
                self._break_off(f"{type(err).__name__}, see the log")
            if self._watch.chunks > heard and self._clock() - began_ns > STEADY_AFTER_S * SECOND:
                wait_s = FIRST_WAIT_S
            self._stop.wait(wait_s * self._jitter.uniform(0.5, 1.0))
            wait_s = min(2.0 * wait_s, self._cfg.retry_max_s)

    def _break_off(self, why: str) -> None:
        if self._stop.is_set():
            return
        if why != self._watch.complaint or not self._restarts:
            log.warning("microphone lost name=%s why=%s", self.name, why)
        self._watch.failed(why)
        self._restarts += 1
        self._seq += 1  # a hole: what follows does not join on
        self._ring.break_off(MicrophoneLost(f"microphone '{self.name}': {why}"))

    def _listen(self) -> None:
        """One child from its start to its end. Raises _Ended when the stream is over; returns when stopped."""
        cfg, self._opened = self._cfg, ""
        self._watch.opened()
        child = _Child({"do": "listen", "device": cfg.device, "rate_hz": cfg.rate_hz, "frame_ms": cfg.frame_ms})
        self._child_pid = child.pid
        overruns = 0
        patience = _Patience(self._clock(), min(OPEN_WITHIN_S * 1.5**self._slow_opens, MOST_OPEN_S))
        try:
            while not self._stop.is_set():
                messages = child.hear(LOOK_EVERY_S)
                for message in messages:
                    patience.heard(message, self._clock())
                    if message.kind is Kind.CHUNK:
                        self._take(message, message.overruns - overruns)
                        overruns = message.overruns
                    elif message.kind is Kind.OPENED:
                        self._opened = message.body.decode(errors="replace")
                    elif message.kind is Kind.FAULT:
                        raise _Ended(message.body.decode(errors="replace"))
                if not messages:
                    self._wait(patience)
        finally:
            self._child_pid = None
            child.end()

    def _take(self, message: Message, overruns: int) -> None:
        self._slow_opens = 0
        self._overruns += overruns
        self._seq += 1 + overruns
        self._captured_ns = max(self._captured_ns + 1, message.captured_ns)
        pcm = np.frombuffer(message.body, "<i2")  # over bytes: read-only
        if not pcm.size:
            return
        fault = self._watch.heard(pcm, message.read_ns)
        self._ring.put(AudioChunk(self._seq, self._captured_ns, self._cfg.rate_hz, pcm))
        if fault:
            raise _Ended(fault)

    def _wait(self, patience: _Patience) -> None:
        """Nothing came: is that still right?"""
        now_ns = self._clock()
        if fault := self._watch.waited(now_ns):
            raise _Ended(fault)
        if patience.is_streaming:
            return
        complaint = f"{patience.doing}: {(now_ns - patience.began_ns) / SECOND:.0f} s without sound, the device hangs"
        if now_ns - patience.began_ns > TELL_AFTER_S * SECOND and not self._watch.complaint:
            self._watch.complaint = complaint
        if now_ns - patience.since_ns > patience.limit_s * SECOND:
            self._slow_opens += 1
            raise _Ended(complaint)


class _Patience:
    """How far a child has come on its way to sound, and since when it has not come further."""

    def __init__(self, now_ns: int, limit_s: float) -> None:
        self.began_ns = self.since_ns = now_ns
        self.limit_s = limit_s
        self.doing = "starts"
        self.is_streaming = False

    def heard(self, message: Message, now_ns: int) -> None:
        self.since_ns = now_ns
        self.is_streaming = message.kind is Kind.CHUNK
        self.doing = {Kind.HELLO: "opens", Kind.OPENED: "opened"}.get(message.kind, "")


class _Child:
    """The process that holds the device."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._process = ChildProcess(MODULE, json.dumps(request))
        self._decoder = Decoder()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self, timeout_s: float) -> list[Message]:
        """What it says within `timeout_s`. Raises _Ended when it will say no more."""
        try:
            return self._decoder.feed(self._process.hear(timeout_s))
        except ChildEnded as err:
            raise _Ended(f"the sound process {err}") from err
        except ValueError as err:
            raise _Ended(f"the sound process talks nonsense: {err}") from err

    def end(self) -> None:
        """At once: it may hang in a library, and has nothing to save."""
        self._process.end()
