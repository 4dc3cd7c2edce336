"""A further question about an encoded clip starts where the first one's question began, and is answered the same."""

import pytest
import torch

from omniqa.models.base import PromptText
from omniqa.models.prefix_cache import PrefixCache, shared_layers
from omniqa.pipeline.encoded_clip import PrefixState, PrefixStates
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens, Plan
from tests.models.qwen2_5_omni.clips import CLIPS, make_clip

METHODS = {
    "none": ("none", 1.0, {}),
    "omnidrop": ("omnidrop", 0.3, {}),
    "omnidrop, low": ("omnidrop", 0.15, {}),
    "omnidrop, full": ("omnidrop", 1.0, {}),
    "omnidrop, the question's rows": ("omnidrop", 0.3, {"query_scope": "question"}),
    "omnidrop, audio guidance": ("omnidrop", 0.3, {"guidance": "audio"}),
    "omnidrop, input level alone": ("omnidrop", 0.3, {"plp": False}),
    "omnizip": ("omnizip", 0.4, {}),
    "dash": ("dash", 0.4, {}),
    "dycoke": ("dycoke", 0.6, {}),
    "fastv": ("fastv", 0.5, {}),
    "random": ("random", 0.3, {}),
}
QUESTIONS = ("What happens?", "Who is heard, and what is it that they say at the end?", "Where?")


def differ(one, other):
    """The largest difference of two prefills' logits, once everything else is seen to be the same."""
    a, b = one.result, other.result
    assert [index.tolist() for index in a.alive] == [index.tolist() for index in b.alive]
    assert (a.surplus - b.surplus).abs().max() <= 1e-5
    for mine, theirs in zip(a.scores, b.scores, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or (mine - theirs).abs().max() <= 1e-5
    assert one.cache.lengths == other.cache.lengths
    for layer, length in enumerate(one.cache.lengths):
        for mine, theirs in zip(one.cache.storage(layer), other.cache.storage(layer), strict=True):
            assert (mine[:length] - theirs[:length]).abs().max() <= 1e-4
    return float((a.logits - b.logits).abs().max())


@pytest.mark.parametrize("method", METHODS)
def test_a_further_question_is_answered_as_if_asked_afresh(qa, method):
    name, retention, options = METHODS[method]
    pruner = registry.create(name, retention, **options)
    video = qa.encode(make_clip(frames=8, seconds=5.0))
    for question in QUESTIONS:
        again = qa.prefiller.prefill(video, question, pruner, max_new_tokens=2, reuse_prefix=True)
        assert differ(again, qa.prefiller.prefill(video, question, pruner, max_new_tokens=2)) <= 1e-4
    assert (video.shared.of(pruner).prefix is None) == (method == "omnidrop, audio guidance")  # it cuts after layer 0


@pytest.mark.parametrize("kind", CLIPS)
def test_one_modality_or_an_uneven_mix(qa, kind):
    pruner, video = registry.create("omnidrop", 0.4), qa.encode(make_clip(**CLIPS[kind]))
    for question in QUESTIONS:
        again = qa.prefiller.prefill(video, question, pruner, reuse_prefix=True)
        assert differ(again, qa.prefiller.prefill(video, question, pruner)) <= 1e-4


@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_a_small_budget_shares_fewer_layers_and_changes_nothing(qa, layers, monkeypatch):
    pruner, video = registry.create("none", 1.0), qa.encode(make_clip(frames=4, seconds=2.0))
    qa.prefiller.prefill(video, QUESTIONS[0], pruner, reuse_prefix=True)
    (keys, values), *rest = video.shared.of(pruner).prefix.layers
    assert len(rest) == qa.model.layers - 1
    monkeypatch.setattr("omniqa.pipeline.prefill.SHARED_BYTES", layers * (keys.nbytes + values.nbytes))
    video = qa.encode(make_clip(frames=4, seconds=2.0))
    for question in QUESTIONS:
        again = qa.prefiller.prefill(video, question, pruner, reuse_prefix=True)
        assert differ(again, qa.prefiller.prefill(video, question, pruner)) <= 1e-4
    rows = video.shared.of(pruner).prefix
    assert (len(rows.layers) if rows else 0) == layers


def test_a_further_question_computes_only_its_own_text_in_the_shared_layers(qa, monkeypatch):
    pruner, video = registry.create("fastv", 0.5), qa.encode(make_clip(frames=8, seconds=5.0))
    qa.prefiller.prefill(video, QUESTIONS[0], pruner, reuse_prefix=True)
    rows, project = [], qa.decoder.project
    monkeypatch.setattr(
        qa.decoder,
        "project",
        lambda number, x, *rest, **named: rows.append(len(x)) or project(number, x, *rest, **named),
    )
    layout = qa.prefiller.prefill(video, QUESTIONS[1], pruner, reuse_prefix=True).layout
    text = len(layout.ids) - layout.media.stop
    assert rows[:2] == [text, text]
    assert min(rows[2:]) > text


def test_other_methods_and_other_settings_share_nothing(qa):
    video = qa.encode(make_clip(frames=4, seconds=2.0))
    first = registry.create("omnidrop", 0.3)
    qa.prefiller.prefill(video, QUESTIONS[0], first, reuse_prefix=True)
    assert video.shared.of(registry.create("omnidrop", 0.3)) is not None
    assert video.shared.of(registry.create("omnidrop", 0.4)) is None
    assert video.shared.of(registry.create("omnidrop", 0.3, beta=10.0)) is None


def test_other_words_in_front_of_the_media_share_nothing(qa):
    video, pruner = qa.encode(make_clip(frames=4, seconds=2.0)), registry.create("omnidrop", 0.3)
    other = PromptText(QUESTIONS[0], "Watch this.", "{own} Choose.")
    qa.prefiller.prefill(video, QUESTIONS[0], pruner, reuse_prefix=True)
    reused = qa.prefiller.prefill(video, other, pruner, reuse_prefix=True).result.logits
    alone = qa.prefiller.prefill(video, other, pruner).result.logits
    assert (reused - alone).abs().max() < 1e-4
    assert video.shared.of(pruner, other.opening) is not video.shared.of(pruner)


def test_the_layer_of_the_first_cut_is_shared_but_not_where_audio_scores():
    plan = Plan(ClipTokens(10, 1, 10), (20, 20, 20, 10, 10, 10))  # ten leave after layer 2
    text, audio = registry.create("omnidrop", 0.5), registry.create("omnidrop", 0.5, guidance="audio")
    assert shared_layers(text, plan, 100, 10_000) == 3
    assert shared_layers(audio, plan, 100, 10_000) == 2
    assert shared_layers(text, plan, 100, 250) == 2
    assert shared_layers(text, Plan(ClipTokens(10, 1, 10), (20,) * 6), 100, 10_000) == 6


def test_what_was_asked_for_longest_ago_gives_way():
    one = torch.zeros(1000, dtype=torch.uint8)
    rows = PrefixCache([], one, one[:0])
    shared, pruners = PrefixStates(most_bytes=2500), [registry.create("omnidrop", r) for r in (0.2, 0.3, 0.4)]
    for pruner in pruners:
        shared.keep(pruner, PrefixState(None, rows))
    assert [shared.of(pruner) is not None for pruner in pruners] == [False, True, True]


def test_ask_says_the_same_however_often(qa):
    video = qa.encode(make_clip(frames=8, seconds=5.0))
    fresh = [qa.ask(make_clip(frames=8, seconds=5.0), question) for question in QUESTIONS]
    often = [qa.ask(video, question) for question in QUESTIONS]
    assert [answer.token_ids for answer in often] == [answer.token_ids for answer in fresh]
