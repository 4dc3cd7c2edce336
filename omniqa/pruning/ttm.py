"""Temporal token merging (DyCoke, arXiv 2411.15024; methods.md, TTM), a few groups of grids at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from omniqa.pruning.budget import floor_count
from omniqa.pruning.vision_rule import VisionRule

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 4  # grids that TTM looks at together
VisionBlock = Annotated[int | None, "vision block before which TTM decides; none: after the encoder"]
_BLOCK_GROUPS = 16  # groups that are compared at a time: 64 grids, the default clip in one go


@dataclass(frozen=True)
class TemporalMerge(VisionRule):
    """TTM that keeps `kept` tokens of every grid but a group's first.

    In each group g0 g1 g2 g3, g0 stays whole; of g1 and g2 stay the tokens least similar to g0's at the same place, of
    g3 those least similar to g2's, dropped tokens included.
    """

    window: ClassVar[int] = GROUP
    references: ClassVar[tuple[int, ...]] = (0, 0, 0, 2)

    kept: int

    @classmethod
    def at(cls, rho: float, tokens_per_grid: int, block: int | None = None) -> TemporalMerge:
        """TTM at rate ρ, which keeps ⌊(1-ρ)·n⌋ of a grid's n = tokens_per_grid tokens, decided before a block."""
        kept = floor_count((1 - rho) * tokens_per_grid)
        return cls(kept, block=block if kept < tokens_per_grid else None)

    def rho(self, tokens_per_grid: int) -> float:
        """The rate ρ at which it keeps as many of a grid's tokens."""
        return 1 - self.kept / tokens_per_grid

    def counts(self, grids: int, tokens_per_grid: int) -> tuple[int, ...]:
        """See VisionRule."""
        return tuple(min(self.kept, tokens_per_grid) if grid % GROUP else tokens_per_grid for grid in range(grids))

    def keep(self, grids: Tensor, represented: Tensor | None = None) -> Tensor:
        """See VisionRule."""
        import torch

        if represented is None:
            represented = torch.zeros(grids.shape[:2], dtype=torch.bool, device=grids.device)
        # In blocks of whole groups: the comparisons are in float32, and must not hold a long video three times over.
        size = _BLOCK_GROUPS * GROUP
        blocks = zip(grids.split(size), represented.split(size), strict=True)
        return torch.cat([_merge_groups(block, first_out, self.kept) for block, first_out in blocks])


def _merge_groups(video: Tensor, first_out: Tensor, kept: int) -> Tensor:
    """Which tokens stay of whole groups, the last of them perhaps short: (grids, tokens_per_grid) bool.

    Args:
        first_out: (grids, tokens_per_grid) bool, tokens that count as the most similar.
    """
    import torch

    from omniqa.pruning.ops import cosine

    keep = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device)
    # All groups at once for each comparison inside a group, on strided views.
    for later, earlier in ((1, 0), (2, 0), (3, 2)):
        grid = video[later::GROUP]
        similarity = cosine(grid, video[earlier::GROUP][: len(grid)]).masked_fill(first_out[later::GROUP], torch.inf)
        most_similar = similarity.argsort(dim=-1, stable=True)[:, kept:]
        keep[later::GROUP].scatter_(1, most_similar, False)
    return keep
