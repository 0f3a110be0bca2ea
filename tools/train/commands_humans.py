"""Recordings of people, to judge by and never to train on: what Debian's sound packages hold.

    asterisk-core-sounds-en-g722         one woman: the NATO words, the digits, "pause", and 500 other prompts
    asterisk-core-sounds-{es,fr,it,ru}-g722, klettres-data, ktuberling-data      other languages, many speakers

The first is needed, the others only add to the wake words' false accepts. G.722 is decoded by ffmpeg, Vorbis by
soundfile. No package holds an English "reject", "accept", "rescan" or "stop line" said by a person.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from commands_sound import F32, RATE_HZ, trim
from commands_words import DIGITS, NATO
from numpy.typing import NDArray

from edge_runtime.media.sound_file import read_sound

I16 = NDArray[np.int16]

NEEDED_PACKAGES = ("asterisk-core-sounds-en-g722", "ffmpeg")
MORE_PACKAGES = (*(f"asterisk-core-sounds-{lang}-g722" for lang in ("es", "fr", "it", "ru")), "klettres-data",
                 "ktuberling-data")  # fmt: skip
SOUNDS = Path("/usr/share/asterisk/sounds")
ENGLISH = "en_US_f_Allison"
OGG_FOLDERS = (Path("/usr/share/klettres"), Path("/usr/share/ktuberling/sounds"))
G722_SAMPLES_A_BYTE = 2
HURRY = 1.4  # times as fast: digits take 340 to 510 ms then, as where people spell what they know by heart
NOT_SPEECH = ("silence", "beep", "tone", "tt-monkeys.")
SAY_A_COMMAND = ("pause", "cancel", "next", "accept", "reject")  # prompts in which one may be heard rightly


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    pcm: I16


def missing_recordings() -> str:
    """What has to be installed before anything can be judged; empty when nothing."""
    gone = [name for name, there in zip(NEEDED_PACKAGES, (_english().is_dir(), shutil.which("ffmpeg")), strict=True)
            if not there]  # fmt: skip
    return f"{', '.join(gone)} not found; apt-get install --no-install-recommends {' '.join(gone)}" if gone else ""


@lru_cache(maxsize=1)
def human_words() -> dict[str, list[F32]]:
    """label -> recordings of it, trimmed, full scale 1.0."""
    said = {prompt.name: prompt.pcm for prompt in _decoded(ENGLISH)}
    names = {word: [f"phonetic/{word[0]}_p"] for word in NATO}
    names |= {word: [f"digits/{index}"] for index, word in enumerate(list(DIGITS)[:10])}
    names["nine"].append("phonetic/9_p")  # "niner"
    names |= {"oh": ["digits/oh"], "pause": ["dictate/pause"]}
    return {
        word: [trim(said[name].astype(np.float32) / 32768.0, 34.0) for name in found] for word, found in names.items()
    }


@lru_cache(maxsize=1)
def hurried_words() -> dict[str, F32]:
    """label -> its first recording, said HURRY times as fast at the same pitch."""
    return {word: trim(_hurry(recordings[0]), 34.0) for word, recordings in human_words().items()}


def other_prompts() -> list[Prompt]:
    """English prompts that are no command: words, letters, digits, sentences."""
    return [prompt for prompt in _decoded(ENGLISH) if not any(word in prompt.name for word in SAY_A_COMMAND)]


def all_speech() -> dict[str, I16]:
    """Everything people say in these packages, joined by speaker or package: for wake words' false accepts."""
    joined = {folder.name: [p.pcm for p in _decoded(folder.name)] for folder in sorted(SOUNDS.iterdir())}
    joined |= {str(folder.name): [_ogg(path) for path in sorted(folder.rglob("*.ogg"))] for folder in OGG_FOLDERS}
    gap = np.zeros(RATE_HZ // 2, np.int16)
    return {
        name: np.concatenate([part for pcm in parts for part in (pcm, gap)]) for name, parts in joined.items() if parts
    }


def minutes(speech: dict[str, I16]) -> float:
    return sum(len(pcm) for pcm in speech.values()) / RATE_HZ / 60.0


@lru_cache(maxsize=8)
def _decoded(voice: str) -> tuple[Prompt, ...]:
    """All prompts of one voice, decoded in one go and cut apart again by the sizes of their files."""
    folder = SOUNDS / voice
    paths = sorted(path for path in folder.rglob("*.g722") if not any(word in str(path) for word in NOT_SPEECH))
    if not paths:
        return ()
    contents = [path.read_bytes() for path in paths]
    pcm = _decode_g722(b"".join(contents))
    ends = np.cumsum([len(content) * G722_SAMPLES_A_BYTE for content in contents])
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return tuple(Prompt(name, part) for name, part in zip(names, np.split(pcm, ends[:-1]), strict=True))


def _ogg(path: Path) -> I16:
    return np.asarray(np.rint(read_sound(path, RATE_HZ).pcm * 32767.0), np.int16)


def _decode_g722(content: bytes) -> I16:
    raw = ["-ar", str(RATE_HZ), "-ac", "1", "-f", "s16le"]
    return np.frombuffer(_ffmpeg(["-f", "g722", "-i", "-", *raw, "-"], content), "<i2")


def _hurry(sound: F32) -> F32:
    raw = ["-ar", str(RATE_HZ), "-ac", "1", "-f", "f32le"]
    made = _ffmpeg([*raw, "-i", "-", "-af", f"atempo={HURRY}", *raw, "-"], sound.astype("<f4").tobytes())
    return np.frombuffer(made, "<f4")


def _ffmpeg(options: list[str], content: bytes) -> bytes:
    command = ["ffmpeg", "-v", "error", *options]
    return subprocess.run(command, input=content, capture_output=True, check=True, timeout=600).stdout


def _english() -> Path:
    return SOUNDS / ENGLISH
