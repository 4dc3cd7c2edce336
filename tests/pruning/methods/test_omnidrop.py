"""omnidrop from end to end: the tokens that survive each layer are those of the slow reading."""

import dataclasses

import pytest
import torch

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import AudioAttention, Scores
from omniqa.pruning.methods.omnidrop.method import OmniDrop
from tests.pruning import reference
from tests.pruning.clip import entered, media_tokens, run_layers

CLIPS = {
    "both": ClipTokens(60, 9, 12),
    "whole groups": ClipTokens(40, 8, 10),
    "one grid": ClipTokens(50, 1, 30),
    "no audio": ClipTokens(0, 7, 12),
    "no video": ClipTokens(90, 0, 0),
    "tiny grids": ClipTokens(5, 30, 4),
    "nearly all audio": ClipTokens(150, 1, 4),
}
OPTIONS = {
    "default": {},
    "no tds": {"tds": False},
    "no plp": {"plp": False},
    "exp": {"curve": "exp", "tds": False},
    "audio guides": {"guidance": "audio"},
}


def survivors(method, tokens, plan, scores):
    first = entered(method, tokens, plan)
    return [alive.tolist() for alive in run_layers(method, plan, tokens, first, scores)]


def slow_survivors(clip, tokens, layers, R, scores, tds=True, guidance="text", lam=0.2, **options):
    counts = reference.omnidrop(clip.n_audio, clip.grids, clip.tokens_per_grid, layers, R, guidance=guidance, **options)
    modality = tokens.modality.tolist()
    entered = reference.omnidrop_input(
        modality, clip.tokens_per_grid, tokens.video.tolist(), tokens.audio_attention.tolist(), counts
    )
    return reference.omnidrop_layers(
        modality, tokens.chunk.tolist(), entered, scores.tolist(), counts, tds=tds, guidance=guidance, lam=lam
    )


@pytest.mark.parametrize("R", [0.1, 0.3, 0.55, 0.8, 1.0])
@pytest.mark.parametrize(
    ("clip", "options"),
    # Audio can't guide where a modality is lacking.
    [(clip, options) for clip in CLIPS for options in OPTIONS if (clip[:3], options) != ("no ", "audio guides")],
)
def test_the_survivors_of_every_layer(clip, options, R):
    clip, options, layers = CLIPS[clip], OPTIONS[options], 8
    tokens = media_tokens(clip)
    scores = torch.rand(layers - 1, clip.n, generator=torch.Generator().manual_seed(1))
    method = OmniDrop(R, **options)
    alive = survivors(method, tokens, method.plan(clip, layers), scores)
    assert alive == slow_survivors(clip, tokens, layers, R, scores, **options)


@pytest.mark.parametrize("clip", CLIPS)
def test_tokens_that_are_all_alike(clip):
    clip, layers = CLIPS[clip], 8
    tokens = media_tokens(clip)
    tokens.video.fill_(1.0)
    tokens.audio_attention.fill_(1.0)
    scores = torch.full((layers - 1, clip.n), 0.125)
    method = OmniDrop(0.3, lam=0.25)
    alive = survivors(method, tokens, method.plan(clip, layers), scores)
    assert alive == slow_survivors(clip, tokens, layers, 0.3, scores, lam=0.25)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_chunk(options):
    clip, options = CLIPS["both"], OPTIONS[options]
    tokens = media_tokens(clip, chunks=1)
    scores = torch.rand(7, clip.n, generator=torch.Generator().manual_seed(2))
    method = OmniDrop(0.3, **options)
    alive = survivors(method, tokens, method.plan(clip, 8), scores)
    assert alive == slow_survivors(clip, tokens, 8, 0.3, scores, **options)


def test_where_audio_guides_all_audio_that_entered_stays():
    clip = CLIPS["both"]
    tokens, method = media_tokens(clip), OmniDrop(0.2, guidance="audio")
    plan = method.plan(clip, 12)
    scores = torch.rand(11, clip.n)
    scores[:, tokens.modality == AUDIO] = torch.nan  # what the decoder scores audio with does not matter
    first, *_, last = survivors(method, tokens, plan, scores)
    assert {i for i in first if tokens.modality[i] == AUDIO} == {i for i in last if tokens.modality[i] == AUDIO}


def test_embeddings_enter_unchanged_and_bfloat16_ones_are_compared_in_float32():
    clip = CLIPS["both"]
    tokens, method = media_tokens(clip), OmniDrop(0.3)
    low = dataclasses.replace(tokens, video=tokens.video.bfloat16(), audio=tokens.audio.bfloat16())
    high = dataclasses.replace(tokens, video=low.video.float())
    plan = method.plan(clip, 8)
    selection = method.prune_input(low, plan)
    assert selection.video_embeddings is selection.audio_embeddings is None
    assert entered(method, low, plan).equal(entered(method, high, plan))


def test_what_the_encoder_must_provide():
    assert OmniDrop(0.3).need(AudioAttention) == AudioAttention("global")
    assert OmniDrop(0.3, audio_attention="window").need(AudioAttention) == AudioAttention("window")
    assert OmniDrop(0.8, plp=False).needs == {AudioAttention("global")}
    assert OmniDrop(0.8).needs == {Scores("prompt")}  # from R = 2/3 the input level keeps all


def test_importance_that_is_needed_and_missing_is_said():
    clip = CLIPS["no video"]
    tokens, method = media_tokens(clip), OmniDrop(0.3)
    without = dataclasses.replace(tokens, audio_attention=None)
    with pytest.raises(ValueError, match=r"omnidrop needs MediaTokens\.audio_attention"):
        method.prune_input(without, method.plan(clip, 8))
    assert len(entered(OmniDrop(0.8), without)) == clip.n


def test_which_rows_score():
    assert OmniDrop(0.3).need(Scores) == Scores("prompt")
    assert OmniDrop(0.3, query_scope="question").need(Scores) == Scores("question")
    assert OmniDrop(0.3, guidance="audio").need(Scores) == Scores("audio")


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"lam": -0.1}, {"t_mid": -0.5}, {"l_div": -1}])
def test_negative_constants_are_refused(options):
    with pytest.raises(UsageError, match="must not be negative"):
        OmniDrop(0.3, **options)
