"""The decoder gives the device its work without waiting: what it does next never depends on a tensor's values."""

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.decode_step import DecodeStep
from omniqa.models.prefill_rows import PrefillInput
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import MediaTokens
from omniqa.runtime.attention import _decode_by_products
from omniqa.runtime.kv_cache import KVCache

CLIP = ClipTokens(n_audio=100, grids=4, tokens_per_grid=60)
HEAD, TAIL = 7, 9
METHODS = {
    "omnidrop": ("omnidrop", {}),
    "the question's rows": ("omnidrop", {"query_scope": "question"}),
    "lowest scores": ("omnidrop", {"tds": False}),
    "fastv": ("fastv", {}),
    "none": ("none", {}),
}


def make_prompt(entered, width):
    """A prompt of zeros in which the clip's first `entered` tokens enter."""
    modality = torch.full((CLIP.n,), VIDEO)
    modality[: CLIP.n_audio] = AUDIO
    tokens = HEAD + entered + TAIL
    return PrefillInput(
        embeddings=torch.zeros(tokens, width),
        positions=torch.zeros(3, tokens, dtype=torch.long),
        media=slice(HEAD, HEAD + entered),
        question=torch.arange(-6, -3),
        index=torch.arange(entered),
        modality=modality,
        chunk=torch.zeros(CLIP.n, dtype=torch.long),
        max_chunk=3,
    )


class Valueless(FakeTensorMode):
    """Tensors have shapes but no values: reading one, as `.item()`, `nonzero()` and indexing by a mask do, fails."""

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)  # the weights are real


@pytest.mark.parametrize("read", [lambda x: x[x > 0], lambda x: int(x.sum()), lambda x: x.tolist()])
def test_reading_a_value_would_be_noticed(read):
    with Valueless(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        read(torch.zeros(3))


@pytest.mark.parametrize("case", METHODS)
def test_a_prefill_reads_nothing_back(qa, case):
    name, options = METHODS[case]
    pruner = registry.create(name, 0.5, **options)
    plan = pruner.plan(CLIP, qa.model.layers)
    cache = KVCache(qa.model.layers, max_new_tokens=3)
    with Valueless():
        result = qa.decoder.prefill(make_prompt(plan.kept[0], qa.model.lm_head.in_features), pruner, plan, cache)
    assert [len(index) for index in result.alive] == list(plan.kept)
    assert cache.lengths == [HEAD + count + TAIL for count in plan.kept]


@pytest.mark.parametrize("retention", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("guidance", ["text", "audio"])
def test_omnidrops_input_level_reads_nothing_back(retention, guidance):
    pruner = registry.create("omnidrop", retention, guidance=guidance)
    plan = pruner.plan(CLIP, 6)
    with Valueless():
        modality = torch.full((CLIP.n,), VIDEO)
        embeddings = (torch.zeros(CLIP.n_video, 16), torch.zeros(CLIP.n_audio, 16))
        tokens = MediaTokens(
            modality, torch.zeros_like(modality), CLIP.tokens_per_grid, *embeddings, torch.zeros(CLIP.n_audio)
        )
        kept = pruner.prune_input(tokens, plan)
        assert [mask is None or mask.shape for mask in (kept.video, kept.audio)] in (
            [(CLIP.n_video,), (CLIP.n_audio,)],
            [True, True],
        )


def test_audio_guidance_reads_one_number_before_the_first_layer(qa, monkeypatch):
    monkeypatch.setattr("omniqa.models.layer_pruner._count_audio", lambda prompt: CLIP.n_audio)
    pruner = registry.create("omnidrop", 0.8, guidance="audio")
    plan = pruner.plan(CLIP, qa.model.layers)
    with Valueless():
        prompt = make_prompt(plan.kept[0], qa.model.lm_head.in_features)
        result = qa.decoder.prefill(prompt, pruner, plan, KVCache(qa.model.layers, 0))
    assert len(result.alive[-1]) == plan.kept[-1] < plan.kept[0]


@pytest.fixture
def products(qa):
    """A decoder whose steps attend as they do on CUDA without flash-attn."""

    class Products(type(qa.attention)):
        def decode(self, q, k, v, hidden, length):
            return _decode_by_products(q, k, v, hidden)

    return qa.model.decoder_stack(Products())


def prefilled(decoder, thinker, max_new_tokens):
    """A cache after the prefill of some random prompt, with layers of different lengths."""
    pruner = registry.create("omnidrop", 0.4)
    plan = pruner.plan(CLIP, thinker.layers)
    prompt = make_prompt(plan.kept[0], thinker.lm_head.in_features)
    torch.manual_seed(0)
    prompt.embeddings.normal_()
    cache = KVCache(thinker.layers, max_new_tokens)
    decoder.prefill(prompt, pruner, plan, cache)
    return cache


def test_a_step_has_one_shape_and_reads_nothing_back(qa):
    """So that a CUDA graph of it can be replayed: the same operations on the same storage, whichever step it is."""
    cache = prefilled(qa.decoder, qa.model, max_new_tokens=3)
    steps = DecodeStep(qa.decoder, cache, position=500)
    with Valueless(), torch.inference_mode():
        assert steps._step().shape == (qa.model.lm_head.out_features,)


def test_steps_by_products_equal_steps_by_the_kernel(qa, products):
    """The two ways a step attends, one on CUDA and one elsewhere, over caches with room that is not filled."""
    caches = [prefilled(qa.decoder, qa.model, room) for room in (4, 30)]
    steps = [DecodeStep(decoder, cache, 500) for decoder, cache in zip((qa.decoder, products), caches, strict=True)]
    for token in (5, 17, 5, 200):
        ours, theirs = (step(token) for step in steps)
        assert (ours - theirs).abs().max() <= 1e-5
    assert caches[0].lengths == caches[1].lengths


def test_storage_is_taken_once(qa):
    cache = prefilled(qa.decoder, qa.model, max_new_tokens=4)
    before = [x.data_ptr() for layer in range(qa.model.layers) for x in cache.storage(layer)]
    steps = DecodeStep(qa.decoder, cache, position=500)
    for _ in range(4):
        steps(1)
    assert before == [x.data_ptr() for layer in range(qa.model.layers) for x in cache.storage(layer)]
    with pytest.raises(ValueError, match="no room"):
        steps(1)


def test_tokens_that_leave_skip_the_mlp(qa):
    """Each layer's MLP sees what the next layer holds: those that leave after it never reach it."""
    pruner = registry.create("omnidrop", 0.4)
    plan = pruner.plan(CLIP, qa.model.layers)
    rows = []
    hooks = [
        layer.mlp.register_forward_hook(lambda module, given, out: rows.append(len(out)))
        for layer in qa.model.decoder.layers
    ]
    prompt = make_prompt(plan.kept[0], qa.model.lm_head.in_features)
    qa.decoder.prefill(prompt, pruner, plan, KVCache(qa.model.layers, 0))
    for hook in hooks:
        hook.remove()
    assert rows == [HEAD + count + TAIL for count in plan.kept[1:]] + [1]
    assert plan.kept[0] > plan.kept[-1]


def test_a_captured_step_equals_the_plain_one(qa):
    if not torch.cuda.is_available():
        pytest.skip("CUDA graphs need a CUDA device")
    import omniqa

    there = omniqa.load(str(qa.model.checkpoint.folder), device="cuda", dtype="bfloat16")
    plain, captured = (DecodeStep(there.decoder, prefilled_on(there, 40), 500) for _ in range(2))
    for token in range(30):
        plain._run = 0  # never late enough to capture
        torch.testing.assert_close(plain(token), captured(token), rtol=0.02, atol=0.02)  # bfloat16
    assert captured._captured is not None
    assert plain._captured is None


def prefilled_on(qa, room):
    """As `prefilled`, by a real clip on the device of `qa`."""
    from tests.models.qwen2_5_omni.clips import make_clip

    return qa.prefiller.prefill(
        qa.encode(make_clip(frames=4, seconds=2.0)), "?", registry.create("omnidrop", 0.4), room
    ).cache
