"""OmniSift: video by what is new in it, audio by what a learned network finds in that video (arXiv 2602.04804)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens, Plan, check_reached, floor_count, solve_ratios
from omniqa.pruning.contract import AuxNetwork, Kept, MediaTokens, Method, Signal, Times, missing

if TYPE_CHECKING:
    from torch import Tensor, nn

PAIR = 2  # grids
PREFIX = "compressor."
FILE = "omnisift.safetensors"
_BLOCK_PAIRS = 32  # pairs of grids that are compared at a time: 64 grids, the default clip in one go
_BLOCK = 4096  # audio tokens that are compared at a time


@dataclass(frozen=True)
class OmniSift(Method[Plan]):
    """Grids go in pairs: what repeats leaves their video, and of their audio what the selector scores lowest.

    The selector (`audio_selector.AudioSelector`) is trained. At R = 1 nothing is pruned and none is needed.
    """

    name: ClassVar[str] = "omnisift"
    paper: ClassVar[str] = "https://arxiv.org/abs/2602.04804"
    summary: ClassVar[str] = "video that repeats leaves, and the audio that a trained selector scores lowest beside it"
    exact_plan: ClassVar[bool] = False

    rho_audio: Annotated[float, "share of audio that leaves; solved too where rho_v can't do"] = 0.3
    rho_v: Annotated[float | None, "share of video that leaves; none: solved for R"] = None
    selector: Annotated[str | None, "safetensors file of the selector; none: the checkpoint's, or one beside it"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rho_audio", "rho_v"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"omnisift: {name}={value} is not allowed; it must be from 0 to 1.")

    @property
    def needs(self) -> frozenset[Signal]:
        """The selector and the tokens' times, but nothing at R = 1."""
        if self.retention == 1:
            return frozenset()
        return frozenset({AuxNetwork(self.name, "selector", self.selector, PREFIX, FILE, _untrained), Times()})

    def plan(self, clip: ClipTokens, layers: int) -> Plan:
        """The target: the same round(R·n) tokens in every layer. How many they are depends on the tokens' times.

        Raises Unreachable, a UsageError, without video, where nothing is pruned.
        """
        if self.rho_v is None and not clip.grids:
            check_reached(self.name, self.retention, clip.n, clip.n, clip.n)
        return Plan(clip, (round(self.retention * clip.n),) * layers)

    def prune_input(self, media: MediaTokens, plan: Plan) -> Kept:
        """The video that does not repeat, and the audio that scores highest beside it.

        Raises Unreachable, a UsageError, where no ratio comes near to R.
        """
        import torch

        if self.retention == 1 or not len(media.video):
            return super().prune_input(media, plan)
        if media.time_s is None:
            raise missing(self, "MediaTokens.time_s")
        sizes = audio_of_pairs(media)
        rho_audio, rho_v = self._solve(sizes.tolist(), media.counts)
        kept_video = keep_video(media.video.unflatten(0, (-1, media.tokens_per_grid)), rho_v)
        kept_audio = None
        leaving = torch.tensor([audio_to_drop(m, rho_audio) for m in sizes.tolist()])
        # The same number of each grid survives: all pairs have some video, or none has.
        if leaving.any() and floor_count(rho_v * media.tokens_per_grid) < media.tokens_per_grid:
            kept_audio = self._keep_audio(media, sizes, sizes - leaving, kept_video)
        return Kept(kept_video.flatten(), kept_audio)

    def _solve(self, sizes: list[int], clip: ClipTokens) -> tuple[float, float]:
        """The ratios that come nearest to R; `sizes`: the audio tokens of each pair."""
        if self.rho_v is not None:
            return self.rho_audio, self.rho_v
        pairs_of_size = Counter(sizes)

        def total(rho_audio: float, rho_v: float) -> int:
            video = clip.grids * (clip.tokens_per_grid - floor_count(rho_v * clip.tokens_per_grid))
            return clip.n_audio + video - sum(audio_to_drop(m, rho_audio) * pairs for m, pairs in pairs_of_size.items())

        return solve_ratios(self.name, self.retention, clip.n, self.rho_audio, total)

    def _keep_audio(self, tokens: MediaTokens, sizes: Tensor, keep: Tensor, kept_video: Tensor) -> Tensor:
        """(n_A,) bool: the `keep` (pairs,) highest scores of each pair, and all before the first pair."""
        import torch

        if tokens.aux_network is None:
            raise missing(self, "MediaTokens.aux_network")
        before = len(tokens.audio) - int(sizes.sum())
        scores = audio_scores(tokens.aux_network, tokens, sizes, kept_video)
        pair = torch.arange(len(sizes)).repeat_interleave(sizes).to(scores.device)
        scores = scores[_first_of_equals(tokens.audio[before:], pair)]
        # Sorted by pair, then by score, then by index; a token's rank counts from 0 within its pair.
        order = scores.argsort(descending=True, stable=True)
        order = order[pair[order].argsort(stable=True)]
        rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        stays = (rank < keep.repeat_interleave(sizes)).to(scores.device)
        kept = torch.ones(len(tokens.audio), dtype=torch.bool, device=scores.device)
        kept[before:] = torch.zeros_like(stays).scatter_(0, order, stays)
        return kept


def _untrained(d: int) -> nn.Module:
    from omniqa.pruning.methods.omnisift.selector import AudioSelector

    return AudioSelector(d)


def audio_to_drop(m: int, rho_audio: float) -> int:
    """How many audio tokens leave a pair that has `m` of them, and video that survives."""
    return floor_count(rho_audio * m) if m >= 2 else 0


def audio_of_pairs(tokens: MediaTokens) -> Tensor:
    """(pairs,) long on the CPU: the audio tokens from a pair's first grid up to the next pair's, or the clip's end.

    What they do not count comes before the first grid: the audio tokens begin with it.
    """
    import torch

    assert tokens.time_s is not None
    modality = tokens.modality.cpu()
    starts = tokens.time_s[modality == VIDEO][:: PAIR * tokens.tokens_per_grid].contiguous()
    pair = torch.searchsorted(starts, tokens.time_s[modality == AUDIO], right=True) - 1
    return pair[pair >= 0].bincount(minlength=len(starts))


def repetition(video: Tensor) -> Tensor:
    """(grids, tokens_per_grid) float32: how much each token of `video` (grids, tokens_per_grid, d) repeats.

    The highest leave.
    In a pair's first grid, and a single last one, the cosine to the grid's mean; in its second the cosine to the same
    place in the first.
    """
    import torch

    # In blocks of whole pairs: the comparisons are in float32, and must not hold a long video three times over.
    return torch.cat([_repetition_of_pairs(block) for block in video.split(PAIR * _BLOCK_PAIRS)])


def _repetition_of_pairs(video: Tensor) -> Tensor:
    import torch

    from omniqa.pruning.ops import cosine

    first, second = video[::PAIR], video[1::PAIR]
    result = torch.empty(video.shape[:2], device=video.device)
    result[::PAIR] = cosine(first, first.float().mean(1, keepdim=True))
    result[1::PAIR] = cosine(second, first[: len(second)])
    return result


def keep_video(video: Tensor, rho_v: float) -> Tensor:
    """(grids, tokens_per_grid) bool: the tokens kept of `video` (grids, tokens_per_grid, d); ⌊ρ_v·n⌋ a grid leave."""
    import torch

    from omniqa.pruning.ops import lowest_of_each

    grids, tokens_per_grid = video.shape[:2]
    k = torch.full((grids,), floor_count(rho_v * tokens_per_grid), device=video.device)
    return ~lowest_of_each(-repetition(video), k)


def _first_of_equals(audio: Tensor, pair: Tensor) -> Tensor:
    """(n,) long: where the run of equal tokens of one pair begins that each of `audio` (n, d) stands in.

    Equal tokens must tie, and a matrix product's last digits may differ from row to row.
    """
    import torch

    neighbours = zip(audio[1:].split(_BLOCK), audio[:-1].split(_BLOCK), strict=True)
    begins = torch.cat([(x != y).any(1) for x, y in neighbours]) | (pair[1:] != pair[:-1])
    places = torch.arange(1, len(audio), device=audio.device)
    return torch.nn.functional.pad(torch.where(begins, places, 0).cummax(0).values, (1, 0))


def audio_scores(selector: nn.Module, tokens: MediaTokens, sizes: Tensor, kept_video: Tensor) -> Tensor:
    """float32: the selector's score, before the sigmoid, of the audio tokens from the first grid on; differentiable.

    Args:
        sizes: (pairs,), of audio_of_pairs.
        kept_video: (grids, tokens_per_grid) bool, of keep_video; each grid has some.
    """
    import torch

    audio = tokens.audio[len(tokens.audio) - int(sizes.sum()) :]
    video_sizes = torch.tensor([int(pair.sum()) for pair in kept_video.cpu().split(PAIR)])
    return selector(audio, sizes, tokens.video[kept_video.flatten()], video_sizes)
