"""Equal grids are encoded once, exactly."""

import numpy as np
import pytest
import torch

from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder

SIZE = (140, 252)  # 5 x 9 tokens: inner windows, right edge, lower edge and corner


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


def grid(number):
    return pictures(2, number)


@pytest.fixture
def encoded_grids(qa, monkeypatch):
    """How many grids each batch of the encoder had."""
    counts = []
    encode = VisionEncoder._encode_grids
    monkeypatch.setattr(
        VisionEncoder, "_encode_grids", lambda self, frames: counts.append(len(frames) // 2) or encode(self, frames)
    )
    return counts


def stream(qa, grids):
    """What a stream of grids gives, and the stream."""
    taken = GridStream(qa.vision_encoder)
    for one in grids:
        taken.push(one)
    return taken.finish(), taken


def test_equal_grids_are_encoded_once_and_stand_where_they_were(qa, encoded_grids):
    order = [0, 1, 0, 0, 2, 1, 0]
    tokens, taken = stream(qa, [grid(number) for number in order])
    assert sum(encoded_grids) == 3
    assert (taken.grids, taken.grids_reused, taken.tokens_reused) == (7, 4, 0.0)
    each = [qa.vision_encoder.encode(grid(number))[0] for number in order]
    assert (tokens - torch.stack(each)).abs().max() <= 1e-5
    assert all(torch.equal(tokens[k], tokens[order.index(number)]) for k, number in enumerate(order))


def test_batches_are_filled_with_different_grids(qa, encoded_grids, monkeypatch):
    patches = SIZE[0] * SIZE[1] // 14**2
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.vision.BATCH_PATCHES", 2 * patches)
    stream(qa, [grid(number) for number in (0, 0, 1, 1, 2, 0, 3, 4)])
    assert encoded_grids == [2, 2, 1]


def test_one_pixel_makes_another_grid(qa, encoded_grids):
    other = grid(0)
    other[1, 5, 5, 0] ^= 1
    _, taken = stream(qa, [grid(0), other])
    assert (sum(encoded_grids), taken.grids_reused) == (2, 0)


def test_a_clip_tells_what_was_reused(qa):
    from omniqa.media.clip import Clip

    slides = Clip.from_arrays(np.concatenate([grid(0), grid(0), grid(1), grid(0)]).repeat(3, 1).repeat(3, 2))
    media = qa.ask(slides, "What is seen?").to_dict()["media"]
    assert (media["grids"], media["grids_reused"], media["tokens_reused"]) == (4, 2, 0.0)
