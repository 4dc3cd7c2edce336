"""Pruning inside the vision encoder: a token that another one represents has no state of its own.

Two rules choose such tokens: the pixel rule (`reuse_static`) before the first block, and a method's `VisionRule`
before its `block`. As a key and value of its grid's attention, a represented token is its *root*: the computed token at
the same place of an earlier grid that stands for it in the end. Positions count rows and columns inside a grid alone,
so the root's rotated key is literally the represented token's, too. Projections, MLPs and the merger take computed
tokens alone; attention is dense, on gathered keys and values.

Tokens stand in the windows' order here (`WindowOrder`), except for a VisionRule, which sees them row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omniqa.models.qwen2_5_omni.windows import CELL, FRAMES, MERGE
from omniqa.pruning.vision_rule import VisionRule

if TYPE_CHECKING:
    from omniqa.models.qwen2_5_omni.vision import GridTables, VisionEncoder

PATCHES = MERGE**2  # of a token


@dataclass(frozen=True)
class ComputedRows:
    """Which tokens of a batch of grids are computed, and which row stands for each token.

    A token's id counts the `carried` tokens of the grid before the batch first, then those of the batch.

    Attributes:
        roots: (grids, n) long, the id of each token's root; a computed token's own.
        computed: (T,) long, the computed tokens' places among the batch's grids·n, ascending.
        source: (grids, n) long, the row of each token's root among the carried and the T computed tokens.
    """

    roots: Tensor
    computed: Tensor
    source: Tensor

    @classmethod
    def of(cls, roots: Tensor, carried: int) -> ComputedRows:
        """The rows of tokens with these roots."""
        own = roots.flatten() == own_ids(roots, carried).flatten()
        first = torch.arange(carried, device=roots.device)
        row = torch.cat([first, carried + own.cumsum(0) - 1])
        return cls(roots, own.nonzero().flatten(), row[roots])

    @property
    def grids(self) -> Tensor:
        """(A,) long: the grids that have a computed token; attention runs in these alone."""
        return (self.computed // self.source.shape[1]).unique()


@dataclass
class Carried:
    """What the last grid of a batch leaves for the next batch: by place, what its root has.

    Attributes:
        pixels: (n, ·) uint8 on the CPU.
        states: (4n, width) hidden states before the rule's block; None without a rule.
        keys, values: (4n, H, D) of every block.
        tokens: (n, d) the merger's output.
    """

    pixels: Tensor
    tokens: Tensor
    states: Tensor | None = None
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class EarlyPruning:
    """Encodes one clip's grids, a batch at a time, computing no represented token.

    A batch is whole windows of the rule; with both rules it is one, for the pixel rule compares with what the rule
    has left of the window before.

    Attributes:
        rule: decides before its block, which is one of the encoder's; None keeps all tokens.
        levels: the pixel rule's threshold, a mean absolute difference in levels of 255; None switches it off.
        represented: tokens that the pixel rule did not compute, so far.
    """

    def __init__(self, encoder: VisionEncoder, rule: VisionRule | None, levels: float | None) -> None:
        self.rule = rule
        self.levels = levels
        self.represented = 0
        self._encoder = encoder
        self._carried: Carried | None = None

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode uint8 frames (grids·2, H, W, 3), those of earlier calls before them.

        Returns:
            (grids, n, d) embeddings, represented tokens as their roots; and which tokens the rule keeps, (grids, n)
            bool. Both row by row.
        """
        tables = self._encoder.tables(frames.shape[1] // CELL, frames.shape[2] // CELL)
        before, pixels = self._carried, None
        carried = 0 if before is None else len(before.tokens)
        roots = own_ids(torch.empty(len(frames) // FRAMES, len(tables.cells), device=tables.cells.device), carried)
        if self.levels is not None:
            pixels = token_pixels(frames)[:, tables.order.cells]
            roots = pixel_roots(pixels, before.pixels if before else None, self.levels).to(roots.device)
            self.represented += int((roots != own_ids(roots, carried)).sum())
        batch = _Batch(self._encoder, tables, ComputedRows.of(roots, carried), before, self.levels is not None)
        tokens, keep = batch.encode(frames, self.rule)
        if pixels is not None:
            self._carried = batch.leave(pixels, tokens)
        return tokens[:, tables.restore], keep[:, tables.restore]


class _Batch:
    """A batch of grids on its way through the blocks.

    Args:
        rows: what is computed.
        carries: whether keys, values and states of its last grid are kept for the next batch.
    """

    def __init__(
        self, encoder: VisionEncoder, tables: GridTables, rows: ComputedRows, before: Carried | None, carries: bool
    ) -> None:
        self._encoder = encoder
        self._tables = tables
        self._before = before
        self._carried = 0 if before is None else len(before.tokens)
        self._carries = carries
        self._rows = rows
        self._states: Tensor | None = None
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def encode(self, frames: Tensor, rule: VisionRule | None) -> tuple[Tensor, Tensor]:
        """(grids, n, d) embeddings and (grids, n) bool what the rule keeps, in the windows' order."""
        visual, keep = self._encoder.visual, torch.ones_like(self._rows.roots, dtype=torch.bool)
        # Before anything is represented, grids are independent, and run in the encoder's ordinary batches.
        dense = rule.block if rule is not None and not self._carries else 0
        assert dense is not None
        x = torch.cat([self._dense(part, dense) for part in frames.split(FRAMES * self._grids_together())])
        x = x.flatten(0, 1)[patch_rows(self._rows.computed)]
        for index in range(dense, len(visual.blocks)):
            if rule is not None and index == rule.block:
                x, keep = self._prune(x, rule)
            x = self._step(index, x)
        merged = visual.merger(x) if len(x) else x.new_empty(0, 0)
        return self._with_carried(merged, self._before.tokens if self._before else None)[self._rows.source], keep

    def leave(self, pixels: Tensor, tokens: Tensor) -> Carried:
        """What the next batch needs of the last grid. pixels: (grids, n, ·); tokens: (grids, n, d) embeddings."""
        known = pixels.flatten(0, 1) if self._before is None else torch.cat([self._before.pixels, *pixels])
        return Carried(known[self._rows.roots[-1].cpu()], tokens[-1].clone(), self._states, self._keys, self._values)

    def _grids_together(self) -> int:
        return max(1, self._encoder.batch_patches // (PATCHES * len(self._tables.cells)))

    def _dense(self, frames: Tensor, blocks: int) -> Tensor:
        """(grids, 4n, width) what comes out of the first blocks, of all tokens."""
        return self._encoder.run_blocks(self._encoder.embed(frames, self._tables), self._tables, range(blocks))

    def _with_carried(self, computed: Tensor, carried: Tensor | None) -> Tensor:
        """The rows that `ComputedRows.source` counts."""
        if carried is None:
            return computed
        return torch.cat([carried, computed]) if len(computed) else carried

    def _prune(self, x: Tensor, rule: VisionRule) -> tuple[Tensor, Tensor]:
        """Decide by the states x (4T, width) of the computed tokens: the states that are left, and what is kept."""
        rows, tables = self._rows, self._tables
        states = self._with_carried(x, self._before.states if self._before else None)[patch_rows(rows.source)]
        if self._carries:
            self._states = states[-1].clone()
        by_token = states.view(*rows.source.shape, -1)[:, tables.restore]
        represented = None
        if self._carries:
            represented = (rows.roots != own_ids(rows.roots, self._carried))[:, tables.restore]
        keep = rule.keep(by_token, represented)[:, tables.cells]
        self._rows = ComputedRows.of(merge_roots(rows.roots, keep, rule, self._carried), self._carried)
        left = rows.source.flatten()[self._rows.computed] - self._carried
        return x[patch_rows(left)], keep

    def _step(self, index: int, x: Tensor) -> Tensor:
        """A block on the computed tokens' patches x (4T, width)."""
        block, rows, n = self._encoder.visual.blocks[index], self._rows, len(self._tables.cells)
        place = patch_rows(rows.computed % n)
        rotary = self._tables.rotary[0][place], self._tables.rotary[1][place]
        q, k, v = self._encoder.project(block.attn, block.norm1(x), rotary)
        keys = self._with_carried(k, self._before.keys[index] if self._before else None)
        values = self._with_carried(v, self._before.values[index] if self._before else None)
        source = patch_rows(rows.source)
        if self._carries:
            self._keys.append(keys[source[-1]])
            self._values.append(values[source[-1]])
        if not len(x):
            return x
        grids = rows.grids
        source = source[grids]
        # Among the grids that have computed tokens, those are numbered without gaps.
        queried = patch_rows(torch.searchsorted(grids, rows.computed // n) * n + rows.computed % n)
        queries = q.new_zeros(source.numel(), *q.shape[1:]).index_copy_(0, queried, q).view(*source.shape, *q.shape[1:])
        lengths = self._encoder.window_lengths(index, self._tables)
        seen = self._encoder.attention.windows(queries, keys[source], values[source], lengths)
        x = x + block.attn.proj(seen.flatten(2).flatten(0, 1)[queried])
        return x + block.mlp(block.norm2(x))


def own_ids(tokens: Tensor, carried: int) -> Tensor:
    """(grids, n) long: the id of each token of a tensor (grids, n), see ComputedRows."""
    return carried + torch.arange(tokens.numel(), device=tokens.device).view(tokens.shape)


def patch_rows(tokens: Tensor) -> Tensor:
    """(…, 4m) long: the rows of the four patches of each token of (…, m)."""
    return (tokens[..., None] * PATCHES + torch.arange(PATCHES, device=tokens.device)).flatten(-2)


def token_pixels(frames: Tensor) -> Tensor:
    """(grids, n, 2·28·28·3): each token's pixels in both frames, row by row, of frames (grids·2, H, W, 3)."""
    count, height, width, channels = frames.shape
    cells = frames.view(count // FRAMES, FRAMES, height // CELL, CELL, width // CELL, CELL, channels)
    return cells.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(1, 2)


def pixel_roots(pixels: Tensor, before: Tensor | None, levels: float) -> Tensor:
    """The pixel rule: which token represents each, by ids as in ComputedRows.

    A token is represented by the root of the token at its place in the grid before if its pixels differ from that
    root's by at most `levels` on average. So a slow change does not accumulate.

    Args:
        pixels: (grids, n, ·) uint8.
        before: (n, ·) uint8, the pixels of the roots of the grid before, which is carried; None for the clip's first.
        levels: the threshold, in levels of 255.

    Returns:
        (grids, n) long.
    """
    carried = 0 if before is None else len(before)
    roots = own_ids(pixels[:, :, 0], carried)
    root, root_pixels = torch.arange(carried), before
    for grid, own in zip(pixels, roots, strict=True):  # `own` is a view: the result is written there
        if root_pixels is not None:
            same = (grid.short() - root_pixels).abs_().float().mean(-1) <= levels
            own.copy_(torch.where(same, root, own))
            root_pixels = torch.where(same[:, None], root_pixels, grid)
        else:
            root_pixels = grid
        root = own
    return roots


def merge_roots(roots: Tensor, keep: Tensor, rule: VisionRule, carried: int) -> Tensor:
    """The roots once a rule has decided: (grids, n) long, ids as in ComputedRows.

    A token that the pixel rule had represented stays with its root, or with what represents that now.

    Args:
        roots: (grids, n) long, before.
        keep: (grids, n) bool, what the rule keeps.
        rule: says which grid a dropped token is represented by.
        carried: tokens carried from the batch before.
    """
    own = own_ids(roots, carried)
    final = torch.arange(carried + roots.numel(), device=roots.device)
    for grid in range(len(roots)):
        first = grid - grid % rule.window
        reference = final[own[first + rule.references[grid - first]]]
        mine = torch.where(keep[grid], own[grid], reference)
        final[own[grid]] = torch.where(roots[grid] == own[grid], mine, final[roots[grid]])
    return final[own]
