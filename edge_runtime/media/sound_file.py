"""Sound files as the models want them: one channel, float32 with full scale 1.0, at the rate asked for.

WAV is read here (8, 16, 24 and 32 bit, and 32 bit float), straight from the file's pages, so that a shift of eight
hours needs no more memory than one block. Everything else that libsndfile knows (FLAC, OGG) goes through `soundfile`
where that is installed (extra `voice`). Of several channels the first that lives is taken: microphones of an array hear
different things, and their mean is what none of them hears; one that is not plugged in hears nothing at all.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import EdgeError
from edge_runtime.media.wav_samples import chunks_after, next_chunk, sample_bytes

F32 = NDArray[np.float32]

SUFFIXES = (".wav", ".flac", ".ogg")
LEAST_RATE, MOST_RATE = 4_000, 384_000
MOST_CHANNELS = 64
BLOCK_S = 30.0
CLIPPED_AT = 0.999  # of full scale
ZERO_CROSSINGS = 24  # of the windowed sinc on each side: 80 dB of stop band, 0.2 % of the time of the log-mel after it
PASS_BAND = 0.94  # of the lower Nyquist frequency

PIECE_S = 0.02
STILL = 3.0 / 32768  # peak to peak of a piece; a muted converter's dither moves by 2 counts of 16 bits
LOOK_BLOCKS = 4  # in which a channel may begin to live: two minutes
LIVES_AS = 0.5  # of the liveliest channel's pieces

Heard = Callable[[F32, int], None]  # a block of the chosen channel at the file's own rate, before it is resampled

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RIFF = (b"RIFF", b"RF64", b"BW64")  # the last two for more than 4 GiB, EBU Tech 3306 and ITU-R BS.2088
_ELSEWHERE = 0xFFFF_FFFF  # as a length in those: it stands in the chunk `ds64`
MOST_PEAK = 32.0  # times full scale, 30 dB: float files may go over it, but whole numbers as floats are another scale


class SoundError(EdgeError):
    """This file is no sound that can be judged: look at the file."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A whole file. clipped: share of samples at full scale."""

    pcm: F32
    rate_hz: int
    channels: int  # of the file; `pcm` is the first that lives
    clipped: float

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.rate_hz


@dataclass(frozen=True, slots=True)
class _Wav:
    rate_hz: int
    channels: int
    bits: int
    is_float: bool
    start: int  # of the samples in the file
    frames: int


def read_sound(path: str | Path, rate_hz: int, most_s: float = 3600.0, heard: Heard | None = None) -> Sound:
    """The file as one array at `rate_hz`. Raises SoundError; a file longer than `most_s` is refused."""
    channels, blocks = open_sound(path, rate_hz, heard)
    parts, seconds = [np.empty(0, np.float32)], 0.0
    for block in blocks:
        parts.append(block)
        seconds += len(block) / rate_hz
        if seconds > most_s:
            raise SoundError(f"{path}: longer than {most_s:.0f} s", "cut it into pieces")
    pcm = np.concatenate(parts)
    return Sound(pcm, rate_hz, channels, clipped_share(pcm))


def open_sound(path: str | Path, rate_hz: int, heard: Heard | None = None) -> tuple[int, Iterator[F32]]:
    """Number of channels of the file, and its first living channel in blocks of about BLOCK_S at `rate_hz`.

    heard: told of each block before it is resampled, which rounds what clipped. Raises SoundError.

    Each block is resampled by itself: at its ends half a millisecond fades.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise SoundError("a folder; name the files in it" if path.is_dir() else "no such file")
        if path.stat().st_size == 0:
            raise SoundError("is empty")
        with path.open("rb") as file:
            mark = file.read(12)
        if mark[:4] in _RIFF and mark[8:12] == b"WAVE":
            wav = _wav_header(path)
            return wav.channels, _wav_blocks(path, wav, rate_hz, heard)
        return _library_blocks(path, mark, rate_hz, heard)
    except SoundError as err:
        raise SoundError(f"{path}: {err}") from err
    except OSError as err:
        raise SoundError(f"{path}: cannot be read ({err.strerror or err})") from err


def clipped_share(pcm: F32) -> float:
    """Share of samples at full scale."""
    return float(np.mean(np.abs(pcm) >= CLIPPED_AT)) if pcm.size else 0.0


def resample(pcm: F32, from_hz: int, to_hz: int) -> F32:
    """The same sound at another rate: a windowed sinc for each of the phases of the two rates' ratio."""
    if from_hz == to_hz or pcm.size == 0:
        return pcm
    common = gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    table = _phases(up, down)
    half = table.shape[1] // 2
    padded = np.pad(pcm, (half - 1, half + 1))
    around = np.lib.stride_tricks.sliding_window_view(padded, table.shape[1])
    count = -(-len(pcm) * up // down)
    result = np.empty(count, np.float32)
    for start in range(0, count, 16_384):
        at = np.arange(start, min(start + 16_384, count), dtype=np.int64) * down
        result[start : start + len(at)] = np.einsum("nt,nt->n", around[at // up], table[at % up])
    return result


def _at_rate(pcm: F32, from_hz: int, to_hz: int, path: Path) -> F32:
    try:
        return resample(pcm, from_hz, to_hz)
    except SoundError as err:
        raise SoundError(f"{path}: {err}") from err


@lru_cache(maxsize=8)
def _phases(up: int, down: int) -> F32:
    """Taps for each phase, (up, taps): Kaiser-windowed sinc below the lower of the two Nyquist frequencies."""
    if up > 4096:
        raise SoundError(f"its rate is to the wanted one as {down} to {up}", "resample it to 16000 Hz first")
    cutoff = PASS_BAND * min(1.0, up / down)
    half = int(np.ceil(ZERO_CROSSINGS / cutoff))
    distance = np.arange(-half + 1, half + 1)[None, :] - (np.arange(up) / up)[:, None]
    window = np.i0(8.0 * np.sqrt(np.clip(1.0 - (distance / half) ** 2, 0.0, 1.0))) / np.i0(8.0)
    taps = cutoff * np.sinc(cutoff * distance) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)


def _wav_header(path: Path) -> _Wav:
    """Walk the chunks to the samples."""
    size = path.stat().st_size
    layout: tuple[int, int, int, int] | None = None
    long_length = 0
    with path.open("rb") as file:
        at = 12
        while at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"fmt ":
                layout = _wav_format(file.read(min(length, 40)))
            if name == b"ds64" and length >= 16:
                long_length = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))[1]
            if name == b"data":
                if layout is None:
                    raise SoundError("damaged WAV: samples before their format")
                tag, channels, rate, bits = layout
                told = long_length if length == _ELSEWHERE and long_length else length
                frames = _sample_bytes(file, at + 8, told, size) // (channels * bits // 8)
                if frames == 0:
                    raise SoundError("a WAV without samples")
                return _Wav(rate, channels, bits, tag == _FLOAT, at + 8, frames)
            at = next_chunk(file, at + 8 + length)
    raise SoundError("damaged WAV: no samples in it")


def _sample_bytes(file: BinaryIO, start: int, told: int, size: int) -> int:
    length = sample_bytes(file, start, told, size)
    if length is not None and b"data" in chunks_after(file, start + length, size):
        raise SoundError(
            "its samples are in several chunks, of which players play the first", "save it anew with a sound editor"
        )
    if length is None:
        raise SoundError(
            f"its header tells of {told} bytes of samples, and {size - start - told} more follow that are no part of a "
            "WAV: most of it may be missing from the count",
            "save it anew with a program that plays all of it",
        )
    return length


def _wav_format(content: bytes) -> tuple[int, int, int, int]:
    """(tag, channels, rate, bits) of the `fmt ` chunk."""
    if len(content) < 16:
        raise SoundError("damaged WAV: its format is cut off")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _EXTENSIBLE and len(content) >= 26:
        tag = struct.unpack("<H", content[24:26])[0]
    if (tag, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)):
        raise SoundError(f"WAV of format {tag} with {bits} bits", "save it as 16 bit PCM")
    if not 1 <= channels <= MOST_CHANNELS or align != channels * bits // 8:
        raise SoundError(f"damaged WAV: {channels} channels, {align} bytes each moment")
    _check_rate(rate)
    return tag, channels, rate, bits


def _check_rate(rate_hz: int) -> None:
    if not LEAST_RATE <= rate_hz <= MOST_RATE:
        raise SoundError(f"a rate of {rate_hz} Hz; {LEAST_RATE} to {MOST_RATE} Hz are read")


def living_channel(blocks: Iterator[F32]) -> int:
    """The first channel that hears something, from 0; 0 where none does. blocks: (n, channels), the first few count."""
    lively: NDArray[np.float64] | None = None
    for block in islice(blocks, LOOK_BLOCKS):
        moves = _moving_share(block)
        lively = moves if lively is None else lively + moves
        if lively[0] >= LIVES_AS * max(1.0, lively.max()):
            return 0
    return 0 if lively is None else int(np.argmax(lively >= LIVES_AS * lively.max()))


def _moving_share(block: F32) -> NDArray[np.float64]:
    """Share of the pieces of each channel that are not still. Pieces are of so many samples as 16 kHz has in 20 ms."""
    piece = max(1, min(len(block), round(PIECE_S * 16_000)))
    sound = np.nan_to_num(block.clip(-1.0, 1.0))  # a float file may hold anything
    pieces = sound[: len(block) // piece * piece].reshape(-1, piece, block.shape[1])
    return np.asarray(np.mean(np.ptp(pieces, axis=1) > STILL, axis=0), np.float64)


def _wav_blocks(path: Path, wav: _Wav, rate_hz: int, heard: Heard | None) -> Iterator[F32]:
    channel = living_channel(_wav_frames(path, wav)) if wav.channels > 1 else 0
    for block in _wav_frames(path, wav, channel):
        mono = _finite(block[:, 0], path)
        if heard:
            heard(mono, wav.rate_hz)
        yield _at_rate(mono, wav.rate_hz, rate_hz, path)


def _wav_frames(path: Path, wav: _Wav, channel: int | None = None) -> Iterator[F32]:
    """Blocks of shape (n, channels); of one channel alone where it is named."""
    width = wav.bits // 8
    wanted = range(wav.channels) if channel is None else [channel]
    frames_each = int(BLOCK_S * wav.rate_hz)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        for first in range(0, wav.frames, frames_each):
            count = min(frames_each, wav.frames - first)
            start = wav.start + first * wav.channels * width
            content = np.frombuffer(pages[start : start + count * wav.channels * width], np.uint8)
            frames = content.reshape(count, wav.channels, width)
            yield np.stack([_samples(np.ascontiguousarray(frames[:, one]), wav) for one in wanted], axis=1)


def _samples(mono: NDArray[np.uint8], wav: _Wav) -> F32:
    """Bytes of one channel, (n, bytes each), as float32 with full scale 1.0."""
    if wav.is_float:
        return mono.view("<f4")[:, 0].astype(np.float32)
    if wav.bits == 8:  # the only unsigned one
        return (mono[:, 0].astype(np.float32) - 128.0) / np.float32(128.0)
    wide = np.zeros((len(mono), 4), np.uint8)
    wide[:, 4 - mono.shape[1] :] = mono
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def _finite(pcm: F32, path: Path) -> F32:
    if not np.isfinite(pcm).all():
        raise SoundError(f"{path}: holds samples that are no numbers (NaN or infinite)")
    peak = float(np.abs(pcm).max(initial=0.0))
    if peak > MOST_PEAK:
        raise SoundError(f"{path}: holds samples of up to {peak:.0f}, and full scale is 1", "save it as 16 bit PCM")
    return pcm


def _library_blocks(path: Path, mark: bytes, rate_hz: int, heard: Heard | None) -> tuple[int, Iterator[F32]]:
    if mark[:4] not in (b"fLaC", b"OggS"):
        raise SoundError("not a sound file that is known (WAV, FLAC, OGG)")
    try:
        import soundfile
    except (ImportError, OSError) as err:
        raise SoundError(
            "FLAC and OGG need the library soundfile", "pip install 'edge-runtime[voice]', or save it as WAV"
        ) from err
    try:
        about = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as err:
        raise SoundError(f"damaged, or not a sound file ({err})") from err
    _check_rate(about.samplerate)

    def frames() -> Iterator[F32]:
        each = int(BLOCK_S * about.samplerate)
        return iter(soundfile.blocks(str(path), blocksize=each, dtype="float32", always_2d=True))

    def blocks() -> Iterator[F32]:
        try:
            channel = living_channel(frames()) if about.channels > 1 else 0
            for block in frames():
                mono = _finite(np.ascontiguousarray(block[:, channel]), path)
                if heard:
                    heard(mono, about.samplerate)
                yield _at_rate(mono, about.samplerate, rate_hz, path)
        except (soundfile.SoundFileError, RuntimeError) as err:
            raise SoundError(f"{path}: damaged ({err})") from err

    return int(about.channels), blocks()
