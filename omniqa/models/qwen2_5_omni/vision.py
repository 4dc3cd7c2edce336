"""Drives the vision encoder: frames in, embeddings out, a batch of grids at a time.

Every temporal grid (two frames) is encoded independently of the others, full-attention blocks included, so grids
batch freely and activations stay bounded by the batch. Windows of one shape stand together in the token order, so
window attention is one packed call a block, or at most four: inner windows, right edge, lower edge, corner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from omniqa.models.qwen2_5_omni.preprocessor import IMAGE_MEAN, IMAGE_STD
from omniqa.models.qwen2_5_omni.windows import CELL, FRAMES, MERGE, PATCH, WindowOrder, window_order
from omniqa.runtime.attention import Attention, rotate
from omniqa.runtime.upload import upload

BATCH_PATCHES = 8192
CPU_PATCHES = 2048  # on a CPU at most: it is slower where what lies between two products leaves its caches

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GridTables:
    """What is the same for all grids of one shape, on the encoder's device.

    Attributes:
        order: the windows.
        cells, restore: its tables.
        rotary: cosine and sine (patches, 1, D), float32: the first half of a head turns by row, the second by column.
    """

    order: WindowOrder
    cells: Tensor
    restore: Tensor
    rotary: Rotary


def patchify(frames: Tensor) -> Tensor:
    """Cut normalised frames into patches, merged token by merged token.

    Args:
        frames: (grids·2, H, W, 3), sides multiples of 28.

    Returns:
        (grids, tokens_per_grid, 4, 1176): of each merged token its four patches, each by channel, frame, row and
        column.
    """
    count, height, width, channels = frames.shape
    rows, cols = height // CELL, width // CELL
    x = frames.view(count // FRAMES, FRAMES, rows, MERGE, PATCH, cols, MERGE, PATCH, channels)
    x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return x.reshape(count // FRAMES, rows * cols, MERGE**2, channels * FRAMES * PATCH**2)


class VisionEncoder:
    """Runs transformers' Qwen2_5OmniVisionEncoder `visual` with `attention`."""

    def __init__(self, visual: Any, attention: Attention) -> None:
        self.visual = visual
        self.attention = attention
        config = visual.config
        self.heads: int = config.num_heads
        self.window: int = config.window_size // CELL
        self.full: frozenset[int] = frozenset(config.fullatt_block_indexes)
        weight = visual.patch_embed.proj.weight
        self._patch_weight = weight.flatten(1)  # a 3-D convolution that never overlaps is a linear map
        self._mean = 255 * torch.tensor(IMAGE_MEAN, device=weight.device)
        self._std = 255 * torch.tensor(IMAGE_STD, device=weight.device)
        self._tables: dict[tuple[int, int], GridTables] = {}

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.visual.blocks)

    @property
    def batch_patches(self) -> int:
        """How many patches are encoded together, where a grid has no more of them."""
        return min(BATCH_PATCHES, CPU_PATCHES) if self._mean.device.type == "cpu" else BATCH_PATCHES

    @torch.inference_mode()
    def encode(self, frames: Any, progress: Callable[[float], None] = lambda share: None) -> Tensor:
        """Encode uint8 frames (F, H, W, 3), F even, sides multiples of 28.

        Returns (F/2, tokens_per_grid, d) embeddings in the decoder's width, tokens of a grid row by row.
        """
        stream = GridStream(self)
        for number in range(0, len(frames), FRAMES):
            stream.push(frames[number : number + FRAMES])
            progress((number + FRAMES) / (len(frames) + FRAMES))
        encoded = stream.finish()
        progress(1.0)
        return encoded

    def tables(self, rows: int, cols: int) -> GridTables:
        """The tables of grids of `rows` × `cols` merged tokens; those of the last shape are kept."""
        if (rows, cols) not in self._tables:
            order, device = window_order(rows, cols, self.window), self._mean.device
            with torch.inference_mode(False):  # they must serve training, too
                rotary = self._rotary(order.positions.to(device))
                tables = GridTables(order, order.cells.to(device), order.restore.to(device), rotary)
            self._tables = {(rows, cols): tables}
        return self._tables[rows, cols]

    def embed(self, frames: Tensor, tables: GridTables) -> Tensor:
        """What enters the first block, of uint8 frames (grids·2, H, W, 3): (grids, patches, width), in windows."""
        pixels = (upload(frames, self._mean.device).float() - self._mean) / self._std
        patches = patchify(pixels)[:, tables.cells].flatten(1, 2).to(self._patch_weight.dtype)
        return patches @ self._patch_weight.T

    def _encode_grids(self, frames: Tensor) -> Tensor:
        tables = self.tables(frames.shape[1] // CELL, frames.shape[2] // CELL)
        x = self.run_blocks(self.embed(frames, tables), tables, range(self.depth))
        merged = self.visual.merger(x.flatten(0, 1)).view(len(x), len(tables.cells), -1)
        return merged[:, tables.restore]

    def run_blocks(self, x: Tensor, tables: GridTables, blocks: range) -> Tensor:
        """Some of the blocks, on all patches of some grids: x and result (grids, patches, width), in windows."""
        for index in blocks:
            block = self.visual.blocks[index]
            q, k, v = self.project(block.attn, block.norm1(x), tables.rotary)
            attended = self.attention.windows(q, k, v, self.window_lengths(index, tables))
            x = x + block.attn.proj(attended.flatten(2))
            x = x + block.mlp(block.norm2(x))
        return x

    def window_lengths(self, index: int, tables: GridTables) -> tuple[int, ...]:
        """Patches of each window of a grid, in a block; all of them are one in a full-attention block."""
        if index in self.full:
            return (MERGE**2 * len(tables.cells),)
        return tuple(group.size for group in tables.order.groups for _ in range(group.windows))

    def _rotary(self, positions: Tensor) -> Rotary:
        size = self.visual.config.hidden_size // self.heads
        frequencies = 1e4 ** (-torch.arange(0, size // 2, 2, device=positions.device).float() / (size // 2))
        angle = (positions[:, :, None] * frequencies).flatten(1).repeat(1, 2)[:, None]
        return angle.cos(), angle.sin()

    def project(self, attention: Any, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (…, H, D) of x (…, width), the first two turned by `rotary`."""
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (attention.q, attention.k, attention.v))
        q, k = (rotate(x.float(), *rotary).to(x.dtype) for x in (q, k))
        return q, k, v


class GridStream:
    """Encodes a clip's grids as they arrive, a batch at a time; equal grids are encoded once.

    Attributes:
        grids, grids_reused: how many have come, and how many of them equal an earlier one.
        tokens_reused: of tokens that differ, none is taken from elsewhere.
    """

    tokens_reused = 0.0

    def __init__(self, encoder: VisionEncoder) -> None:
        self.added: Tensor | None = None  # this family adds nothing in the decoder
        self._encoder = encoder
        self._number: dict[bytes, int] = {}  # of each different grid, by its pixels' digest
        self._order: list[int] = []
        self._waiting: list[Tensor] = []
        self._encoded: list[Tensor] = []
        self.grids = self.grids_reused = 0

    @torch.inference_mode()
    def push(self, frames: Any) -> None:
        """Take one grid: uint8 frames (2, H, W, 3), all of one size, sides multiples of 28. They are not copied."""
        grid = torch.from_numpy(frames)
        digest = blake2b(grid.contiguous().numpy().data, digest_size=16).digest()
        if digest not in self._number:
            self._number[digest] = len(self._number)
            self._waiting.append(grid)
        else:
            self.grids_reused += 1
        self._order.append(self._number[digest])
        self.grids += 1
        patches = grid.shape[1] * grid.shape[2] // PATCH**2
        if len(self._waiting) >= max(1, self._encoder.batch_patches // patches):
            self._encode_waiting()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """(grids, tokens_per_grid, d) embeddings of all grids, at least one; tokens of a grid row by row."""
        self._encode_waiting()
        encoded = torch.cat(self._encoded)
        return encoded[torch.tensor(self._order, device=encoded.device)] if self.grids_reused else encoded

    def _encode_waiting(self) -> None:
        if self._waiting:
            self._encoded.append(self._encoder._encode_grids(torch.cat(self._waiting)))
            self._waiting = []
