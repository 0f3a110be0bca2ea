"""Sound of a simulated factory hall: words, or bursts with the formants of speech, over noise. All of it seeded.

A burst is a buzz at the pitch of a voice through three resonances that move from one vowel to the next (formants after
Peterson & Barney, J. Acoust. Soc. Am. 24, 1952), in syllables. It is no language; a voice detector takes it for speech.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import SimSoundConfig
from edge_runtime.core.errors import DeviceError
from edge_runtime.media.wav_file import find_wavs, read_wav

VOWELS_HZ = ((270, 2290, 3010), (530, 1840, 2480), (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240))
BANDWIDTHS_HZ = (60.0, 90.0, 150.0)
FULL_SCALE = 32768.0
LEAD_S = 1.0  # of noise alone at the start, from which a listener learns the room
BLOCK_S = 1  # noise is made by the second


class SimSound:
    """Endless. Two of the same seed are equal."""

    def __init__(self, cfg: SimSoundConfig, file: str, rate_hz: int) -> None:
        self._cfg, self._rate_hz = cfg, rate_hz
        self._rng = np.random.default_rng(cfg.seed)
        self._words = [read_wav(path, rate_hz) for path in find_wavs(file)] if file else []
        if file and not any(word.any() for word in self._words):
            raise DeviceError(f"the recordings of '{file}' are silent", "set microphone.file")
        self._done = 0  # samples of noise made
        self._speech = np.zeros(round(LEAD_S * rate_hz))
        self._ready = np.empty(0, np.int16)
        self.spoken: list[tuple[float, float]] = []  # start and end of each word, in seconds of sound

    def next(self, samples: int) -> NDArray[np.int16]:
        while self._ready.size < samples:
            self._ready = np.concatenate((self._ready, self._block()))
        out, self._ready = self._ready[:samples].copy(), self._ready[samples:]
        return out

    def describe(self) -> str:
        return f"simulated, {self._cfg.words_per_min:g} words a minute in {self._cfg.noise}"

    def _block(self) -> NDArray[np.int16]:
        size = BLOCK_S * self._rate_hz
        while self._cfg.words_per_min and self._speech.size < size:
            self._say()
        speech = np.zeros(size)
        speech[: self._speech[:size].size] = self._speech[:size]
        self._speech = self._speech[size:]
        hall = speech + _scaled(self._noise(size), self._cfg.noise_dbfs)
        self._done += size
        return np.asarray(np.rint(hall).clip(-32768, 32767), np.int16)

    def _say(self) -> None:
        """One more word behind what is said already, and the pause after it."""
        word = self._pick() if self._words else self._burst()
        every_s = 60.0 / self._cfg.words_per_min
        pause_s = max(0.4, every_s - word.size / self._rate_hz) * self._rng.uniform(0.8, 1.2)
        start_s = (self._done + self._speech.size) / self._rate_hz
        self.spoken.append((start_s, start_s + word.size / self._rate_hz))
        pause = np.zeros(round(pause_s * self._rate_hz))
        self._speech = np.concatenate((self._speech, _scaled(word, self._cfg.speech_dbfs), pause))

    def _pick(self) -> NDArray[np.float64]:
        return self._words[self._rng.integers(len(self._words))].astype(np.float64)

    def _burst(self) -> NDArray[np.float64]:
        return np.concatenate([self._syllable() for _ in range(self._rng.integers(2, 5))])

    def _syllable(self) -> NDArray[np.float64]:
        rate_hz = self._rate_hz
        t = np.arange(round(self._rng.uniform(0.12, 0.25) * rate_hz)) / rate_hz
        pitch_hz = self._rng.uniform(90, 220) * (1 - 0.15 * t / t[-1])
        phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
        one, other = self._rng.choice(VOWELS_HZ, 2)
        way = (t / t[-1])[None, :]
        formants = one[:, None] * (1 - way) + other[:, None] * way
        voice = np.zeros(t.size)
        for harmonic in range(1, int(3400 // pitch_hz[0]) + 1):
            hz = harmonic * pitch_hz
            gain = sum(1 / (1 + ((hz - f) / b) ** 2) for f, b in zip(formants, BANDWIDTHS_HZ, strict=True))
            voice += gain / math.sqrt(harmonic) * np.sin(harmonic * phase)
        return np.asarray(voice * np.sqrt(np.abs(np.sin(np.pi * t / t[-1]))))

    def _noise(self, size: int) -> NDArray[np.float64]:
        white = self._rng.normal(size=size)
        if self._cfg.noise == "white":
            return white
        t = (self._done + np.arange(size)) / self._rate_hz
        hum = np.sum([np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 20)], axis=0)
        blows = 4.0 * self._blows(size) if self._cfg.noise == "clanks" else 0.0
        return np.asarray(hum + 0.3 * white + blows)

    def _blows(self, size: int) -> NDArray[np.float64]:
        """One or two blows of metal a second: five ringing modes each."""
        out = np.zeros(size)
        ring = np.arange(min(size, round(0.4 * self._rate_hz))) / self._rate_hz
        for at in self._rng.integers(0, size - ring.size + 1, self._rng.integers(1, 3)):
            for _ in range(5):
                decay, hz = self._rng.uniform(15, 40), self._rng.uniform(400, min(5000, 0.4 * self._rate_hz))
                out[at : at + ring.size] += np.exp(-decay * ring) * np.sin(2 * np.pi * hz * ring)
        return out


def _scaled(sound: NDArray[np.float64], dbfs: float) -> NDArray[np.float64]:
    rms = math.sqrt(float(np.mean(np.square(sound))))
    return sound * (10 ** (dbfs / 20) * FULL_SCALE / rms) if rms > 0 else sound
