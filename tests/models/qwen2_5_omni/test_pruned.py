"""Below retention 1, survivors and logits equal a slow reference with full attention maps; so does every later step."""

import numpy as np
import pytest
import torch

from omniqa.models.base import AUDIO
from omniqa.models.decode_step import DecodeStep
from omniqa.pruning import registry
from tests.models.qwen2_5_omni import slow
from tests.models.qwen2_5_omni.clips import CLIPS, make_clip
from tests.pruning import reference

QUESTION = "What happens?"
CASES = {
    "default": {},
    "lowest scores alone": {"tds": False},
    "input level alone": {"plp": False},
    "exponential curve": {"curve": "exp"},
    "the question's rows": {"query_scope": "question"},
    "audio guidance": {"guidance": "audio"},
}


def run_both(qa, clip, retention, **options):
    """omniqa's prefill, and the slow reference's survivors and logits for the same clip."""
    prefilled = qa.prefiller.prefill(
        qa.encode(clip), QUESTION, registry.create("omnidrop", retention, **options), max_new_tokens=8
    )
    layout = prefilled.layout
    with torch.inference_mode():
        media, importance = slow.media_embeddings(qa, clip, layout)
        modality = layout.modality[layout.media].tolist()
        shape, is_video = layout.shape, torch.tensor(modality) != AUDIO
        plan = {key: value for key, value in options.items() if key in ("plp", "curve", "guidance")}
        counts = reference.omnidrop(
            shape.audio_tokens, shape.grids, shape.tokens_per_grid, qa.model.layers, retention, **plan
        )
        entered = reference.omnidrop_input(
            modality, shape.tokens_per_grid, media[is_video].tolist(), importance, counts
        )
        tail = len(layout.ids) - layout.media.stop

        def rows_of(keep):
            if options.get("guidance") == "audio":
                return [j for j, place in enumerate(keep) if layout.modality[place] == AUDIO]
            if options.get("query_scope") == "question":
                return [j for j, place in enumerate(keep) if layout.question.start <= place < layout.question.stop]
            return list(range(len(keep) - tail, len(keep)))

        choose = slow.omnidrop_choice(counts, layout, options.get("tds", True), options.get("guidance", "text"))
        alive, logits = slow.forward(qa, layout, media, entered, choose, rows_of)
    return prefilled, media, alive, logits


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("retention", [0.3, 0.15])
def test_survivors_and_logits_equal_the_slow_reference(qa, case, retention):
    prefilled, _, alive, logits = run_both(qa, make_clip(frames=8, seconds=5.0), retention, **CASES[case])
    assert [index.tolist() for index in prefilled.result.alive] == alive
    assert len(set(map(len, alive))) > 1 or case == "input level alone", "something leaves between layers"
    assert (prefilled.result.logits - logits).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", CLIPS)
def test_one_modality_or_an_uneven_mix(qa, kind):
    prefilled, _, alive, logits = run_both(qa, make_clip(**CLIPS[kind]), 0.3)
    assert [index.tolist() for index in prefilled.result.alive] == alive
    assert (prefilled.result.logits - logits).abs().max() <= 1e-4


def test_each_cache_holds_the_tokens_alive_in_its_layer(qa):
    prefilled, _, alive, _ = run_both(qa, make_clip(frames=8, seconds=5.0), 0.3)
    text = len(prefilled.layout.ids) - (prefilled.layout.media.stop - prefilled.layout.media.start)
    assert prefilled.cache.lengths == [text + len(index) for index in alive]


@pytest.mark.parametrize("retention", [1.0, 0.3])
def test_decoding_step_by_step_equals_recomputing_the_pruned_sequence(qa, retention):
    prefilled, media, alive, _ = run_both(qa, make_clip(frames=4, seconds=3.0), retention)
    generated, step = [], prefilled.result.logits
    steps = DecodeStep(qa.decoder, prefilled.cache, prefilled.layout.next_position)
    for _ in range(8):
        generated.append(int(step.argmax()))
        step = steps(generated[-1])
        with torch.inference_mode():
            expected = slow.recompute(qa, prefilled.layout, media, alive, generated)
        assert (step - expected).abs().max() <= 1e-4


def test_scores_are_kept_for_the_trace_where_tokens_are_alive(qa):
    answer = qa.ask(make_clip(frames=8, seconds=5.0), QUESTION, retention=0.3)
    trace = answer.trace
    np.testing.assert_array_equal(np.isnan(trace.score[:-1]), ~trace.alive[:-1])
    assert np.isnan(trace.score[-1]).all(), "nothing is scored in the last layer, after which nothing leaves"
    assert answer.retention.achieved == trace.alive.mean()
    assert abs(answer.retention.achieved - 0.3) <= max(0.002, 1 / trace.alive.shape[1])
