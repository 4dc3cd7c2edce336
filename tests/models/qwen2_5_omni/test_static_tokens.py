"""Equal grids are encoded once, exactly; windows that stand still are taken from the grid before where asked for."""

import numpy as np
import pytest
import torch

from omniqa.models.qwen2_5_omni.static_tokens import StillWindows
from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder

SIZE = (140, 252)  # 5 x 9 tokens: inner windows, right edge, lower edge and corner
WINDOW = 112


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


def stream(qa, grids, still=None):
    """What a stream of grids gives, and the stream."""
    taken = GridStream(qa.vision_encoder, still)
    for one in grids:
        taken.push(one)
    return taken.finish(), taken


def test_equal_grids_are_encoded_once_and_stand_where_they_were(qa, encoded_grids):
    order = [0, 1, 0, 0, 2, 1, 0]
    tokens, taken = stream(qa, [grid(number) for number in order])
    assert sum(encoded_grids) == 3
    assert (taken.grids, taken.grids_reused, taken.windows_reused) == (7, 4, 0.0)
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
    assert (media["grids"], media["grids_reused"], media["windows_reused"]) == (4, 2, 0.0)


def test_windows_that_all_move_are_encoded_as_ever(qa):
    grids = [grid(number) for number in range(3)]
    tokens, taken = stream(qa, grids, still=0.0)
    assert taken.windows_reused == 0
    assert (tokens - stream(qa, grids)[0]).abs().max() <= 1e-5


def moving_corner(number):
    """A grid of which only the first window changes."""
    one = grid(0)
    one[:, :WINDOW, :WINDOW] = grid(number)[:, :WINDOW, :WINDOW]
    return one


def test_only_windows_that_move_are_computed(qa):
    tokens, taken = stream(qa, [moving_corner(number) for number in (1, 2, 3)], still=0.0)
    windows = 2 * 3
    assert taken.windows_reused == 2 * (windows - 1) / (3 * windows)
    rows, cols = SIZE[0] // 28, SIZE[1] // 28
    inside = torch.zeros(rows, cols, dtype=torch.bool)
    inside[: WINDOW // 28, : WINDOW // 28] = True
    inside = inside.flatten()
    assert torch.equal(tokens[1][~inside], tokens[0][~inside])
    assert not torch.isclose(tokens[1][inside], tokens[0][inside]).all()


def test_before_the_first_full_attention_block_nothing_is_approximated(qa, monkeypatch):
    """With full attention nowhere, windows do not look at each other, and what is taken is what would be computed."""
    monkeypatch.setattr(qa.vision_encoder, "full", frozenset())
    grids = [moving_corner(number) for number in (1, 2, 3)]
    assert (stream(qa, grids, still=0.0)[0] - stream(qa, grids)[0]).abs().max() <= 1e-5


def test_windows_that_move_see_the_others_keys_and_values_as_they_were_computed(qa):
    """A plain reading of what is approximated: the windows that stand still keep what they had in every block."""
    encoder, grids = qa.vision_encoder, [moving_corner(1), moving_corner(2)]
    tables = encoder.tables(SIZE[0] // 28, SIZE[1] // 28)
    size = WINDOW * WINDOW // 14**2  # patches of the first window, which stands first
    with torch.inference_mode():
        before, x = (encoder.embed(torch.from_numpy(one), tables) for one in grids)
        x[:, size:] = before[:, size:]
        for index, block in enumerate(qa.model.visual.blocks):
            groups = tables.order.groups if index not in encoder.full else [whole(tables)]
            frozen = torch.cat([block.norm1(x)[:, :size], block.norm1(before)[:, size:]], dim=1)
            x = x + encoder.attend(block.attn, frozen, tables.rotary, groups)
            x = x + block.mlp(block.norm2(x))
            before = before + encoder.attend(block.attn, block.norm1(before), tables.rotary, groups)
            before = before + block.mlp(block.norm2(before))
        merged = qa.model.visual.merger(torch.cat([x[:, :size], before[:, size:]], dim=1)[0])
    assert (stream(qa, grids, still=0.0)[0][1] - merged[tables.restore]).abs().max() <= 1e-5


def whole(tables):
    from omniqa.models.qwen2_5_omni.windows import WindowGroup

    return WindowGroup(0, 1, 4 * len(tables.cells))


@pytest.mark.parametrize("batch", [1, 100])
def test_batches_do_not_change_what_is_taken(qa, batch, monkeypatch):
    grids = [moving_corner(number) for number in (1, 2, 3, 4, 5)]
    together, _ = stream(qa, grids, still=0.0)
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.vision.BATCH_PATCHES", batch)
    assert (stream(qa, grids, still=0.0)[0] - together).abs().max() <= 1e-5


def test_a_batch_in_which_nothing_moves_is_what_the_grid_before_it_was(qa):
    still = StillWindows(qa.vision_encoder, 1.0)
    first = still.encode(torch.from_numpy(grid(0)))
    later = still.encode(torch.from_numpy(np.concatenate([grid(0), grid(0)])))
    assert torch.equal(later, first.repeat(2, 1, 1))
    assert still.reused == 2 * still.windows


def test_a_slow_change_is_never_taken_from_further_off_than_the_threshold(qa):
    """Ten steps of one level each, threshold 3: a window is computed anew at every fourth."""
    grids = [np.full((2, *SIZE, 3), 100 + step, np.uint8) for step in range(11)]
    still = StillWindows(qa.vision_encoder, 3.0)
    still.encode(torch.from_numpy(np.concatenate(grids)))
    computed = 11 * still.windows - still.reused
    assert computed == 3 * still.windows


def test_one_token_that_changes_moves_its_window(qa):
    other = np.full((2, *SIZE, 3), 100, np.uint8)
    other[:, 28:56, 28:56] += 20  # one of a window's sixteen tokens: the window's own mean changes by 1.25
    for threshold, moved in ((19.0, 1), (20.0, 0)):
        still = StillWindows(qa.vision_encoder, threshold)
        still.encode(torch.from_numpy(np.concatenate([np.full((2, *SIZE, 3), 100, np.uint8), other])))
        assert still.windows - still.reused == moved
