"""How tokens are chosen and how they become text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniqa.errors import NotFiniteError, UsageError
from omniqa.models.generate import TextStream, _choose
from omniqa.runtime.generation_options import GenerationOptions


def draws(logits, count=4000, **settings):
    generator = torch.Generator().manual_seed(7)
    decoding = GenerationOptions(**settings)
    tokens = [_choose(logits, decoding, generator) for _ in range(count)]
    return torch.bincount(torch.tensor(tokens), minlength=len(logits)) / count


def test_temperature_zero_takes_the_likeliest():
    assert _choose(torch.tensor([0.1, 3.0, 2.9]), GenerationOptions(), torch.Generator()) == 1


def test_temperature_draws_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    assert (draws(logits, temperature=0.5) - (logits / 0.5).softmax(-1)).abs().max() < 0.03


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert draws(logits, temperature=1.0, top_p=0.7)[2:].sum() == 0
    assert draws(logits, temperature=1.0, top_p=0.01)[0] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logits_that_are_no_numbers_are_never_a_token(value, temperature):
    for place in range(3):
        logits = torch.tensor([0.1, 3.0, 2.9])
        logits[place] = value
        with pytest.raises(NotFiniteError, match="NaN or infinity"):
            _choose(logits, GenerationOptions(temperature=temperature), torch.Generator())


def test_a_seed_repeats_an_answer(qa):
    from tests.models.qwen2_5_omni.clips import make_clip

    video = qa.encode(make_clip(frames=2, seconds=1.0))
    first, again, other = (
        qa.ask(video, "?", decoding=GenerationOptions(max_new_tokens=12, temperature=1.0, seed=seed)).token_ids
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("bad", [{"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(UsageError):
        GenerationOptions(**bad)


@given(st.text(max_size=40))
def test_streamed_pieces_join_to_the_text_and_never_split_a_character(text):
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    pieces = [stream.push(byte) for byte in text.encode()]
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join(pieces) + stream.close() == text


def test_a_character_broken_at_the_end_is_shown_as_such():
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    assert stream.push("é".encode()[0]) == ""
    assert stream.close() == "\N{REPLACEMENT CHARACTER}"
