"""What omnizip and dash have in common: audio is chosen first, and says how much video stays where.

The audio tokens that stay are dominant ones and anchors (`anchors.py`). The video is pruned in *blocks*, each of
as many tokens as a grid; blocks belong to *groups*, stretches of time, and the audio kept in a group sets the rate of
its blocks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from omniqa.errors import UsageError
from omniqa.pruning.budget import ClipTokens, Plan, floor_count, solve_ratios
from omniqa.pruning.contract import AttentionScope, AudioAttention, Kept, MediaTokens, Method, Signal, missing

if TYPE_CHECKING:
    from torch import Tensor

    from omniqa.pruning.anchors import AudioChoice


@dataclass(frozen=True, eq=False)
class ClipSegments:
    """A clip cut into groups and blocks; tensors on the CPU.

    Attributes:
        order: (n_A,) long, the audio tokens by descending priority.
        audio_group: (n_A,) long.
        starts: (blocks,) long, the first video token of each block.
        compared: (blocks,) bool, blocks compared with the block before.
        block_group: (blocks,) long.
        whole: (n_V,) bool, video tokens that stay whatever the rate.
        groups: how many there are.
        rates: from ρ_v and the audio tokens kept in each group, the share of video to drop in each group.
        cost: of the blocks not compared, which tokens go last; see ops.keep_of_blocks.
    """

    order: Tensor
    audio_group: Tensor
    starts: Tensor
    compared: Tensor
    block_group: Tensor
    whole: Tensor
    groups: int
    rates: Callable[[float, Sequence[int]], list[float]]
    cost: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AudioGuided(Method[Plan]):
    """A method that chooses audio first and prunes video by it, at ratios ρ_a and ρ_v; ρ_v is solved for R."""

    exact_plan = False

    rho_audio: Annotated[float, "share of audio that leaves, anchors aside; solved too where rho_v can't do"] = 0.45
    rho_v: Annotated[float | None, "how strongly video is pruned; none: solved for R"] = None
    anchors: Annotated[float, "anchors, as a share of all audio tokens"] = 0.05
    g: Annotated[int, "tokens merged into an anchor, at most"] = 3
    audio_attention: Annotated[AttentionScope, "audio importance over the whole clip, or per 2 s window"] = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rho_audio", "rho_v", "anchors"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{self.name}: {name}={value} is not allowed; it must be from 0 to 1.")
        if self.g < 0:
            raise UsageError(f"{self.name}: g={self.g} is not allowed; it must not be negative.")

    @property
    def needs(self) -> frozenset[Signal]:
        """Audio attention, but nothing at R = 1."""
        return frozenset() if self.retention == 1 else frozenset({AudioAttention(self.audio_attention)})

    def plan(self, clip: ClipTokens, layers: int) -> Plan:
        """The target: the same round(R·n) tokens in every layer. How many they are depends on the tokens."""
        return Plan(clip, (round(self.retention * clip.n),) * layers)

    @abstractmethod
    def segment(self, tokens: MediaTokens) -> ClipSegments:
        """The clip's groups, blocks and audio priorities."""

    def prune_input(self, media: MediaTokens, plan: Plan) -> Kept:
        """Dominant audio and anchors, others merged into these, and the video that the audio leaves room for.

        Raises Unreachable, a UsageError, where no ratio comes near to R.
        """
        if self.retention == 1 or not len(media.modality):
            return super().prune_input(media, plan)
        if len(media.audio) and media.audio_attention is None:
            raise missing(self, "MediaTokens.audio_attention")
        import torch

        from omniqa.pruning.ops import keep_of_blocks

        segments = self.segment(media)
        choice, per_block = self._solve(segments, media.counts)
        device = media.modality.device
        kept_video = segments.whole.to(device)
        if len(segments.starts):
            starts, compared, k = segments.starts.to(device), segments.compared.to(device), per_block.to(device)
            kept_video = kept_video | keep_of_blocks(
                media.video, media.tokens_per_grid, starts, compared, k, segments.cost
            )
        places = choice.kept.to(device)
        kept_audio = torch.zeros(len(media.audio), dtype=torch.bool, device=device).index_fill_(0, places, True)
        if not len(choice.anchors):
            return Kept(kept_video, kept_audio)
        embeddings = media.audio[places]
        embeddings[torch.searchsorted(places, choice.anchors.to(device))] = self._merged(media, choice)
        return Kept(kept_video, kept_audio, audio_embeddings=embeddings)

    def _merged(self, tokens: MediaTokens, choice: AudioChoice) -> Tensor:
        from omniqa.pruning.anchors import merge_into_anchors

        return merge_into_anchors(tokens.audio, tokens.video, choice, self.g)

    def _solve(self, segments: ClipSegments, clip: ClipTokens) -> tuple[AudioChoice, Tensor]:
        """The audio choice and the tokens to keep of each block, at the ratios that come nearest to R."""
        import torch

        from omniqa.pruning.anchors import choose_audio

        blocks = segments.block_group.bincount(minlength=segments.groups).tolist()
        whole = int(segments.whole.sum())

        @lru_cache(maxsize=4)
        def audio_at(rho_audio: float) -> tuple[AudioChoice, list[int]]:
            choice = choose_audio(segments.order, rho_audio, self.anchors)
            return choice, segments.audio_group[choice.kept].bincount(minlength=segments.groups).tolist()

        def per_group(rho_audio: float, rho_v: float) -> list[int]:
            return [
                floor_count((1 - rate) * clip.tokens_per_grid) for rate in segments.rates(rho_v, audio_at(rho_audio)[1])
            ]

        def total(rho_audio: float, rho_v: float) -> int:
            video = sum(count * k for count, k in zip(blocks, per_group(rho_audio, rho_v), strict=True))
            return sum(audio_at(rho_audio)[1]) + whole + video

        if self.rho_v is None:
            rho_audio, rho_v = solve_ratios(self.name, self.retention, clip.n, self.rho_audio, total)
        else:
            rho_audio, rho_v = self.rho_audio, self.rho_v
        return audio_at(rho_audio)[0], torch.tensor(per_group(rho_audio, rho_v))[segments.block_group]
