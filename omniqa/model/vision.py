"""Drives the vision encoder: frames in, embeddings out, a batch of grids at a time.

Every temporal grid (two frames) is encoded independently of the others, full-attention blocks included, so grids
batch freely and activations stay bounded by the batch. Windows of one shape stand together in the token order, so
window attention is at most four dense calls a block: inner windows, right edge, lower edge, corner.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from omniqa.media.sampling import CELL
from omniqa.model.attention import Attention, rotate

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
PATCH, MERGE, FRAMES = 14, 2, 2
BATCH_PATCHES = 8192


@dataclass(frozen=True)
class WindowGroup:
    """Windows of one shape: `windows` of them with `size` patches each, from patch `start` on."""

    start: int
    windows: int
    size: int


@dataclass(frozen=True)
class WindowOrder:
    """The order in which one grid's tokens are computed.

    cells: (hw,) merged token at each place.
    restore: (hw,) place of each merged token.
    positions: (4·hw, 2) row and column of each patch, in that order.
    groups: the windows, of one shape after the other.
    """

    cells: Tensor
    restore: Tensor
    positions: Tensor
    groups: tuple[WindowGroup, ...]


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached here must serve training, too, whoever asks first
def window_order(rows: int, cols: int, window: int) -> WindowOrder:
    """Order `rows` × `cols` merged tokens by windows of `window` × `window`, windows of one shape together."""
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    row, col = row.flatten(), col.flatten()
    height = (rows - row // window * window).clamp(max=window)
    width = (cols - col // window * window).clamp(max=window)
    shape = height * (window + 1) + width
    index = row // window * -(-cols // window) + col // window
    cells = torch.tensor(sorted(range(rows * cols), key=lambda i: (-int(shape[i]), int(index[i]), i)))

    groups, start = [], 0
    for code in sorted(set(shape.tolist()), reverse=True):
        size = (code // (window + 1)) * (code % (window + 1))
        windows = int((shape == code).sum()) // size
        groups.append(WindowGroup(start, windows, size * MERGE**2))
        start += windows * size * MERGE**2
    corner = torch.stack([row[cells], col[cells]], dim=-1)[:, None] * MERGE
    inside = torch.cartesian_prod(torch.arange(MERGE), torch.arange(MERGE))
    return WindowOrder(cells, cells.argsort(), (corner + inside).flatten(0, 1), tuple(groups))


def patchify(frames: Tensor) -> Tensor:
    """Cut normalised frames into patches, merged token by merged token.

    frames: (grids·2, H, W, 3), sides multiples of 28. Returns (grids, hw, 4, 1176): of each merged token its four
    patches, each by channel, frame, row and column.
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

    @torch.inference_mode()
    def encode(self, frames: Any, progress: Callable[[float], None] = lambda share: None) -> Tensor:
        """Encode uint8 frames (F, H, W, 3), F even, sides multiples of 28.

        Returns (F/2, hw, d) embeddings in the decoder's width, tokens of a grid row by row.
        """
        grids = []
        for batch in self._batches(torch.from_numpy(frames)):
            grids.append(self._encode_grids(batch))
            progress(sum(map(len, grids)) * FRAMES / len(frames))
        return torch.cat(grids)

    def _batches(self, frames: Tensor) -> Iterator[Tensor]:
        patches = frames.shape[1] * frames.shape[2] // PATCH**2
        yield from frames.split(FRAMES * max(1, BATCH_PATCHES // patches))

    def _encode_grids(self, frames: Tensor) -> Tensor:
        order = window_order(frames.shape[1] // CELL, frames.shape[2] // CELL, self.window)
        pixels = (frames.to(self._mean.device, torch.float32) - self._mean) / self._std
        patches = patchify(pixels)[:, order.cells].flatten(1, 2).to(self._patch_weight.dtype)
        x = patches @ self._patch_weight.T
        rotary = self._rotary(order.positions.to(x.device))
        for index, block in enumerate(self.visual.blocks):
            groups = (WindowGroup(0, 1, x.shape[1]),) if index in self.full else order.groups
            x = x + self._attend(block.attn, block.norm1(x), rotary, groups)
            x = x + block.mlp(block.norm2(x))
        merged = self.visual.merger(x.flatten(0, 1)).view(len(x), len(order.cells), -1)
        return merged[:, order.restore.to(x.device)]

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (patches, 1, D), float32: the first half of a head turns by row, the second by column."""
        size = self.visual.config.hidden_size // self.heads
        frequencies = 1e4 ** (-torch.arange(0, size // 2, 2, device=positions.device).float() / (size // 2))
        angle = (positions[:, :, None] * frequencies).flatten(1).repeat(1, 2)[:, None]
        return angle.cos(), angle.sin()

    def _attend(
        self, attention: Any, x: Tensor, rotary: tuple[Tensor, Tensor], groups: tuple[WindowGroup, ...]
    ) -> Tensor:
        grids, patches, width = x.shape
        q, k, v = (
            project(x).view(grids, patches, self.heads, -1) for project in (attention.q, attention.k, attention.v)
        )
        q, k = (rotate(x.float(), *rotary).to(x.dtype) for x in (q, k))
        out = torch.empty_like(q)
        for group in groups:
            place = slice(group.start, group.start + group.windows * group.size)
            window = (x[:, place].reshape(-1, group.size, *x.shape[2:]) for x in (q, k, v))
            out[:, place] = self.attention.dense(*window).reshape(grids, -1, *q.shape[2:])
        return attention.proj(out.view(grids, patches, width))
