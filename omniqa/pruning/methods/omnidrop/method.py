"""OmniDrop: tokens leave the decoder layer by layer, by what the question attends to (arXiv 2605.14458)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import (
    AttentionScope,
    AudioAttention,
    Kept,
    LayerKept,
    LayerSignals,
    MediaTokens,
    Method,
    Scores,
    Signal,
    missing,
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
from omniqa.pruning.ttm import TemporalMerge, VisionBlock
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
    audio_attention: Annotated[AttentionScope, "audio importance over the whole clip, or per 2 s window"] = "global"
    beta: Annotated[float, "steepness of the sigmoid"] = 20.0
    lam: Annotated[float, "weight λ of the distance in time in TDS"] = 0.2
    t_mid: Annotated[float | None, "the sigmoid's middle, in shares of the depth; none: the schedule's"] = None
    l_div: Annotated[int | None, "first layer that drops by TDS; none: the schedule's"] = None
    vision_block: VisionBlock = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "lam", "t_mid", "l_div", "vision_block"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"omnidrop: {name}={value} is not allowed; it must not be negative.")

    @property
    def needs(self) -> frozenset[Signal]:
        """Audio attention unless R is so high that the input level keeps all audio, and scores if layers drop."""
        if self.retention == 1:
            return frozenset()
        if not self.plp:
            return frozenset({AudioAttention(self.audio_attention)})
        scores = Scores("audio" if self.guidance == "audio" else self.query_scope)
        keeps_all_audio = nominal_t(self.retention) >= 1
        return frozenset({scores} if keeps_all_audio else {scores, AudioAttention(self.audio_attention)})

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
        if plan.keep_video == plan.clip.n_video:
            return None
        return TemporalMerge.at(plan.rho, plan.clip.tokens_per_grid, self.vision_block)

    def prune_input(self, media: MediaTokens, plan: OmniDropPlan) -> Kept:
        """Audio by importance, video by TTM, then thinning where the plan asks for it."""
        audio = None
        if plan.keep_audio < len(media.audio):
            if media.audio_attention is None:
                raise missing(self, "MediaTokens.audio_attention")
            audio = _highest(media.audio_attention, plan.keep_audio)
        rule = self.vision_rule(plan)
        return _thinned(Kept(None if rule is None else media.kept_by(rule), audio), media, plan)

    def prune_layer(self, layer: int, signals: LayerSignals, plan: OmniDropPlan) -> LayerKept:
        """All but plan.drops[layer] tokens: those leave by TDS from layer l_div on, before it by the lowest scores."""
        from omniqa.pruning.ops import drop_by_tds, drop_lowest

        if signals.scores is None:
            raise missing(self, "LayerSignals.scores")
        k = plan.drops[layer]
        droppable = signals.modality == VIDEO if self.guidance == "audio" else None
        if self.tds and layer >= plan.l_div:
            kept = drop_by_tds(signals.scores, signals.chunk, k, signals.max_chunk, self.lam, droppable)
            return LayerKept(kept)
        return LayerKept(drop_lowest(signals.scores, k, droppable))


def _highest(values: Tensor, k: int) -> Tensor:
    """(n,) bool: the k highest of `values` (n,)."""
    import torch

    from omniqa.pruning.ops import topk_indices

    return torch.zeros_like(values, dtype=torch.bool).index_fill_(0, topk_indices(values, k), True)


def _thinned(kept: Kept, media: MediaTokens, plan: OmniDropPlan) -> Kept:
    """`kept` thinned as the plan says: as one sequence, or each modality by itself."""
    import torch

    from omniqa.pruning.ops import subsample_evenly

    def spread(indices: Tensor, m: int) -> Tensor:
        return indices[subsample_evenly(m, len(indices), indices.device)]

    if plan.thin_to is None:
        return kept
    video = _at(media.places(VIDEO), kept.video, plan.keep_video)
    audio = _at(media.places(AUDIO), kept.audio, plan.keep_audio)
    if plan.thin_audio is None:
        return media.keep(spread(torch.cat([video, audio]).sort().values, plan.thin_to))
    return media.keep(torch.cat([spread(audio, plan.thin_audio), spread(video, plan.thin_to - plan.thin_audio)]))


def _at(places: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """(count,) the places that a mask keeps, so many of them; None keeps all."""
    from omniqa.pruning.ops import nonzero_static

    return places if mask is None else places[nonzero_static(mask, count)]
