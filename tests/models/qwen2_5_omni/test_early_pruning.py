"""Pruning inside the vision encoder equals a slow reading: it computes all tokens and overwrites represented ones."""

import numpy as np
import pytest
import torch

from omniqa.models.qwen2_5_omni import vision
from omniqa.pruning.ttm import TemporalMerge

ROWS, COLS = 5, 9  # windows of 4 x 4 tokens: inner ones, right edge, lower edge and corner
N, CELL = ROWS * COLS, 28
KEPT = 17


def grids_of(count, seed=0):
    """Random grids of which each changes some tokens of the one before, by many levels, by a few or not at all."""
    random = np.random.default_rng(seed)
    grids = [random.integers(0, 256, (2, ROWS, CELL, COLS, CELL, 3), np.uint8)]
    for _ in range(count - 1):
        new = grids[-1].copy()
        for row, col in np.argwhere(random.random((ROWS, COLS)) < 0.7):
            old = new[:, row, :, col]
            step = random.integers(-2, 3, old.shape)
            drawn = random.integers(0, 256, old.shape)
            mixed = old * 0.7 + drawn * 0.3 if random.random() < 0.6 else np.clip(old + step, 0, 255)
            new[:, row, :, col] = mixed.astype(np.uint8)
        grids.append(new)
    return [grid.reshape(2, ROWS * CELL, COLS * CELL, 3) for grid in grids]


def stream(qa, grids, rule=None, levels=None):
    """Embeddings of the kept tokens, which tokens are kept, and the stream."""
    taken, keep = [], []

    def take(tokens, kept=None):
        kept = rule.keep(tokens) if kept is None else kept
        taken.append(tokens[kept] if tokens.ndim == 3 else tokens)
        keep.append(kept)

    sink = qa.model.vision_stream(qa.vision_encoder, levels, rule, take)
    for grid in grids:
        sink.push(grid)
    rest = sink.finish()
    if len(rest):
        if rule is None:
            return rest.flatten(0, 1), torch.ones(len(grids), N, dtype=torch.bool), sink
        take(rest)
    return torch.cat(taken), torch.cat(keep), sink


class Slow:
    """All tokens of every grid through every block; tokens row by row, 4 patches each."""

    def __init__(self, qa):
        self.qa, self.encoder, self.visual = qa, qa.vision_encoder, qa.model.visual
        tables = self.encoder.tables(ROWS, COLS)
        self.patches = torch.stack([4 * tables.restore + j for j in range(4)], 1).flatten()
        self.tables = tables
        self.cos, self.sin = (part[self.patches].float() for part in tables.rotary)
        row, col = torch.arange(N) // COLS, torch.arange(N) % COLS
        window = (row // 4 * COLS + col // 4).repeat_interleave(4)
        self.near = window[:, None] == window[None]

    def embed(self, grid):
        x = self.encoder.embed(torch.from_numpy(grid), self.tables)[0]
        return x[self.patches]

    def turn(self, x):
        half = x.shape[-1] // 2
        x = x.float()
        return x * self.cos + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin

    def block(self, index, x):
        """One grid's patches (4N, width) through a block, by a whole attention map."""
        block = self.visual.blocks[index]
        h, attention = block.norm1(x), block.attn
        q, k, v = (part(h).unflatten(-1, (self.encoder.heads, -1)) for part in (attention.q, attention.k, attention.v))
        q, k = self.turn(q).to(x.dtype), self.turn(k).to(x.dtype)
        weights = torch.einsum("qhd,khd->hqk", q.float(), k.float()) * q.shape[-1] ** -0.5
        if index not in self.encoder.full:
            weights = weights.masked_fill(~self.near, float("-inf"))
        seen = torch.einsum("hqk,khd->qhd", weights.softmax(-1), v.float()).to(x.dtype)
        x = x + attention.proj(seen.flatten(1))
        return x + block.mlp(block.norm2(x))

    def merge(self, x):
        return self.visual.merger(x)


def pixels_of(grid):
    return torch.from_numpy(grid).view(2, ROWS, CELL, COLS, CELL, 3).permute(1, 3, 0, 2, 4, 5).reshape(N, -1).int()


def overwrite(x, root, before):
    """Every token gets the patches of its root: a grid of the window, or -1, the grid before the window."""
    fixed = [part.clone() for part in x]
    for grid in range(len(x)):
        for token in range(N):
            at, source = slice(4 * token, 4 * token + 4), root[grid][token]
            fixed[grid][at] = (before if source < 0 else x[source])[at]
    return fixed


def decide(x, root, kept):
    """TTM on the hidden states, token by token: which stay, and the roots after it."""
    keep, final = [], []
    for grid in range(len(x)):
        reference = (0, 0, 0, 2)[grid]
        states, others = (part.float().view(N, -1) for part in (x[grid], x[reference]))
        likeness = []
        for token in range(N):
            one, other = states[token], others[token]
            same = float((one * other).sum() / ((one * one).sum() * (other * other).sum()).sqrt())
            likeness.append(2.0 if root[grid][token] != grid else same)
        chosen = sorted(range(N), key=lambda token: (likeness[token], token))[:kept] if grid else range(N)
        keep.append([token in set(chosen) for token in range(N)])
        mine = []
        for token in range(N):
            source = root[grid][token]
            if source == grid:
                source = grid if keep[grid][token] else final[reference][token]
            elif source >= 0:
                source = final[source][token]
            mine.append(source)
        final.append(mine)
    return keep, final


@torch.inference_mode()
def slow(qa, grids, rule=None, levels=None):
    """Embeddings of all tokens (grids, N, d), those represented overwritten, and which are kept."""
    model, depth = Slow(qa), len(qa.model.visual.blocks)
    size = rule.window if rule else len(grids)
    out, keep, before, pixels = [], [], [None] * (depth + 1), None
    for first in range(0, len(grids), size):
        window = grids[first : first + size]
        root, root_pixels = [], pixels
        for number, grid in enumerate(window):
            own = pixels_of(grid)
            mine, seen = [number] * N, own.clone()
            for token in range(N) if levels is not None and root_pixels is not None else ():
                if float((own[token] - root_pixels[token]).abs().double().mean()) <= levels:
                    mine[token], seen[token] = root[number - 1][token] if number else -1, root_pixels[token]
            root, root_pixels = [*root, mine], seen
        x = overwrite([model.embed(grid) for grid in window], root, before[0])
        kept = [[True] * N for _ in window]
        for index in range(depth):
            if rule and index == rule.block:
                kept, root = decide(x, root, rule.kept)
                x = overwrite(x, root, before[index])
            before_next = x[-1]
            x = overwrite([model.block(index, part) for part in x], root, before[index + 1])
            before[index] = before_next
        before[depth] = x[-1]
        out += [model.merge(part) for part in x]
        keep += kept
        all_pixels = [pixels_of(grid) for grid in window]
        pixels = torch.stack([pixels[t] if root[-1][t] < 0 else all_pixels[root[-1][t]][t] for t in range(N)])
    return torch.stack(out), torch.tensor(keep)


def assert_equal_to_slow(qa, grids, rule=None, levels=None, tolerance=1e-5):
    tokens, keep, _ = stream(qa, grids, rule, levels)
    expected, expected_keep = slow(qa, grids, rule, levels)
    assert keep.equal(expected_keep)
    assert (tokens.float() - expected[expected_keep].float()).abs().max() <= tolerance


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_survivors_and_embeddings_equal_a_slow_reading(qa, block, count):
    assert_equal_to_slow(qa, grids_of(count), TemporalMerge(KEPT, block=block))


@pytest.mark.parametrize("levels", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_pixel_rule_equals_a_slow_reading(qa, levels, count):
    grids = grids_of(count)
    assert_equal_to_slow(qa, grids, levels=levels)
    assert 0 < stream(qa, grids, levels=levels)[2].tokens_reused < 1 or count == 1


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("levels", [0.0, 1.5])
def test_both_rules_together_equal_a_slow_reading(qa, block, levels):
    assert_equal_to_slow(qa, grids_of(10), TemporalMerge(KEPT, block=block), levels)


def test_represented_tokens_go_first_when_the_rule_counts(qa):
    grids = grids_of(4)
    keep = stream(qa, grids, TemporalMerge(KEPT, block=1), levels=1.5)[1]
    still = [[False] * N]
    pixels = [pixels_of(grid) for grid in grids]
    root = pixels[0]
    for grid in pixels[1:]:
        same = (grid - root).abs().double().mean(1) <= 1.5
        still.append(same.tolist())
        root = torch.where(same[:, None], root, grid)
    for grid in (1, 2, 3):
        assert int((keep[grid] & torch.tensor(still[grid])).sum()) == max(0, KEPT - (N - sum(still[grid])))


@pytest.mark.parametrize("levels", [None, 1.5])
@pytest.mark.parametrize("block", [0, 2])
def test_in_bfloat16_the_difference_is_rounding(checkpoint, levels, block):
    import omniqa

    qa = omniqa.load(str(checkpoint), device="cpu", dtype="bfloat16")
    rule = TemporalMerge(KEPT, block=block)
    tokens, keep, _ = stream(qa, grids_of(6), rule, levels)
    expected, expected_keep = slow(qa, grids_of(6), rule, levels)
    assert int((keep != expected_keep).sum()) <= 2  # of two that are as similar, the other one
    both = keep & expected_keep
    ours = torch.zeros_like(expected)
    ours[keep] = tokens
    off = (ours[both].float() - expected[both].float()).square().mean().sqrt()
    assert off <= 0.02 * expected[both].float().std()


@pytest.mark.parametrize("case", [(1, None), (None, 1.5), (1, 1.5)])
def test_batches_do_not_change_what_is_computed(qa, case, monkeypatch):
    block, levels = case
    rule = None if block is None else TemporalMerge(KEPT, block=block)
    tokens, keep, _ = stream(qa, grids_of(11), rule, levels)
    monkeypatch.setattr(vision, "BATCH_PATCHES", 1)
    one_by_one, same, _ = stream(qa, grids_of(11), rule, levels)
    assert same.equal(keep)
    assert (one_by_one - tokens).abs().max() <= 1e-5


def test_only_kept_tokens_go_through_the_blocks_products(qa):
    rows = []
    hooks = [
        block.mlp.register_forward_hook(lambda module, args, out: rows.append(args[0].flatten(0, -2).shape[0]))
        for block in qa.model.visual.blocks
    ]
    stream(qa, grids_of(4), TemporalMerge(KEPT, block=2))
    for hook in hooks:
        hook.remove()
    assert rows == [4 * 4 * N] * 2 + [4 * (N + 3 * KEPT)] * (len(qa.model.visual.blocks) - 2)


@pytest.mark.parametrize("levels", [None, 1.5])
def test_a_block_at_the_depth_decides_after_the_merger(qa, levels):
    tokens, keep, _ = stream(qa, grids_of(6), TemporalMerge(KEPT, block=len(qa.model.visual.blocks)), levels)
    expected, same, _ = stream(qa, grids_of(6), TemporalMerge(KEPT), levels)
    assert keep.equal(same)
    assert tokens.equal(expected)
    whole = stream(qa, grids_of(6), levels=levels)[0]
    assert (tokens - whole[keep.flatten()]).abs().max() <= 1e-5


def test_a_window_that_equals_the_one_before_it_is_not_encoded_again(qa):
    grids, computed = grids_of(4), []
    hook = qa.model.visual.merger.register_forward_hook(lambda module, args, out: computed.append(len(out)))
    rule = TemporalMerge(KEPT, block=0)
    tokens, keep, sink = stream(qa, [*grids * 3, *grids[:3]], rule)
    hook.remove()
    once = N + 3 * KEPT
    assert sum(computed) == once + N + 2 * KEPT
    assert (sink.grids, sink.grids_reused) == (15, 8)
    assert tokens[:once].equal(tokens[once : 2 * once])
    assert keep[:4].equal(keep[8:12])


def test_a_picture_that_stands_still_is_computed_once_by_the_pixel_rule(qa):
    computed = []
    hook = qa.model.visual.merger.register_forward_hook(lambda module, args, out: computed.append(len(out)))
    tokens, _, sink = stream(qa, grids_of(1) * 7, levels=0.0)
    hook.remove()
    assert sum(computed) == N
    assert sink.tokens_reused == pytest.approx(6 / 7)
    assert tokens.equal(tokens[:N].repeat(7, 1))


def test_a_slow_change_is_never_represented_from_further_off_than_the_threshold(qa):
    """Ten steps of one level each, threshold 3: every token is computed anew at every fourth."""
    grids = [np.full((2, ROWS * CELL, COLS * CELL, 3), 100 + step, np.uint8) for step in range(11)]
    for rule in (None, TemporalMerge(N - 1)):
        assert stream(qa, grids, rule, levels=3.0)[2].tokens_reused == pytest.approx(1 - 3 / 11)


def test_the_threshold_counts_a_tokens_mean_over_both_frames(qa):
    other = np.full((2, ROWS * CELL, COLS * CELL, 3), 100, np.uint8)
    first = other.copy()
    other[0, CELL : 2 * CELL, :CELL] += 20  # one token, in one of the frames
    for levels, computed in ((9.9, N + 1), (10.0, N)):
        assert stream(qa, [first, other], levels=levels)[2].tokens_reused == pytest.approx(1 - computed / (2 * N))
