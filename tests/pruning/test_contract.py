"""What every method promises, found through the registry: a new method is held to it without a line here."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from omniqa.errors import UsageError
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import MediaTokens
from omniqa.pruning.methods.omnidrop.method import OmniDrop
from tests.pruning.clip import entered, media_tokens, run_layers

CLIP = ClipTokens(40, 8, 40)  # every method can bring it to R = 0.4
LAYERS = 14


@pytest.fixture(params=registry.methods())
def name(request):
    return request.param


def alive_in_every_layer(pruner, clip):
    tokens = media_tokens(clip, pruner=pruner)
    plan = pruner.plan(tokens.counts, LAYERS)
    scores = torch.rand(LAYERS - 1, clip.n, generator=torch.Generator().manual_seed(1))
    return plan, run_layers(pruner, plan, tokens, entered(pruner, tokens, plan), scores)


@pytest.mark.parametrize("R", [0.4, 1.0])
def test_the_plan_is_what_happens(name, R):
    pruner = registry.create(name, R)
    plan, alive = alive_in_every_layer(pruner, CLIP)
    if pruner.exact_plan:
        assert [len(indices) for indices in alive] == list(plan.kept)
    dropped = [len(before) - len(after) for before, after in pairwise(alive)]
    if pruner.exact_plan:
        assert dropped == list(plan.drops)
    assert [layer for layer, count in enumerate(dropped) if count and not plan.prunes(layer)] == []
    assert sum(map(len, alive)) / (LAYERS * CLIP.n) == pytest.approx(plan.retention, abs=0.01)


def test_selections_are_ascending_and_never_bring_a_token_back(name):
    _, alive = alive_in_every_layer(registry.create(name, 0.4), CLIP)
    for before, after in pairwise(alive):
        assert set(after.tolist()) <= set(before.tolist())
    for indices in alive:
        assert indices.dtype == torch.long
        assert (indices.diff() > 0).all()


def test_retention_1_touches_nothing(name):
    pruner = registry.create(name, 1.0)
    tokens = media_tokens(CLIP)
    selection = pruner.prune_input(tokens, pruner.plan(CLIP, LAYERS))
    assert selection.video_embeddings is selection.audio_embeddings is None
    assert pruner.needs == frozenset()
    _, alive = alive_in_every_layer(pruner, CLIP)
    assert all(len(indices) == CLIP.n for indices in alive)


@pytest.mark.parametrize("R", [0.0, -1.0, 1.5, float("nan")])
def test_a_retention_out_of_range_is_refused(name, R):
    with pytest.raises(UsageError, match="out of range"):
        registry.create(name, R)


def test_a_method_names_itself_and_its_paper(name):
    method = registry.get(name)
    assert method.name == name
    assert method.paper.startswith("https://")
    assert method.summary
    assert all(option.help for option in registry.options(name))


def test_a_method_is_a_value():
    assert OmniDrop(0.3) == OmniDrop(0.3) != OmniDrop(0.3, tds=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        OmniDrop(0.3).retention = 0.5


def test_full_tokens_ignore_the_asked_retention_and_say_so():
    assert registry.create("none", 0.3).plan(CLIP, LAYERS).retention == 1.0


def test_tokens_whose_shapes_contradict_each_other_are_refused():
    tokens = media_tokens(CLIP)
    assert tokens.counts == CLIP
    parts = {field.name: getattr(tokens, field.name) for field in dataclasses.fields(tokens)}
    for wrong in (
        {"modality": tokens.modality[1:]},
        {"chunk": tokens.chunk[1:]},
        {"tokens_per_grid": 7},
        {"tokens_per_grid": 0},
        {"audio_attention": tokens.audio_attention[1:]},
        {"video_attention": tokens.audio_attention},
        {"time_s": tokens.time_s[1:]},
    ):
        with pytest.raises(ValueError, match=r"not|no whole number"):
            MediaTokens(**{**parts, **wrong})
