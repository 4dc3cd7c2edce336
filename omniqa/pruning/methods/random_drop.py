"""Random: any tokens stay, the baseline that every choice must beat (as in FastV's comparison, arXiv 2403.06764)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from omniqa.errors import UsageError
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.contract import Kept, MediaTokens, Method


@dataclass(frozen=True)
class RandomDrop(Method[Plan]):
    """Keeps round(R·n) tokens drawn at random, both modalities in one draw; the same for the same seed everywhere."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "https://arxiv.org/abs/2403.06764"
    summary: ClassVar[str] = "tokens drawn at random stay"

    seed: Annotated[int, "seed of the draw"] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"random: seed={self.seed} is not allowed; it must be from 0 to 2^63 - 1.")

    def plan(self, clip: ClipTokens, layers: int) -> Plan:
        """The same tokens in every layer."""
        return Plan(clip, (round(self.retention * clip.n),) * layers)

    def prune_input(self, media: MediaTokens, plan: Plan) -> Kept:
        """The first of a permutation drawn on the CPU, so that every device keeps the same tokens."""
        import torch

        drawn = torch.randperm(media.counts.n, generator=torch.Generator().manual_seed(self.seed))
        return media.keep(drawn[: plan.kept[0]].to(media.modality.device))
