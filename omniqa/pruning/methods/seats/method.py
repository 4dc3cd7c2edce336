"""SEATS: diverse tokens enter, three drops in the decoder's middle, no audio or video in its last layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import (
    AudioAttention,
    DropPoint,
    Kept,
    LayerKept,
    LayerSignals,
    MediaTokens,
    Method,
    Scores,
    Signal,
    VisionAttention,
    missing,
)
from omniqa.pruning.methods.seats import schedule
from omniqa.pruning.methods.seats.schedule import SeatsPlan


@dataclass(frozen=True)
class Seats(Method[SeatsPlan]):
    """SEATS (methods.md, seats), training-free.

    Stage I: of each window the most diverse tokens, weighted by the attention that they receive in the encoder. Stage
    II: three drops, by the attention of the prompt's last token, shared out over the windows. Stage III: after layer
    H - 1 no audio or video is left. What is dropped leaves the caches of all layers before, too.
    """

    name: ClassVar[str] = "seats"
    paper: ClassVar[str] = "https://arxiv.org/abs/2605.20035"
    summary: ClassVar[str] = "diverse tokens enter; three drops by the prompt's attention; none in the last layers"
    exact_plan: ClassVar[bool] = False
    drop_point: ClassVar[DropPoint] = "output"

    @property
    def needs(self) -> frozenset[Signal]:
        """Both encoders' attention inside windows, and that of the prompt's last token; nothing at R = 1."""
        if self.retention == 1:
            return frozenset()
        return frozenset({AudioAttention("window"), VisionAttention(), Scores("last")})

    def plan(self, clip: ClipTokens, layers: int) -> SeatsPlan:
        """The targets; Unreachable, a UsageError, above the ceiling H/L or if the counts miss R by over 0.01."""
        return schedule.plan_seats(clip, self.retention, layers)

    def prune_input(self, media: MediaTokens, plan: SeatsPlan) -> Kept:
        """Stage I, each modality by itself."""
        if plan.removal is None:
            return super().prune_input(media, plan)
        from omniqa.pruning.methods.seats.selection import keep_of_windows

        video = audio = None
        if len(media.video):
            if media.video_attention is None:
                raise missing(self, "MediaTokens.video_attention")
            size = schedule.GRIDS * media.tokens_per_grid
            video = keep_of_windows(media.video, media.video_attention, size, plan.r_video)
        if len(media.audio):
            if media.audio_attention is None:
                raise missing(self, "MediaTokens.audio_attention")
            audio = keep_of_windows(media.audio, media.audio_attention, schedule.AUDIO, plan.r_audio)
        return Kept(video, audio)

    def prune_layer(self, layer: int, signals: LayerSignals, plan: SeatsPlan) -> LayerKept:
        """Stage II after the drop layers; stage III after the last of all."""
        import torch

        from omniqa.pruning.methods.seats.selection import keep_of_layer

        if layer == plan.removal:
            return LayerKept(torch.arange(0, device=signals.modality.device), prune_caches=True)
        if signals.scores is None:
            raise missing(self, "LayerSignals.scores")
        number = plan.drop_layers.index(layer)
        count = {kind: int((signals.modality == kind).sum()) for kind in (VIDEO, AUDIO)}
        k_video = schedule.kept_count(count[VIDEO], plan.keep_video[number])
        k_audio = schedule.kept_count(count[AUDIO], plan.keep_audio[number])
        return LayerKept(keep_of_layer(signals.scores, signals.modality, k_video, k_audio), prune_caches=True)
