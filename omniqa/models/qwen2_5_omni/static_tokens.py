"""Windows that stand still from one grid to the next, encoded once: an approximation, off by default.

A window of the vision encoder depends on its own pixels alone up to the first full-attention block; only there does
it look at the other windows of its grid. A window whose pixels have not changed is not computed again: its output,
and its keys and values in the full-attention blocks, are those of the grid where it was computed last. So windows
that move look at all windows of their grid, and what is left out is this alone: a window that stands still does not
learn that others have moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omniqa.models.qwen2_5_omni.windows import CELL, FRAMES, MERGE, WindowGroup

if TYPE_CHECKING:
    from omniqa.models.qwen2_5_omni.vision import GridTables, VisionEncoder


@dataclass(frozen=True)
class _Moved:
    """The windows of a batch of grids that are computed, one after the other, those of one shape together.

    rows: (T,) place of each patch among all patches of the batch. groups: the windows among the T.
    grid, place: (T,) of each patch its grid, and its place there.
    """

    rows: Tensor
    groups: tuple[WindowGroup, ...]
    grid: Tensor
    place: Tensor


@dataclass
class _Held:
    """What the last grid left behind.

    pixels: (2, H, W, 3) uint8; of each window those that it was computed from.
    keys, values: (patches, H, D) by full-attention block. tokens: (tokens_per_grid, d) output, in the windows' order.
    """

    pixels: Tensor
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    tokens: Tensor | None = None


class StillWindows:
    """Encodes one clip's grids in turn; windows that stand still are taken from the grid before.

    A window stands still where no token's pixels differ from those that its output was computed from by more than
    `threshold`, the mean absolute difference in levels of 255. So however slowly a picture changes, what is taken
    never lies further off.

    windows: of one grid. reused: how many were not computed, of all grids.
    """

    def __init__(self, encoder: VisionEncoder, threshold: float) -> None:
        self._encoder = encoder
        self._threshold = threshold
        self._held: _Held | None = None
        self.windows = self.reused = 0

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (grids·2, H, W, 3), those of earlier calls before them: (grids, tokens_per_grid, d)."""
        encoder = self._encoder
        tables = encoder.tables(frames.shape[1] // CELL, frames.shape[2] // CELL)
        held = self._held = self._held or _first(frames, tables, encoder)
        self.windows = tables.order.windows
        fresh = held.tokens is None
        moved = torch.stack([self._moved(held, grid, tables, fresh and not k) for k, grid in _grids(frames)])
        self.reused += moved.numel() - int(moved.sum())
        if held.tokens is not None and not moved.any():
            return held.tokens[tables.restore].repeat(len(moved), 1, 1)
        batch = _batch(moved.to(tables.cells.device), tables)
        merged = self._computed(frames, batch, held, tables)
        tokens = batch.place[:: MERGE**2] // MERGE**2
        if held.tokens is None:
            held.tokens = merged.new_empty(len(tables.cells), merged.shape[1])
        out = merged.new_empty(len(moved), *held.tokens.shape)
        whose = batch.grid[:: MERGE**2]
        for grid in range(len(moved)):
            held.tokens[tokens[whose == grid]] = merged[whose == grid]
            out[grid] = held.tokens
        return out[:, tables.restore]

    def _moved(self, held: _Held, grid: Tensor, tables: GridTables, first: bool) -> Tensor:
        """(windows,) bool on the CPU: which windows of a grid (2, H, W, 3) are computed; their pixels are held then."""
        rows, cols = grid.shape[1] // CELL, grid.shape[2] // CELL
        difference = (grid.short() - held.pixels).abs().float()
        by_token = difference.view(FRAMES, rows, CELL, cols, CELL, 3).mean((0, 2, 4, 5)).flatten()
        farthest = by_token[tables.order.cells].split([g.windows * g.size // MERGE**2 for g in tables.order.groups])
        parts = [part.view(g.windows, -1).amax(1) for part, g in zip(farthest, tables.order.groups, strict=True)]
        moved = torch.cat(parts) > self._threshold
        if first:
            moved[:] = True
        sizes = torch.tensor([g.size // MERGE**2 for g in tables.order.groups for _ in range(g.windows)])
        tokens = moved.repeat_interleave(sizes)[tables.order.restore].view(rows, cols)
        pixels = tokens.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)[None, :, :, None]
        held.pixels = torch.where(pixels, grid, held.pixels)
        return moved

    def _computed(self, frames: Tensor, batch: _Moved, held: _Held, tables: GridTables) -> Tensor:
        """Output (T/4, d) of the windows that moved."""
        encoder = self._encoder
        x = encoder.embed(frames, tables).flatten(0, 1)[batch.rows][None]
        rotary = tables.rotary[0][batch.place], tables.rotary[1][batch.place]
        for index, block in enumerate(encoder.visual.blocks):
            h = block.norm1(x)
            if index in encoder.full:
                x = x + self._attend_in_full(index, block.attn, h, rotary, batch, held)
            else:
                x = x + encoder.attend(block.attn, h, rotary, batch.groups)
            x = x + block.mlp(block.norm2(x))
        return encoder.visual.merger(x[0])

    def _attend_in_full(
        self, index: int, attention: Any, x: Tensor, rotary: tuple[Tensor, Tensor], batch: _Moved, held: _Held
    ) -> Tensor:
        """A full-attention block, grid by grid: moved windows look at all of their grid, as far as it is known."""
        q, k, v = (part[0] for part in self._encoder.project(attention, x, rotary))
        keys, values, out = held.keys[index], held.values[index], torch.empty_like(q)
        for grid in range(int(batch.grid.max()) + 1 if len(batch.grid) else 0):
            mine = (batch.grid == grid).nonzero()[:, 0]
            if len(mine):
                keys[batch.place[mine]], values[batch.place[mine]] = k[mine], v[mine]
                out[mine] = self._encoder.attention.dense(q[mine][None], keys[None], values[None])[0]
        return attention.proj(out.flatten(1))[None]


def _grids(frames: Tensor) -> enumerate[Tensor]:
    return enumerate(frames.split(FRAMES))


def _first(frames: Tensor, tables: GridTables, encoder: VisionEncoder) -> _Held:
    """Room for what a grid leaves behind, before there is any."""
    projected = encoder.visual.blocks[0].attn.q.weight
    shape = (len(tables.cells) * MERGE**2, encoder.heads, len(projected) // encoder.heads)
    keys, values = ({index: projected.new_empty(shape) for index in encoder.full} for _ in range(2))
    return _Held(frames[:FRAMES], keys, values)


def _batch(moved: Tensor, tables: GridTables) -> _Moved:
    """The patches of the windows that moved; moved: (grids, windows) bool."""
    patches, window, rows, groups, start = len(tables.cells) * MERGE**2, 0, [], [], 0
    for group in tables.order.groups:
        grid, number = moved[:, window : window + group.windows].nonzero().unbind(1)
        window += group.windows
        first = grid * patches + group.start + number * group.size
        rows.append((first[:, None] + torch.arange(group.size, device=moved.device)).flatten())
        groups.append(WindowGroup(start, len(first), group.size))
        start += len(rows[-1])
    together = torch.cat(rows)
    return _Moved(together, tuple(g for g in groups if g.windows), together // patches, together % patches)
