"""At retention 1.0, logits and greedy tokens are transformers' own, given the same frames and sound."""

import pytest
import torch

from omniqa.models.generate import generate
from omniqa.models.qwen2_5_omni.audio import AudioEncoder, token_count
from omniqa.models.qwen2_5_omni.vision import VisionEncoder, patchify, window_order
from omniqa.pruning import registry
from omniqa.runtime.generation_options import GenerationOptions
from tests import reference_model as reference
from tests.models.qwen2_5_omni.clips import CLIPS, make_clip

QUESTION = "What happens, and what is heard?"
NEW_TOKENS = 32


@pytest.fixture(scope="module")
def processor(checkpoint):
    return reference.make_processor(checkpoint)


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("method", ["none", "omnidrop"])
def test_full_retention_equals_transformers(qa, processor, kind, method):
    clip = make_clip(**CLIPS[kind])
    batch = reference.inputs(processor, clip.frames, clip.waveform, QUESTION)
    module = qa.model.module
    with torch.inference_mode():
        expected = module(**batch).logits[0, -1]
        generated = module.generate(**batch, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)

    prefilled = qa.prefiller.prefill(qa.encode(clip), QUESTION, registry.create(method, 1.0), max_new_tokens=NEW_TOKENS)
    assert (prefilled.result.logits - expected).abs().max() <= 1e-4
    tokens = generate(
        qa.decoder,
        prefilled.result.logits,
        prefilled.layout.next_position,
        prefilled.cache,
        GenerationOptions(max_new_tokens=NEW_TOKENS),
        eos=frozenset(),
    )
    assert list(tokens) == generated[0, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(("height", "width"), [(252, 448), (112, 112), (140, 84), (28, 28), (56, 252)])
def test_vision_encoder_equals_transformers(qa, height, width):
    """Sizes with inner, right, lower and corner windows, and without some of them."""
    frames = torch.randint(0, 256, (6, height, width, 3), dtype=torch.uint8)
    encoder = VisionEncoder(qa.model.visual, qa.attention)
    patches = patchify((frames.float() - encoder._mean) / encoder._std).flatten(0, 2)
    grid = torch.tensor([[3, height // 14, width // 14]])
    with torch.inference_mode():
        expected = qa.model.visual(patches, grid_thw=grid).pooler_output
    assert (encoder.encode(frames.numpy()).flatten(0, 1) - expected).abs().max() <= 1e-4


def test_vision_batches_do_not_change_the_result(qa, monkeypatch):
    frames = torch.randint(0, 256, (10, 112, 140, 3), dtype=torch.uint8).numpy()
    together = qa.vision_encoder.encode(frames)
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.vision.BATCH_PATCHES", 1)
    assert (qa.vision_encoder.encode(frames) - together).abs().max() <= 1e-5


def test_what_inference_caches_can_be_trained_with():
    window_order.cache_clear()
    with torch.inference_mode():
        order = window_order(5, 6, 4)
    assert not order.cells.is_inference()
    assert not order.positions.is_inference()


@pytest.mark.parametrize("mel_frames", [3, 37, 199, 200, 401, 650, 6500])
def test_audio_encoder_equals_transformers(qa, mel_frames):
    """Less than a window, whole windows, a tail, and more windows than one batch."""
    mel = torch.randn(128, mel_frames)
    tower = qa.model.audio_tower
    with torch.inference_mode():
        expected = tower(mel, feature_lens=torch.tensor([mel_frames])).last_hidden_state
    encoded = AudioEncoder(tower, qa.attention).encode(mel.numpy())
    assert len(encoded.embeddings) == token_count(mel_frames)
    assert (encoded.embeddings - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["global", "window"])
@pytest.mark.parametrize("mel_frames", [150, 400, 511])
def test_audio_importance_is_the_attention_received(qa, kind, mel_frames, monkeypatch):
    monkeypatch.setattr("omniqa.models.encoded_media.score_block", lambda device: 5000)  # several blocks of queries
    encoded = qa.audio_encoder.encode(torch.randn(128, mel_frames).numpy())
    q, k = encoded.queries, encoded.keys
    logits = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    if kind == "window":
        window = torch.arange(len(q)) // encoded.window
        logits = logits.masked_fill(window[:, None] != window, float("-inf"))
    received = logits.softmax(-1).mean(0).sum(0)
    expected = torch.stack([received[2 * j : 2 * j + 2].mean() for j in range(len(encoded.embeddings))])
    assert (encoded.attention_received(kind) - expected).abs().max() <= 1e-5
