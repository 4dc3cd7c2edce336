"""OmniDrop: tokens leave the decoder layer by layer, by what the question attends to (arXiv 2605.14458)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import (
    AudioAttention,
    Kept,
    LayerSignals,
    MediaTokens,
    Method,
    ScoreRows,
)
from omniqa.pruning.methods.omnidrop.schedule import (
    Curve,
    Guidance,
    OmniDropPlan,
    ScheduleKind,
    ScheduleOptions,
    nominal_t,
    solve_omnidrop,
)
from omniqa.pruning.ttm import TemporalMerge
from omniqa.pruning.vision_rule import VisionRule

if TYPE_CHECKING:
    from torch import Tensor


QueryScope = Literal["prompt", "question"]


@dataclass(frozen=True)
class OmniDrop(Method[OmniDropPlan]):
    """OmniDrop (methods.md, omnidrop).

    Input level: the audio tokens with the highest importance, the video tokens that TTM keeps. Layer level (PLP):
    after layer l the share p_l leaves, the lowest scores first, from layer l_div on with regard to time (TDS).
    """

    name: ClassVar[str] = "omnidrop"
    paper: ClassVar[str] = "https://arxiv.org/abs/2605.14458"
    summary: ClassVar[str] = "drops tokens in every layer, guided by the question's attention"

    schedule: Annotated[ScheduleKind, "rates solved to land on R, or the paper's (its models and R alone)"] = "exact"
    curve: Annotated[Curve, "how the drop rate runs over the layers; exp is the paper's ablation"] = "sigmoid"
    tds: Annotated[bool, "drop with regard to time from layer l_div on; false: the lowest scores alone"] = True
    plp: Annotated[bool, "drop after layers; false: the input level alone, brought to R"] = True
    guidance: Annotated[Guidance, "whose attention scores tokens; audio: audio's, and video alone leaves"] = "text"
    query_scope: Annotated[QueryScope, "rows that score: all text after the media, or the user's words"] = "prompt"
    audio_attention: Annotated[AudioAttention, "audio importance over the whole clip, or per 2 s window"] = "global"
    beta: Annotated[float, "steepness of the sigmoid"] = 20.0
    lam: Annotated[float, "weight λ of the distance in time in TDS"] = 0.2
    t_mid: Annotated[float | None, "the sigmoid's middle, in shares of the depth; none: the schedule's"] = None
    l_div: Annotated[int | None, "first layer that drops by TDS; none: the schedule's"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("beta", self.beta), ("lam", self.lam), ("t_mid", self.t_mid), ("l_div", self.l_div)):
            if value is not None and value < 0:
                raise UsageError(f"omnidrop: {name}={value} is not allowed; it must not be negative.")

    @property
    def audio_importance(self) -> AudioAttention | None:
        """The softmax asked for; None where R is so high that the input level keeps all audio."""
        keeps_all = self.retention == 1 or (self.plp and nominal_t(self.retention) >= 1)
        return None if keeps_all else self.audio_attention

    @property
    def query_rows(self) -> ScoreRows:
        """The audio rows for guidance="audio", else query_scope's."""
        return "audio" if self.guidance == "audio" else self.query_scope

    def plan(self, clip: ClipTokens, layers: int) -> OmniDropPlan:
        """The exact counts, known ahead; see schedule.solve_omnidrop for the errors."""
        return solve_omnidrop(clip, layers, self.retention, self._schedule())

    def replan(self, clip: ClipTokens, layers: int, rule: VisionRule) -> OmniDropPlan | None:
        """The schedule solved for what TTM at the rule's rate leaves."""
        if not isinstance(rule, TemporalMerge) or rule.kept > clip.tokens_per_grid:
            return None
        rho = rule.rho(clip.tokens_per_grid)
        return solve_omnidrop(clip, layers, self.retention, replace(self._schedule(), rho=rho))

    def _schedule(self) -> ScheduleOptions:
        return ScheduleOptions(self.schedule, self.curve, self.plp, self.guidance, self.beta, self.t_mid, self.l_div)

    def vision_rule(self, plan: OmniDropPlan) -> VisionRule | None:
        """TTM; None where it keeps all video."""
        return TemporalMerge.at(plan.rho, plan.clip.tokens_per_grid) if plan.keep_video < plan.clip.n_video else None

    def prune_input(self, tokens: MediaTokens, plan: OmniDropPlan) -> Kept:
        """Audio by importance, video by TTM, then thinning where the plan asks for it."""
        import torch

        from omniqa.pruning.ops import nonzero_static

        keep = torch.ones_like(tokens.modality, dtype=torch.bool)
        if plan.keep_audio < len(tokens.audio):
            keep[nonzero_static(tokens.modality == AUDIO, len(tokens.audio))] = _most_important(tokens, plan.keep_audio)
        rule = self.vision_rule(plan)
        if rule is not None:
            keep[nonzero_static(tokens.modality == VIDEO, tokens.n_video)] = tokens.kept_by(rule)
        return Kept(_thinned(nonzero_static(keep, plan.keep_audio + plan.keep_video), tokens.modality, plan))

    def prune_layer(self, layer: int, alive: LayerSignals, plan: OmniDropPlan) -> Tensor:
        """All but plan.drops[layer] tokens: those leave by TDS from layer l_div on, before it by the lowest scores."""
        from omniqa.pruning.ops import drop_by_tds, drop_lowest

        k = plan.drops[layer]
        droppable = alive.modality == VIDEO if self.guidance == "audio" else None
        if self.tds and layer >= plan.l_div:
            return drop_by_tds(alive.scores, alive.chunk, k, alive.max_chunk, self.lam, droppable)
        return drop_lowest(alive.scores, k, droppable)


def _most_important(tokens: MediaTokens, k: int) -> Tensor:
    """(n_audio,) bool: the k audio tokens of the highest importance."""
    import torch

    from omniqa.pruning.ops import topk_indices

    if tokens.audio_importance is None:
        raise ValueError("omnidrop needs MediaTokens.audio_importance, as its property audio_importance says")
    keep = torch.zeros_like(tokens.audio_importance, dtype=torch.bool)
    return keep.index_fill_(0, topk_indices(tokens.audio_importance, k), True)


def _thinned(kept: Tensor, modality: Tensor, plan: OmniDropPlan) -> Tensor:
    """`kept`, ascending indices, thinned as the plan says: as one sequence, or each modality by itself."""
    import torch

    from omniqa.pruning.ops import nonzero_static, subsample_evenly

    def spread(indices: Tensor, m: int) -> Tensor:
        return indices[subsample_evenly(m, len(indices), indices.device)]

    if plan.thin_to is None:
        return kept
    if plan.thin_audio is None:
        return spread(kept, plan.thin_to)
    is_audio = modality[kept] == AUDIO
    audio = spread(kept[nonzero_static(is_audio, plan.keep_audio)], plan.thin_audio)
    video = spread(kept[nonzero_static(~is_audio, plan.keep_video)], plan.thin_to - plan.thin_audio)
    return torch.cat([audio, video]).sort().values
