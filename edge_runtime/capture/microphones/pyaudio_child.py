"""The process that holds the sound device, and PyAudio: `python -m edge_runtime.capture.microphones.pyaudio_child`.

It may hang in a library call for ever or die of it; whoever started it looks at what it says and ends it. It ends by
itself when its channel closes. What PortAudio, ALSA and JACK print goes nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyaudio

from edge_runtime.capture.microphones.pyaudio_wire import Kind, Message, encode
from edge_runtime.process.child import outlive_interrupts, parents_channel

FALLBACK_RATES_HZ = (48_000, 44_100)  # what USB microphones know when they refuse 16 kHz
INPUT_OVERFLOWED = -9981  # paInputOverflowed: sound was lost between two reads
Say = Callable[[Message], None]


def main() -> None:
    request = json.loads(sys.argv[1])
    channel = parents_channel()
    threading.Thread(target=_end_with_parent, args=(channel,), daemon=True).start()
    outlive_interrupts()

    def say(message: Message) -> None:
        channel.sendall(encode(message))

    with contextlib.suppress(BrokenPipeError):
        say(Message(Kind.HELLO))
        try:
            _serve(request, say)
        except BrokenPipeError:
            raise
        except Exception as err:  # the outermost loop of this process; the parent turns it into a sentence
            say(Message(Kind.FAULT, _sentence(err).encode()))
    os._exit(0)  # PortAudio's own end may hang on a dead server


def _serve(request: dict[str, Any], say: Say) -> None:
    os.environ.setdefault("JACK_NO_START_SERVER", "1")
    audio = pyaudio.PyAudio()
    devices = list(_inputs(audio))
    if request["do"] == "list":
        say(Message(Kind.DEVICES, json.dumps([device for _, device in devices]).encode()))
        return
    index, device = _choose(devices, request["device"])
    stream, rate_hz, channels = _open(audio, index, device, request["rate_hz"], request["frame_ms"])
    how = f"{device['name']}, {rate_hz} Hz" + (", first of two channels" if channels == 2 else "")
    say(Message(Kind.OPENED, how.encode()))
    _listen(stream, rate_hz, channels, request, say)


def _inputs(audio: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """PortAudio's index and what the product tells of each device that can record."""
    default = -1
    with contextlib.suppress(OSError):  # there is none
        default = audio.get_default_input_device_info()["index"]
    for index in range(audio.get_device_count()):
        info = audio.get_device_info_by_index(index)
        if info["maxInputChannels"] > 0:
            yield (
                index,
                {
                    "name": str(info["name"]),
                    "host_api": str(audio.get_host_api_info_by_index(info["hostApi"])["name"]),
                    "channels": int(info["maxInputChannels"]),
                    "rate_hz": int(info["defaultSampleRate"]),
                    "is_default": index == default,
                },
            )


def _choose(devices: list[tuple[int, dict[str, Any]]], wanted: str) -> tuple[int, dict[str, Any]]:
    """The device of that name, else the first whose name contains it; without a name the default one."""
    if not wanted:
        matching = [item for item in devices if item[1]["is_default"]] or devices
    else:
        matching = [item for item in devices if item[1]["name"] == wanted]
        matching += [item for item in devices if wanted.casefold() in item[1]["name"].casefold()]
    if not matching:
        found = ", ".join(f"'{device['name']}'" for _, device in devices) or "none"
        raise LookupError(f"no microphone '{wanted}' (found: {found}); check the cable or set microphone.device")
    return matching[0]


def _open(audio: Any, index: int, device: dict[str, Any], rate_hz: int, frame_ms: int) -> tuple[Any, int, int]:
    """The stream, its rate and its channels: mono at the rate that was asked for, or the next best."""
    refusal: Exception | None = None
    for rate in dict.fromkeys((rate_hz, *FALLBACK_RATES_HZ)):
        for channels in (1, 2)[: device["channels"]]:
            try:
                stream = audio.open(
                    rate, channels, pyaudio.paInt16, input=True, input_device_index=index,
                    frames_per_buffer=rate * frame_ms // 1000,
                )  # fmt: skip
            except (OSError, ValueError) as err:
                refusal = refusal or err
            else:
                return stream, rate, channels
    raise OSError(f"microphone '{device['name']}' does not open: {_sentence(refusal)}; is another program using it?")


def _listen(stream: Any, rate_hz: int, channels: int, request: dict[str, Any], say: Say) -> None:
    frames = rate_hz * request["frame_ms"] // 1000
    convert = _converter(rate_hz, channels, request["rate_hz"])
    overruns = 0
    while True:
        try:
            data = stream.read(frames, exception_on_overflow=True)
        except OSError as err:
            if err.errno != INPUT_OVERFLOWED:
                raise OSError(f"the sound system ended the stream: {_sentence(err)}") from err
            overruns += 1
            continue
        read_ns = time.monotonic_ns()
        waiting = max(0, stream.get_read_available())  # what came after this chunk and was not fetched yet
        captured_ns = read_ns - (frames + min(waiting, rate_hz)) * 1_000_000_000 // rate_hz
        say(Message(Kind.CHUNK, convert(data), overruns, captured_ns, read_ns))


def _converter(rate_hz: int, channels: int, wanted_hz: int) -> Callable[[bytes], bytes]:
    if rate_hz == wanted_hz and channels == 1:
        return bytes
    import numpy as np  # 20 MB that most devices do without

    from edge_runtime.media.resample import Resampler

    resample = Resampler(rate_hz, wanted_hz) if rate_hz != wanted_hz else np.ascontiguousarray
    return lambda data: np.asarray(resample(np.frombuffer(data, np.int16)[::channels])).tobytes()


def _end_with_parent(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it closed with something unread
        while channel.recv(64):
            pass
    os._exit(0)


def _sentence(err: BaseException | None) -> str:
    if isinstance(err, OSError) and len(err.args) == 2:  # PortAudio's number and its text
        return f"{err.args[1]} ({err.args[0]})"
    return str(err) or type(err).__name__


if __name__ == "__main__":
    main()
