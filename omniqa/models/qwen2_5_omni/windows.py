"""The order in which a grid's patches are computed: windows of one shape together."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from omniqa.models.qwen2_5_omni.geometry import GEOMETRY

PATCH, MERGE, FRAMES = GEOMETRY.patch, GEOMETRY.spatial_merge, GEOMETRY.temporal_patch
CELL = GEOMETRY.token_pixels


@dataclass(frozen=True)
class WindowGroup:
    """Windows of one shape: `windows` of them with `size` patches each, from patch `start` on."""

    start: int
    windows: int
    size: int


@dataclass(frozen=True)
class WindowOrder:
    """The order in which one grid's tokens are computed.

    Attributes:
        cells: (tokens_per_grid,) merged token at each place.
        restore: (tokens_per_grid,) place of each merged token.
        positions: (4·tokens_per_grid, 2) row and column of each patch, in that order.
        groups: the windows, of one shape after the other.
    """

    cells: Tensor
    restore: Tensor
    positions: Tensor
    groups: tuple[WindowGroup, ...]

    @property
    def windows(self) -> int:
        """Number of windows."""
        return sum(group.windows for group in self.groups)


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
