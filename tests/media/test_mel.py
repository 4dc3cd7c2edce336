import librosa
import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from omniqa.media import mel
from omniqa.media.mel import log_mel

RATE = 16_000


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise over a rising tone, fading in, so that no two parts are alike."""
    t = np.arange(samples) / RATE
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.05
    return ((np.sin(t * (500 + 30 * t)) * 0.3 + noise) * np.linspace(0.1, 1, samples)).astype(np.float32)


def extracted(waveform: np.ndarray) -> np.ndarray:
    extractor = WhisperFeatureExtractor(feature_size=128, sampling_rate=RATE, hop_length=160, chunk_length=300)
    batch = extractor(waveform, sampling_rate=RATE, padding="max_length", return_attention_mask=True)
    return batch["input_features"][0][:, : int(batch["attention_mask"][0].sum())]


def whole_signal(waveform: np.ndarray) -> np.ndarray:
    """The definition, on all of a clip of any length followed by zeros."""
    padded = torch.from_numpy(np.pad(waveform, (0, 4000)))
    stft = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)[:, :-1]
    filters = torch.from_numpy(mel_filter_bank(201, 128, 0.0, 8000.0, RATE, "slaney", "slaney")).float()
    log = (filters.T @ stft.abs() ** 2).clamp(min=1e-10).log10()
    log = (torch.maximum(log, log.max() - 8) + 4) / 4
    return log[:, : -(-len(waveform) // 160)].numpy()


@pytest.mark.parametrize("samples", [1, 100, 159, 160, 161, 201, 32_000, 59_200, 4096 * 160 + 7])
def test_it_equals_transformers_extractor(samples):
    waveform = sound(samples)
    ours, theirs = log_mel(waveform), extracted(waveform)
    assert ours.shape == theirs.shape == (128, -(-samples // 160))
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-4


def test_it_equals_transformers_extractor_just_below_its_limit():
    waveform = sound(4_798_400)  # 299.9 s
    assert np.abs(log_mel(waveform) - extracted(waveform)).max() <= 1e-4


def test_the_filters_are_those_of_librosa():
    theirs = librosa.filters.mel(sr=RATE, n_fft=400, n_mels=128)
    np.testing.assert_allclose(mel._mel_filters().numpy(), theirs, rtol=1e-6, atol=0)


def test_silence_is_flat():
    waveform = np.zeros(20_000, np.float32)
    assert (log_mel(waveform) == -1.5).all()
    assert np.array_equal(log_mel(waveform), extracted(waveform))


def test_no_sound_gives_no_frames():
    assert log_mel(np.zeros(0, np.float32)).shape == (128, 0)


def test_a_maximum_just_beyond_the_end_sets_the_floor_too():
    waveform = np.zeros(16_000, np.float32)
    waveform[:8000] = sound(8000) * 1e-4
    waveform[-20:] = 1.0  # seen best by the frame that is centred on the end, and is not part of the output
    assert np.abs(log_mel(waveform) - extracted(waveform)).max() <= 1e-4


def test_nothing_is_cut_at_300_s():
    waveform = sound(310 * RATE)
    ours = log_mel(waveform)
    assert ours.shape == (128, 31_000)
    assert np.abs(ours - whole_signal(waveform)).max() <= 1e-4


@pytest.mark.parametrize("block", [2, 3, 100])
def test_the_size_of_a_block_does_not_matter(block, monkeypatch):
    waveform = sound(16_123)
    whole = log_mel(waveform)
    monkeypatch.setattr(mel, "_BLOCK", block)
    assert np.abs(log_mel(waveform) - whole).max() <= 1e-6


def test_librosas_filters_are_those_of_transformers():
    theirs = mel_filter_bank(201, 128, 0.0, 8000.0, RATE, "slaney", "slaney").T
    assert np.abs(mel._mel_filters().numpy() - theirs).max() <= 1e-8
