"""DyCoke: temporal token merging on the video, audio untouched (arXiv 2411.15024)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from omniqa.errors import UsageError
from omniqa.pruning.budget import ClipTokens, Plan, check_reached, nearest
from omniqa.pruning.contract import Kept, MediaTokens, Method
from omniqa.pruning.ttm import TemporalMerge, VisionBlock
from omniqa.pruning.vision_rule import VisionRule


@dataclass(frozen=True)
class DyCokePlan(Plan):
    """The same tokens in every layer; rho: the TTM rate that leaves them."""

    rho: float


@dataclass(frozen=True)
class DyCoke(Method[DyCokePlan]):
    """TTM alone, at the rate ρ that comes nearest to R."""

    name: ClassVar[str] = "dycoke"
    paper: ClassVar[str] = "https://arxiv.org/abs/2411.15024"
    summary: ClassVar[str] = "video tokens that repeat an earlier grid leave; audio stays"

    rho: Annotated[float | None, "TTM rate; none: solved for R"] = None
    vision_block: VisionBlock = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho is not None and not 0 <= self.rho <= 1:
            raise UsageError(f"dycoke: rho={self.rho} is not allowed; it must be from 0 to 1.")
        if self.vision_block is not None and self.vision_block < 0:
            raise UsageError(f"dycoke: vision_block={self.vision_block} is not allowed; it must not be negative.")

    def plan(self, clip: ClipTokens, layers: int) -> DyCokePlan:
        """The exact counts, known ahead; Unreachable, a UsageError, where audio and first grids are too much for R."""

        def total(rho: float) -> int:
            return clip.n_audio + _video(clip, rho)

        if self.retention == 1 or clip.n == 0:
            return DyCokePlan(clip, (clip.n,) * layers, 0.0)
        rho = self.rho
        if rho is None:
            rho = nearest(0.0, 1.0, total, self.retention * clip.n)
            check_reached(self.name, self.retention, clip.n, total(rho), total(1.0))
        return DyCokePlan(clip, (total(rho),) * layers, rho)

    def vision_rule(self, plan: DyCokePlan) -> VisionRule | None:
        """TTM; None without video."""
        clip = plan.clip
        block = self.vision_block if clip.grids > 1 else None  # a single grid stays whole
        return TemporalMerge.at(plan.rho, clip.tokens_per_grid, block) if clip.grids else None

    def replan(self, clip: ClipTokens, layers: int, rule: VisionRule) -> DyCokePlan | None:
        """The counts that TTM at the rule's rate leaves."""
        if not isinstance(rule, TemporalMerge) or rule.kept > clip.tokens_per_grid:
            return None
        rho = rule.rho(clip.tokens_per_grid)
        return DyCokePlan(clip, (clip.n_audio + _video(clip, rho),) * layers, rho)

    def prune_input(self, media: MediaTokens, plan: DyCokePlan) -> Kept:
        """All audio, and the video tokens that TTM keeps."""
        rule = self.vision_rule(plan)
        return Kept(video=None if rule is None else media.kept_by(rule))


def _video(clip: ClipTokens, rho: float) -> int:
    """Video tokens that TTM at rate ρ keeps."""
    return sum(TemporalMerge.at(rho, clip.tokens_per_grid).counts(clip.grids, clip.tokens_per_grid))
