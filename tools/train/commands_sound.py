"""What happens to a voice on its way into the box: another throat, a room, a telephone-like codec, noise, a gain.

Sound is float32 at RATE_HZ, mono. Every function takes its own random generator: the same seed, the same sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Rng = np.random.Generator

RATE_HZ = 16_000
QUIET_SHARE = 0.15  # of the clips has no noise added
SNR_DB = (0.0, 30.0)
PAD_MS = (80, 500)  # what a voice detector leaves around a word
SPREAD = 0.16  # of the warp: vocal tracts from a child's to a big man's around each voice


def resample(sound: F32, ratio: float) -> F32:
    """The same sound in `ratio` times as many samples, band-limited, by the spectrum."""
    if abs(ratio - 1.0) < 1e-6:
        return np.asarray(sound, np.float32)
    n = len(sound)
    m = max(round(n * ratio), 8)
    spectrum = np.fft.rfft(sound)
    fitted = np.zeros(m // 2 + 1, np.complex128)
    keep = min(len(spectrum), len(fitted))
    fitted[:keep] = spectrum[:keep]
    return np.asarray(np.fft.irfft(fitted, m) * (m / n), np.float32)


def _fast(samples: int) -> int:
    """At least so many, and a size that the transform is quick at: a large prime factor makes it five times as slow."""
    return -(-samples // 1024) * 1024


def trim(sound: F32, fall_db: float = 40.0) -> F32:
    """Without the silence at both ends."""
    step = RATE_HZ // 100
    frames = sound[: len(sound) // step * step].reshape(-1, step)
    if not len(frames):
        return sound
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10.0 ** (-fall_db / 10.0))
    return sound[max(loud[0] - 1, 0) * step : (loud[-1] + 2) * step]


def take_through_the_world(word: F32, rng: Rng, chatter: Sequence[F32]) -> F32:
    """One trimmed word as the box might record it. chatter: other voices, for the background."""
    sound = resample(word, float(np.exp(rng.uniform(-SPREAD, SPREAD)))) if rng.random() < 0.7 else word
    if rng.random() < 0.5:
        sound = _room(sound, rng)
    if rng.random() < 0.5:
        sound = _colour(sound, rng)
    before, after = (int(ms) * RATE_HZ // 1000 for ms in rng.integers(*PAD_MS, 2))
    sound = np.concatenate([np.zeros(before, np.float32), sound, np.zeros(after, np.float32)])
    if rng.random() >= QUIET_SHARE:
        sound = add_noise(sound, make_noise(len(sound), rng, chatter), float(rng.uniform(*SNR_DB)))
    if rng.random() < 0.35:
        sound = _CODECS[rng.integers(len(_CODECS))](sound, rng)
    if rng.random() < 0.2:  # cut out with hard edges, as a decoder of several words does
        inset = int(rng.integers(0, min(before, after)))
        sound = sound[inset : len(sound) - inset]
    return as_recorded(sound, rng)


def as_recorded(sound: F32, rng: Rng) -> F32:
    """At some gain, sometimes too loud, in 16 bits."""
    peak = max(float(np.abs(sound).max()), 1e-6)
    gain = 10.0 ** (rng.uniform(-30.0, 3.0) / 20.0)
    return np.asarray(np.rint(np.clip(sound / peak * gain, -1.0, 1.0) * 32767.0) / 32768.0, np.float32)


def add_noise(sound: F32, noise: F32, snr_db: float) -> F32:
    """Noise under the speech. SNR is over the frames that hold speech, not over the pauses."""
    active = trim(sound, 30.0)
    level = float(np.sqrt(np.mean(np.square(active)))) / max(float(noise.std()), 1e-9)
    return np.asarray(sound + noise[: len(sound)] * np.float32(level * 10.0 ** (-snr_db / 20.0)), np.float32)


def make_noise(samples: int, rng: Rng, chatter: Sequence[F32] = ()) -> F32:
    """Some noise of a workshop, standard deviation 1."""
    kinds: list[Callable[[int, Rng], F32]] = [white, pink, hum, machine, clanks]
    weights = [0.15, 0.3, 0.2, 0.2, 0.15]
    if len(chatter) and rng.random() < 0.2:
        return babble(samples, rng, chatter)
    noise = kinds[int(rng.choice(len(kinds), p=weights))](samples, rng)
    return unit(noise + pink(samples, rng) * np.float32(rng.uniform(0.0, 0.5)))


def white(samples: int, rng: Rng) -> F32:
    return rng.standard_normal(samples, np.float32)


def pink(samples: int, rng: Rng) -> F32:
    """Falling by 2-6 dB an octave."""
    size = _fast(samples)
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ)
    slope = np.maximum(hz, 20.0) ** -rng.uniform(0.35, 1.0)
    return unit(np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * slope, size)[:samples])


def hum(samples: int, rng: Rng) -> F32:
    """Mains or a motor: harmonics that wander a little."""
    t = np.arange(samples) / RATE_HZ
    base = rng.choice([50.0, 60.0, rng.uniform(25.0, 300.0)])
    wander = np.cumsum(1.0 + 0.002 * np.sin(2 * np.pi * rng.uniform(0.3, 3.0) * t)) / RATE_HZ
    tones = sum(
        np.sin(2 * np.pi * base * k * wander + rng.uniform(0, 6.3)) * k ** -rng.uniform(0.4, 1.4)
        for k in range(1, 25)
        if base * k < RATE_HZ / 2
    )
    return unit(np.asarray(tones) + 0.02 * rng.standard_normal(samples))


def machine(samples: int, rng: Rng) -> F32:
    """Air and gears: a band of noise that beats."""
    size = _fast(samples)
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ)
    centre, width = np.exp(rng.uniform(np.log(150.0), np.log(5000.0))), rng.uniform(0.2, 1.0)
    band = np.exp(-0.5 * (np.log(np.maximum(hz, 1.0) / centre) / width) ** 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * band, size)[:samples]
    beat = 1.0 + rng.uniform(0.0, 0.9) * np.sin(2 * np.pi * rng.uniform(1.0, 30.0) * np.arange(samples) / RATE_HZ)
    return unit(noise * beat)


def clanks(samples: int, rng: Rng) -> F32:
    """Metal on metal, one to eight times a second."""
    sound = 0.05 * rng.standard_normal(samples)
    for start in rng.integers(0, samples, rng.poisson(rng.uniform(1.0, 8.0) * samples / RATE_HZ) + 1):
        t = np.arange(min(RATE_HZ // 3, samples - int(start))) / RATE_HZ
        tones = [
            np.exp(-t * rng.uniform(12, 60)) * np.sin(2 * np.pi * rng.uniform(300, 6000) * t)
            for _ in range(int(rng.integers(2, 6)))
        ]
        sound[int(start) : int(start) + len(t)] += rng.uniform(0.3, 2.0) * np.sum(tones, axis=0)
    return unit(sound)


def babble(samples: int, rng: Rng, chatter: Sequence[F32]) -> F32:
    """A few other voices at once."""
    sound = np.zeros(samples)
    for _ in range(int(rng.integers(2, 6))):
        at = -int(rng.integers(0, RATE_HZ))
        while at < samples:
            voice = chatter[int(rng.integers(len(chatter)))]
            first, last = max(at, 0), min(at + len(voice), samples)
            if last > first:
                sound[first:last] += voice[first - at : last - at]
            at += len(voice) + int(rng.integers(0, RATE_HZ // 4))
    return unit(sound + 1e-4 * rng.standard_normal(samples))


def unit(noise: NDArray[np.floating]) -> F32:
    return np.asarray(noise / max(float(noise.std()), 1e-9), np.float32)


def _room(sound: F32, rng: Rng) -> F32:
    """An exponentially fading tail of early echoes and diffuse sound: RT60 0.1 to 0.9 s."""
    rt60 = rng.uniform(0.1, 0.9)
    n = int(min(rt60, 0.6) * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    tail = rng.standard_normal(n) * np.exp(-6.9 * t / rt60)
    tail *= rng.random(n) < np.minimum(t / 0.03, 1.0)  # sparse at first, dense after 30 ms
    tail *= 10.0 ** (-rng.uniform(0.0, 15.0) / 20.0) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] = 1.0
    size = _fast(len(sound) + n)
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return np.asarray(wet[: len(sound) + n // 3], np.float32)


def _colour(sound: F32, rng: Rng) -> F32:
    """A cheap microphone: a tilt, a bump, a limited band."""
    size = _fast(len(sound))
    spectrum = np.fft.rfft(sound, size)
    hz = np.maximum(np.fft.rfftfreq(size, 1.0 / RATE_HZ), 20.0)
    octaves = np.log2(hz / 1000.0)
    db = rng.uniform(-4.0, 4.0) * octaves
    db += rng.uniform(-8.0, 8.0) * np.exp(-0.5 * ((octaves - rng.uniform(-2.5, 2.5)) / 0.6) ** 2)
    low, high = rng.uniform(30.0, 300.0), rng.uniform(3400.0, 8000.0)
    db -= 12.0 * np.maximum(np.log2(low / hz), 0.0) + 24.0 * np.maximum(np.log2(hz / high), 0.0)
    coloured = np.fft.irfft(spectrum * 10.0 ** (np.clip(db, -60, 30) / 20.0), size)
    return np.asarray(coloured[: len(sound)], np.float32)


def _band(sound: F32, low_hz: float, high_hz: float) -> F32:
    size = _fast(len(sound))
    spectrum = np.fft.rfft(sound, size)
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0.0
    return np.asarray(np.fft.irfft(spectrum, size)[: len(sound)], np.float32)


def _telephone(sound: F32, rng: Rng) -> F32:
    """300-3400 Hz, mu-law."""
    x = _band(sound, 300.0, 3400.0)
    x /= max(float(np.abs(x).max()), 1e-9)
    code = np.rint(np.sign(x) * np.log1p(255.0 * np.abs(x)) / np.log(256.0) * 127.0) / 127.0
    return np.asarray(np.sign(code) * (256.0 ** np.abs(code) - 1.0) / 255.0, np.float32)


def _subbands(sound: F32, rng: Rng) -> F32:
    """Like G.722: 7 kHz, the upper half coarser than the lower."""
    low, high = _band(sound, 50.0, 4000.0), _band(sound, 4000.0, 7000.0)
    return low + _coarse(low, 1 / 32, rng) + high + _coarse(high, 1 / 4, rng)


def _transform(sound: F32, rng: Rng) -> F32:
    """Like MP3 at a low rate: weak parts of each short spectrum are dropped."""
    block = 1024
    n = -(-len(sound) // block) * block
    frames = np.pad(sound, (0, n - len(sound))).reshape(-1, block)
    spectra = np.fft.rfft(frames, axis=1)
    size = np.abs(spectra)
    spectra[size < np.quantile(size, rng.uniform(0.3, 0.75), axis=1, keepdims=True)] = 0.0
    return np.asarray(np.fft.irfft(spectra, block, axis=1).ravel()[: len(sound)], np.float32)


def _coarse(sound: F32, share: float, rng: Rng) -> F32:
    level = np.sqrt(np.convolve(np.square(sound), np.full(160, 1 / 160), "same"))
    return np.asarray(level * share * rng.standard_normal(len(sound)), np.float32)


_CODECS: tuple[Callable[[F32, Rng], F32], ...] = (_telephone, _subbands, _transform)
