"""FastV: one cut after layer 1, by what the prompt's last token attends to (arXiv 2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omniqa.pruning.budget import SLACK, ClipTokens, Plan, Unreachable
from omniqa.pruning.contract import LayerKept, LayerSignals, Method, Scores, Signal, missing

K = 2  # layers that hold all tokens


@dataclass(frozen=True)
class FastV(Method[Plan]):
    """All tokens in layers 0 and 1; from layer 2 on those with the highest attention in layer 1."""

    name: ClassVar[str] = "fastv"
    paper: ClassVar[str] = "https://arxiv.org/abs/2403.06764"
    summary: ClassVar[str] = "one cut after layer 1, by the prompt's last token's attention"

    @property
    def needs(self) -> frozenset[Signal]:
        """The attention of the prompt's last token."""
        return frozenset() if self.retention == 1 else frozenset({Scores("last")})

    def plan(self, clip: ClipTokens, layers: int) -> Plan:
        """m = round(n(RL - 2)/(L - 2)) tokens from layer 2 on, at least one; Unreachable, a UsageError, for R < 2/L."""
        if self.retention == 1 or clip.n == 0:
            return Plan.untouched(clip, layers)
        budget = self.retention * layers - K  # in layers that hold everything
        if budget < -SLACK or layers <= K:
            floor = min(1.0, K / layers)
            raise Unreachable(self.name, self.retention, nearest=floor, floor=floor)
        m = max(1, round(clip.n * budget / (layers - K)))
        return Plan(clip, (clip.n,) * K + (m,) * (layers - K))

    def prune_layer(self, layer: int, signals: LayerSignals, plan: Plan) -> LayerKept:
        """After layer 1 the highest scores."""
        from omniqa.pruning.ops import topk_indices

        if signals.scores is None:
            raise missing(self, "LayerSignals.scores")
        return LayerKept(topk_indices(signals.scores, plan.kept[layer + 1]))
