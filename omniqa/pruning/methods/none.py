"""Full tokens: the model as it is, which every other method is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.pruning.contract import Method


@dataclass(frozen=True)
class NoPruning(Method[Plan]):
    """Drops nothing, whatever retention is asked; plan.retention is 1."""

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.20215"
    summary: ClassVar[str] = "full tokens, the untouched model"

    @property
    def target(self) -> float:
        """1, whatever was asked."""
        return 1.0

    def plan(self, clip: ClipTokens, layers: int) -> Plan:
        """Every token in every layer."""
        return Plan.untouched(clip, layers)
