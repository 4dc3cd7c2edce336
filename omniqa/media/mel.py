"""The log-mel spectrogram of a clip of any length, with the numbers of transformers' feature extractor."""

from functools import cache
from math import ceil

import numpy as np
import torch

from omniqa.media.audio import SAMPLE_RATE

MELS = 128
HOP = 160
_WINDOW = 400
_FLOOR = 1e-10
_RANGE = 8.0  # in powers of ten, below the clip's maximum
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
    spectrum = torch.stft(
        torch.from_numpy(segment), _WINDOW, HOP, window=torch.hann_window(_WINDOW), center=False, return_complex=True
    )
    power = _mel_filters() @ spectrum.abs().square()
    return power.clamp(min=_FLOOR).log10().numpy()


@cache
def _mel_filters() -> torch.Tensor:
    """(128, 201): Slaney's mel scale, each filter of area one."""
    import librosa

    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_WINDOW, n_mels=MELS))
