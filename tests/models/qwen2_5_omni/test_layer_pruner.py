"""A method gets what it needs and nothing else; where in a layer it drops, and whether from caches too, is its own."""

from dataclasses import dataclass, field

import pytest
import torch

from omniqa.models.base import AUDIO, VIDEO
from omniqa.models.decode_step import DecodeStep
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import (
    AudioAttention,
    HiddenStates,
    Kept,
    LayerKept,
    LayerKeys,
    LayerSignals,
    MediaTokens,
    Method,
    QueryEmbeddings,
    Scores,
    Times,
)
from tests.models.qwen2_5_omni import slow
from tests.models.qwen2_5_omni.clips import make_clip

QUESTION = "What happens?"


@dataclass(frozen=True)
class Probe(Method):
    """Drops every third token after layers 1 and 3, and all audio after layer 4; remembers what it was given."""

    name = "probe"
    paper = "https://example.org"
    summary = "for tests"

    signals: frozenset = field(default=frozenset(), kw_only=True)
    caches: bool = field(default=False, kw_only=True)
    given: list = field(default_factory=list, kw_only=True, compare=False)

    def __post_init__(self):
        """Its fields are no options."""

    @property
    def needs(self):
        return self.signals

    def plan(self, clip, layers):
        n = clip.n
        alive = [n, n, n - len(range(0, n, 3))]
        alive += [alive[2], alive[2] - len(range(0, alive[2], 3))]
        return ProbePlan(clip, (*alive, *[0] * (layers - 5)))

    def prune_input(self, media, plan):
        self.given.append(media)
        return Kept()

    def prune_layer(self, layer, signals, plan):
        self.given.append((layer, signals))
        places = torch.arange(len(signals.modality))
        if layer == 4:
            return LayerKept((signals.modality == VIDEO).nonzero().flatten(), self.caches)
        return LayerKept(places[places % 3 > 0], self.caches)


class AfterTheMlp(Probe):
    drop_point = "output"


class ProbePlan(Plan):
    """Its count after layer 4 is not known ahead."""

    def prunes(self, layer):
        return layer in (1, 3, 4)


@pytest.fixture
def video(qa):
    return qa.encode(make_clip(frames=4, seconds=3.0))


INPUT = {
    AudioAttention("window"): "audio_attention",
    Times(): "time_s",
    QueryEmbeddings(): "query",
}
LAYER = {Scores("last"): "scores", LayerKeys(): "keys", HiddenStates(): "hidden_states"}


@pytest.mark.parametrize("kind", [Probe, AfterTheMlp])
@pytest.mark.parametrize("needed", [(), *[(one,) for one in [*INPUT, *LAYER]], (*INPUT, *LAYER)])
def test_a_method_gets_what_it_needs_and_nothing_else(qa, video, kind, needed):
    probe = kind(0.5, signals=frozenset(needed))
    qa.prefiller.prefill(video, QUESTION, probe)
    media, *layers = probe.given
    assert isinstance(media, MediaTokens)
    for part in ("audio_attention", "time_s", "query", "video_attention", "aux_network"):
        assert (getattr(media, part) is not None) == (part in {INPUT.get(one) for one in needed})
    assert [layer for layer, _ in layers] == [1, 3, 4]
    for _, signals in layers:
        assert isinstance(signals, LayerSignals)
        for part in LAYER.values():
            assert (getattr(signals, part) is not None) == (part in {LAYER.get(one) for one in needed})


def test_the_query_is_the_questions_own_tokens(qa, video):
    probe = Probe(0.5, signals=frozenset({QueryEmbeddings()}))
    qa.prefiller.prefill(video, QUESTION, probe)
    words = qa.model.tokenizer.encode(QUESTION, add_special_tokens=False)
    assert probe.given[0].query.equal(qa.decoder.embed(torch.tensor(words)))


def slowly(qa, layout, media, alive, number, at_output):
    """Input, or output, of a layer that holds alive[:number + 1], and the places of its rows in the prompt."""
    start, n = layout.media.start, layout.media.stop - layout.media.start
    x = qa.model.decoder.embed_tokens(torch.from_numpy(layout.ids))
    x[start : start + n] = media
    before = list(range(len(layout.ids)))
    for layer, index in enumerate(alive[: number + 1]):
        keep = [*range(start), *(start + i for i in index), *range(start + n, len(layout.ids))]
        x = x[[before.index(p) for p in keep]]
        before, entered = keep, x
        x, _ = slow.run_layer(qa, layer, x, torch.from_numpy(layout.positions)[:, keep])
    return (x if at_output else entered), before


@pytest.mark.parametrize("rows", ["prompt", "question", "last"])
@pytest.mark.parametrize("kind", [Probe, AfterTheMlp])
def test_scores_keys_and_hidden_states_are_those_of_the_drop_point(qa, video, kind, rows):
    needs = {LayerKeys(), HiddenStates(), Scores(rows)}
    probe = kind(0.5, signals=frozenset(needs))
    prefilled = qa.prefiller.prefill(video, QUESTION, probe)
    layout, alive = prefilled.layout, [index.tolist() for index in prefilled.result.alive]
    with torch.inference_mode():
        media, _ = slow.media_embeddings(qa, make_clip(frames=4, seconds=3.0), layout)
        for number, signals in probe.given[1:]:
            x, places = slowly(qa, layout, media, alive, number, kind is AfterTheMlp)
            _, maps = slow.run_layer(qa, number, x, torch.from_numpy(layout.positions)[:, places])
            mine = [j for j, place in enumerate(places) if layout.media.start <= place < layout.media.stop]
            asked = {
                "prompt": range(mine[-1] + 1, len(places)),
                "question": [j for j, p in enumerate(places) if layout.question.start <= p < layout.question.stop],
                "last": [len(places) - 1],
            }[rows]
            expected = torch.tensor(slow.scores(maps, list(asked), mine))
            torch.testing.assert_close(signals.scores, expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(signals.hidden_states, x[mine], atol=1e-4, rtol=1e-4)
            assert signals.keys.shape == (len(mine), qa.decoder.kv_heads, qa.decoder.head_size)


def test_audio_scores_what_a_layer_gives(qa, video):

    @dataclass(frozen=True)
    class ByAudio(AfterTheMlp):
        def plan(self, clip, layers):
            return Plan(clip, (*[clip.n] * 2, *[clip.n - 5] * (layers - 2)))

        def prune_layer(self, layer, signals, plan):
            self.given.append((layer, signals))
            return LayerKept((signals.modality == VIDEO).nonzero().flatten()[5:])

    probe = ByAudio(0.5, signals=frozenset({Scores("audio")}))
    prefilled = qa.prefiller.prefill(video, QUESTION, probe)
    layout, alive = prefilled.layout, [index.tolist() for index in prefilled.result.alive]
    ((number, signals),) = probe.given[1:]
    with torch.inference_mode():
        media, _ = slow.media_embeddings(qa, make_clip(frames=4, seconds=3.0), layout)
        x, places = slowly(qa, layout, media, alive, number, True)
        _, maps = slow.run_layer(qa, number, x, torch.from_numpy(layout.positions)[:, places])
        mine = range(layout.media.start, layout.media.stop)
        rows = [j for j in mine if layout.modality[j] == AUDIO]
        expected = torch.tensor(slow.scores(maps, rows, list(mine)))
    torch.testing.assert_close(signals.scores, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("caches", [False, True])
@pytest.mark.parametrize("kind", [Probe, AfterTheMlp])
def test_pruned_caches_lose_the_dropped_tokens_in_all_layers_before(qa, video, kind, caches):
    prefilled = qa.prefiller.prefill(video, QUESTION, kind(0.5, caches=caches), max_new_tokens=4)
    layout, result = prefilled.layout, prefilled.result
    text = len(layout.ids) - (layout.media.stop - layout.media.start)
    alive, cached = ([index.tolist() for index in part] for part in (result.alive, result.cached))
    assert len(set(map(len, alive))) > 2
    assert cached == ([alive[5]] * 5 + alive[5:] if caches else alive)
    assert prefilled.cache.lengths == [text + len(index) for index in cached]
    assert prefilled.cache.bytes == sum(
        2 * (text + len(index) + 4) * qa.decoder.kv_heads * qa.decoder.head_size * 4 for index in cached
    )
    with torch.inference_mode():
        media, _ = slow.media_embeddings(qa, make_clip(frames=4, seconds=3.0), layout)
    generated, step = [], result.logits
    steps = DecodeStep(qa.decoder, prefilled.cache, layout.next_position)
    for _ in range(4):
        generated.append(int(step.argmax()))
        step = steps(generated[-1])
        with torch.inference_mode():
            expected = slow.recompute(qa, layout, media, alive, generated, cached)
        assert (step - expected).abs().max() <= 1e-4


def test_a_trace_tells_what_was_computed_from_what_is_cached(qa, video):
    answer = qa.ask(video, QUESTION, Probe(0.5, caches=True))
    trace = answer.trace
    assert trace.alive[0].all()
    assert not trace.cached[0].all()
    assert answer.retention.achieved == trace.alive.mean()
    assert (qa.ask(video, QUESTION, "omnidrop").trace.cached == qa.ask(video, QUESTION, "omnidrop").trace.alive).all()


@pytest.mark.parametrize("caches", [False, True])
@pytest.mark.parametrize("kind", [Probe, AfterTheMlp])
def test_a_further_question_starts_from_whole_caches(qa, video, kind, caches):
    method = kind(0.5, signals=frozenset({Scores("last"), HiddenStates()}), caches=caches)
    for question in (QUESTION, "And who is heard?", QUESTION):
        again = qa.prefiller.prefill(video, question, method, reuse_prefix=True)
        fresh = qa.prefiller.prefill(video, question, method)
        assert [index.tolist() for index in again.result.cached] == [index.tolist() for index in fresh.result.cached]
        assert (again.result.logits - fresh.result.logits).abs().max() <= 1e-4
        assert again.cache.lengths == fresh.cache.lengths
    assert len(video.shared.of(method).prefix.layers) == 2


def test_what_a_question_chooses_serves_no_other(qa, video):
    method = Probe(0.5, signals=frozenset({QueryEmbeddings()}))
    for question in (QUESTION, "And who is heard?"):
        qa.prefiller.prefill(video, question, method, reuse_prefix=True)
    assert video.shared.of(method) is None
    first, second = (media for media in method.given if isinstance(media, MediaTokens))
    assert first.query.shape != second.query.shape


@pytest.mark.parametrize(
    ("kept", "complaint"),
    [
        (lambda media: Kept(video=torch.ones(3, dtype=torch.bool)), r"Kept\.video is torch\.bool \(3,\)"),
        (lambda media: Kept(audio=torch.arange(len(media.audio))), r"Kept\.audio is torch\.int64"),
        (lambda media: Kept(audio_embeddings=media.audio[1:]), r"Kept\.audio_embeddings are"),
        (lambda media: media.keep(torch.arange(5)), "probe kept 5 tokens of a plan of"),
    ],
)
def test_a_choice_of_the_wrong_shape_is_said(qa, video, kept, complaint):
    @dataclass(frozen=True)
    class Wrong(Probe):
        def prune_input(self, media, plan):
            return kept(media)

    with pytest.raises(ValueError, match=complaint):
        qa.prefiller.prefill(video, QUESTION, Wrong(0.5))


def test_changed_embeddings_of_both_modalities_go_where_their_tokens_stand(qa, video):
    @dataclass(frozen=True)
    class Merged(Probe):
        def plan(self, clip, layers):
            return Plan.untouched(clip, layers)

        def prune_input(self, media, plan):
            return Kept(video_embeddings=media.video.flip(0), audio_embeddings=2 * media.audio)

    seen, prefill = [], qa.decoder.prefill
    qa.decoder.prefill = lambda prompt, *rest: seen.append(prompt) or prefill(prompt, *rest)
    try:
        layout = qa.prefiller.prefill(video, QUESTION, Merged(1.0)).layout
    finally:
        del qa.decoder.prefill
    media = seen[0].embeddings[layout.media]
    modality = torch.from_numpy(layout.modality[layout.media])
    assert media[modality == VIDEO].equal(video.video.flip(0))
    assert media[modality == AUDIO].equal(2 * video.audio.embeddings)
