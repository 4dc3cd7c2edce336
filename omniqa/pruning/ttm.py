"""Temporal token merging as a choice of video: group by group, so that a long video never stands whole in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from omniqa.pruning.budget import floor_count
from omniqa.pruning.contract import VideoChoice

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 4  # grids that TTM looks at together


def ttm_counts(grids: int, tokens_per_grid: int, rho: float) -> tuple[int, ...]:
    """(grids,) tokens that TTM at rate ρ keeps of each grid: all of a group's first, ⌊(1-ρ)·n⌋ of another's n."""
    kept = floor_count((1 - rho) * tokens_per_grid)
    return tuple(kept if grid % GROUP else tokens_per_grid for grid in range(grids))


@dataclass(frozen=True)
class TemporalMerge(VideoChoice):
    """TTM that keeps `kept` tokens of every grid but a group's first (methods.md, TTM)."""

    window: ClassVar[int] = GROUP

    kept: int

    @classmethod
    def at(cls, rho: float, tokens_per_grid: int) -> TemporalMerge:
        """TTM at rate ρ, on grids of tokens_per_grid tokens."""
        return cls(floor_count((1 - rho) * tokens_per_grid))

    def keep(self, grids: Tensor) -> Tensor:
        """See VideoChoice."""
        from omniqa.pruning.ops import temporal_merge

        return temporal_merge(grids, self.kept)
