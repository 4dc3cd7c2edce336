"""From a script to its sound."""

from math import tau

import numpy as np

from omniqa.nano.scenes import Script, Sound
from omniqa.nano.words import PEAK, spoken

RATE = 16000  # samples a second
_FADE = 0.005  # seconds, so that a sound begins and ends without a click of its own
_PARTIALS = ((1.0, 0.6), (2.0, 0.25), (2.76, 0.35), (5.4, 0.15))  # of a bell: times the pitch, amplitude
_HARMONICS = ((1, 0.5), (2, 0.3), (3, 0.2))  # of a hum


def waveform(script: Script) -> np.ndarray:
    """The sound of a clip: float32 of shape (seconds * 16000,), mono, within -1 to 1."""
    rng = np.random.default_rng([script.seed & 0xFFFFFFFFFFFFFFFF, len(script.sounds)])
    samples = script.room_noise * rng.standard_normal(round(script.seconds * RATE), np.float32)
    for sound in script.sounds:
        first = round(sound.start * RATE)
        made = _made(sound, rng)[: len(samples) - first]
        samples[first : first + len(made)] += made
    return np.clip(samples, -1, 1)


def _made(sound: Sound, rng: np.random.Generator) -> np.ndarray:
    if sound.kind == "voice":
        return spoken(sound.word, sound.take) * np.float32(sound.loudness / PEAK)
    time = np.arange(round((sound.end - sound.start) * RATE), dtype=np.float32) / RATE
    shape = _SHAPES[sound.kind](time, sound.pitch, rng)
    edges = np.minimum(1, np.minimum(time, time[-1] - time) / _FADE)
    return (sound.loudness * edges * shape / np.abs(shape).max()).astype(np.float32)


def _hum(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return _sum([part * np.sin(tau * pitch * times * time) for times, part in _HARMONICS])


def _beep(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return np.sin(tau * pitch * time)


def _chirp(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Rises from the pitch to four times that."""
    length = time[-1]
    return np.sin(tau * pitch * (time + 1.5 * time * time / length))


def _noise(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(len(time), np.float32)


def _clicks(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    since = (time - 0.01) % (1 / pitch)  # the first comes once the sound has faded in
    return np.exp(-since / 0.004) * np.sin(tau * 2500 * since)


def _bell(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Struck at once, then dying away; high partials first."""
    return _sum([part * np.exp(-times * time * 3) * np.sin(tau * pitch * times * time) for times, part in _PARTIALS])


def _sum(parts: list[np.ndarray]) -> np.ndarray:
    return np.sum(parts, axis=0)


_SHAPES = {"hum": _hum, "beep": _beep, "chirp": _chirp, "noise": _noise, "clicks": _clicks, "bell": _bell}
