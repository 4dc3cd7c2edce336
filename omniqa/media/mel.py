"""The log-mel spectrogram of a clip of any length, with the numbers of transformers' feature extractor."""

from functools import cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from omniqa.media.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

MELS = 128
HOP = 160
_WINDOW = 400
_FLOOR = 1e-10
_RANGE = 8.0  # in powers of ten, below the clip's maximum
# Slaney's mel scale: 15 mels up to 1 kHz in equal steps of frequency, 27 for every factor of 6.4 above.
_LOG_FROM_HZ, _LOG_FROM_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
_BLOCK = 4096  # frames at a time: 41 s, some 15 MB


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """What the audio encoder takes in, for the whole clip.

    Equals `WhisperFeatureExtractor(feature_size=128)` cut to the clip's own frames, without its limit of 300 s. There
    the clip is followed by zeros: its last frames look at them, and the frames just beyond the end, which still touch
    its tail, count for the maximum.

    Args:
        waveform: float32, shape (n,), 16 kHz mono.

    Returns:
        float32, shape (128, ceil(n / 160)): a frame every 10 ms.
    """
    frames = ceil(len(waveform) / HOP)
    touching = ceil((len(waveform) + _WINDOW // 2) / HOP) if frames else 0
    mel = np.empty((MELS, frames), np.float32)
    maximum = np.log10(_FLOOR)
    for first in range(0, touching, _BLOCK):
        block = _log_power(_segment(waveform, first, min(first + _BLOCK, touching)))
        maximum = max(maximum, block.max())
        own = mel[:, first : first + _BLOCK]
        own[:] = block[:, : own.shape[1]]
    np.maximum(mel, maximum - _RANGE, out=mel)
    mel += 4.0
    mel /= 4.0
    return mel


def _segment(waveform: np.ndarray, first: int, last: int) -> np.ndarray:
    """The samples that frames `first` to `last` (not included) look at; mirrored before the clip, zeros after it."""
    begin, end = first * HOP - _WINDOW // 2, (last - 1) * HOP + _WINDOW // 2
    segment = np.zeros(end - begin, np.float32)
    inside = waveform[max(begin, 0) : end]
    segment[max(-begin, 0) :][: len(inside)] = inside
    if begin < 0:
        segment[:-begin] = segment[-2 * begin : -begin : -1]
    return segment


def _log_power(segment: np.ndarray) -> np.ndarray:
    """log10 of the mel power of every frame in the segment: (128, frames)."""
    import torch  # so that files are probed and sampled without it

    spectrum = torch.stft(
        torch.from_numpy(segment), _WINDOW, HOP, window=torch.hann_window(_WINDOW), center=False, return_complex=True
    )
    power = _mel_filters() @ spectrum.abs().square()
    return power.clamp(min=_FLOOR).log10().numpy()


@cache
def _mel_filters() -> "Tensor":
    """(128, 201) float32: triangles on Slaney's mel scale, each of area one.

    The numbers of `librosa.filters.mel`. Importing librosa would take longer than encoding a short clip.
    """
    import torch

    bins = np.linspace(0.0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE / 2), MELS + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0)
    area = (high - low) / 2
    return torch.from_numpy((triangles.astype(np.float32) / area).astype(np.float32))


def _hz_to_mel(hz: float) -> float:
    """Slaney's mel scale for a frequency above 1 kHz: linear up to there, logarithmic from there on."""
    return _LOG_FROM_MEL + np.log(hz / _LOG_FROM_HZ) / _LOG_STEP


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    """Frequencies in Hz of any mels (n,)."""
    logarithmic = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mels - _LOG_FROM_MEL))
    return np.where(mels < _LOG_FROM_MEL, mels * _LOG_FROM_HZ / _LOG_FROM_MEL, logarithmic)
