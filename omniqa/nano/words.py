"""The bank of spoken words: every word in eight takes (four voices, two speeds), made by make_words.py."""

from functools import cache
from importlib import resources

import numpy as np

WORDS = (
    "apple",
    "banana",
    "coffee",
    "garden",
    "hello",
    "kitchen",
    "monkey",
    "paper",
    "river",
    "sugar",
    "tiger",
    "window",
)
TAKES = 8
PEAK = 0.9  # amplitude
BANK_RATE = 8000  # samples a second, one byte each
_MU = 255.0  # of the mu-law


def spoken(word: str, take: int) -> np.ndarray:
    """One take of a word: float32 of shape (n,), 16 kHz mono, its peak at PEAK.

    Raises:
        ValueError: the bank holds no such word.
        IndexError: nor such a take.
    """
    return _bank()[WORDS.index(word)][take]


def spoken_seconds(word: str, take: int) -> float:
    """How long a take is."""
    return len(spoken(word, take)) / (2 * BANK_RATE)


def compress(samples: np.ndarray) -> np.ndarray:
    """Samples from -1 to 1 as mu-law of one byte (int8)."""
    return np.rint(127 * np.sign(samples) * np.log1p(_MU * np.abs(samples)) / np.log1p(_MU)).astype(np.int8)


def expand(codes: np.ndarray) -> np.ndarray:
    """What `compress` made, as samples again (float32)."""
    levels = codes.astype(np.float32) / 127
    return np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(_MU)) / _MU


@cache
def _bank() -> list[list[np.ndarray]]:
    with resources.files(__package__).joinpath("words.npz").open("rb") as file, np.load(file) as stored:
        ends, samples = stored["ends"], expand(stored["samples"])
    takes = [_doubled(take) for take in np.split(samples, ends.ravel()[:-1])]
    return [takes[first : first + TAKES] for first in range(0, len(takes), TAKES)]


def _doubled(samples: np.ndarray) -> np.ndarray:
    """The same sound at twice the rate: the spectrum, with nothing above it. All takes are equally loud."""
    doubled = np.fft.irfft(np.fft.rfft(samples), 2 * len(samples))
    return (doubled * (PEAK / np.abs(doubled).max())).astype(np.float32)
