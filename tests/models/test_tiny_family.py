"""Another model family answers through the same pipeline: nothing above `models/` knows which it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from omniqa.errors import UsageError
from omniqa.media.clip import Clip, ClipOptions
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pipeline.engine import OmniQA
from omniqa.pruning import registry
from omniqa.pruning.budget import Unreachable
from omniqa.pruning.contract import AuxNetwork, VisionAttention
from omniqa.runtime.generation_options import GenerationOptions
from tests.media.clips import Audio, Video, grey, tone, write_clip
from tests.models import tiny_family

QUESTION = "What is to be seen?"
OPTIONS = ClipOptions(fps=4)
SHORT = GenerationOptions(max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny():
    return OmniQA("tiny", tiny_family.make_model())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    frames = [grey(k % 60, 112, 112) for k in range(100)]
    return write_clip(tmp_path_factory.mktemp("tiny") / "clip.mp4", Video(frames, 25), Audio(tone(4.0)))


@pytest.fixture(scope="module")
def encoded(tiny, path):
    return tiny.encode(path, OPTIONS)


def test_a_clip_is_counted_in_the_familys_own_geometry(tiny, encoded):
    shape, summary = encoded.shape, encoded.summary
    assert (summary.height % 32, summary.width % 32) == (0, 0)
    assert summary.height * summary.width <= 20 * 32**2
    assert (shape.rows, shape.cols) == (summary.height // 32, summary.width // 32)
    assert (shape.grids, shape.audio_tokens) == (8, 52)
    layout = tiny.model.lay_out(shape, QUESTION)
    assert layout.positions[0, layout.media].max() - layout.positions[0, layout.media].min() == 51
    assert np.all(np.diff(layout.time_s[layout.media]) >= 0)  # token by token, not chunk by chunk


def test_it_answers_about_a_clip_pruned_by_omnidrop(tiny, path):
    answer = tiny.ask(path, QUESTION, "omnidrop", 0.3, sampling=OPTIONS, decoding=SHORT)
    assert answer.retention.achieved == pytest.approx(0.3, abs=0.01)
    assert answer.stats.tokens.generated == len(answer.token_ids) > 0
    assert answer.evidence[0].end_s - answer.evidence[0].start_s == 1
    assert {VIDEO, AUDIO} == set(answer.trace.modality.tolist())


@pytest.mark.parametrize("method", registry.names())
def test_every_method_prunes_it(tiny, encoded, method):
    pruner = registry.create(method, 0.6 if method != "none" else 1.0)
    if pruner.need(AuxNetwork):
        pytest.skip("needs a trained network of its own")
    if pruner.need(VisionAttention):
        with pytest.raises(UsageError, match="at least 11 layers"):
            tiny.ask(encoded, QUESTION, pruner)
        return
    retention = 1.0 if method == "none" else 0.6
    try:
        answer = tiny.ask(encoded, QUESTION, method, retention, decoding=SHORT)
    except Unreachable as error:  # a clip of few tokens has few ratios
        retention = error.nearest
        answer = tiny.ask(encoded, QUESTION, method, retention, decoding=SHORT)
    assert answer.retention.achieved == pytest.approx(retention, abs=0.01)


def plain_logits(model, encoded):
    """The whole decoder by transformers' own forward, with all tokens, and what is added before its first layers."""
    layout = model.lay_out(encoded.shape, QUESTION)
    x = model.stack.embed_tokens(torch.from_numpy(layout.ids))
    video, audio = (torch.from_numpy(layout.modality == kind) for kind in (VIDEO, AUDIO))
    x[video], x[audio] = encoded.video, encoded.audio.embeddings

    def add(number):
        def before(module, given, named):
            hidden = given[0].clone()
            hidden[0, video] += encoded.added[number]
            return (hidden, *given[1:]), named

        return before

    hooks = [
        layer.register_forward_pre_hook(add(number), with_kwargs=True)
        for number, layer in enumerate(model.stack.layers[: tiny_family.ADDED])
    ]
    positions = torch.from_numpy(layout.positions[:1])
    one_sequence = torch.ones(1, len(x))  # positions that repeat would else look like several, packed
    hidden = model.stack(
        inputs_embeds=x[None], position_ids=positions, attention_mask=one_sequence, use_cache=False
    ).last_hidden_state
    for hook in hooks:
        hook.remove()
    return model.lm_head(hidden[0, -1])


def test_unpruned_it_equals_transformers_own_forward(tiny, encoded):
    prefilled = tiny.prefiller.prefill(encoded, QUESTION, registry.create("none", 1.0))
    expected = plain_logits(tiny.model, encoded)
    torch.testing.assert_close(prefilled.result.logits, expected, atol=1e-4, rtol=1e-4)
    without = plain_logits(tiny.model, replace(encoded, added=torch.zeros_like(encoded.added)))
    assert (without - expected).abs().max() > 1e-3  # what is added counts


@pytest.mark.parametrize(("method", "retention"), [("none", 1.0), ("omnidrop", 0.3)])
def test_a_further_question_starts_from_the_prefix(tiny, encoded, method, retention):
    method = registry.create(method, retention)
    for question in (QUESTION, "And what is to be heard?"):
        again = tiny.prefiller.prefill(encoded, question, method, reuse_prefix=True).result
        afresh = tiny.prefiller.prefill(encoded, question, method).result
        torch.testing.assert_close(again.logits, afresh.logits, atol=1e-4, rtol=1e-4)


def test_frames_of_another_familys_geometry_are_refused_and_of_its_own_are_taken(tiny):
    frames, sound = np.zeros((4, 100, 100, 3), np.uint8), np.zeros(32_000, np.float32)
    own = Clip.from_arrays(frames, fps=2, waveform=sound, geometry=tiny_family.GEOMETRY)
    assert tiny.encode(own).shape.tokens_per_grid == 9
    with pytest.raises(UsageError, match="sampled for another model"):
        tiny.encode(Clip.from_arrays(frames, fps=2, waveform=sound))
