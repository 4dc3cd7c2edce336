"""Temporal token merging as a choice of video: group by group, so that a long video never stands whole in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from omniqa.pruning.base import VideoChoice
from omniqa.pruning.schedule import GROUP, floor_count

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TemporalMerge(VideoChoice):
    """TTM that keeps `kept` tokens of every grid but a group's first (methods.md, TTM)."""

    window: ClassVar[int] = GROUP

    kept: int

    @classmethod
    def at(cls, rho: float, hw: int) -> TemporalMerge:
        """TTM at rate ρ, on grids of hw tokens."""
        return cls(floor_count((1 - rho) * hw))

    def keep(self, grids: Tensor) -> Tensor:
        """See VideoChoice."""
        from omniqa.pruning.selection import temporal_merge

        return temporal_merge(grids, self.kept)
