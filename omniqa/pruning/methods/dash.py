"""DASH: the clip is cut where its sound changes, and pruned segment by segment (arXiv 2603.15685)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from omniqa.pruning.audio_guided import AudioGuided, ClipSegments
from omniqa.pruning.contract import MediaTokens

if TYPE_CHECKING:
    from torch import Tensor

_CUT_BELOW = 0.4  # cosine of neighbouring audio tokens
_MIN_SEGMENT = 30  # audio tokens
_NEIGHBOURS = 5
_SPREADS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
_BLOCK = 4096  # audio tokens that are held in float32 at a time


@dataclass(frozen=True)
class Dash(AudioGuided):
    """Audio by change, uniqueness and importance, and anchors; video by a rate per segment, in blocks."""

    name: ClassVar[str] = "dash"
    paper: ClassVar[str] = "https://arxiv.org/abs/2603.15685"
    summary: ClassVar[str] = "segments of the sound; the audio kept in one says how much of its video stays"

    def segment(self, tokens: MediaTokens) -> ClipSegments:
        """Groups are segments; every second block of a segment is compared with the one before."""
        import torch

        n_audio, n_video, tokens_per_grid = len(tokens.audio), len(tokens.video), tokens.tokens_per_grid
        similarity = neighbour_cosines(tokens.audio)
        below = (similarity < _CUT_BELOW).nonzero().flatten() + 1
        audio_ends = segment_ends(below.tolist(), n_audio)
        video_ends = [end * n_video // n_audio for end in audio_ends] if n_audio else [n_video]
        spans = list(pairwise([0, *video_ends]))
        audio_counts = [stop - start for start, stop in pairwise([0, *audio_ends])]
        whole = torch.zeros(n_video, dtype=torch.bool)
        starts, compared, block_group = [], [], []
        for group, (start, stop) in enumerate(spans):
            if n_audio and stop - start < 2 * tokens_per_grid:
                whole[start:stop] = True
                continue
            blocks = torch.arange((stop - start) // tokens_per_grid if tokens_per_grid else 0)
            starts.append(start + blocks * tokens_per_grid)
            compared.append(blocks % 2 == 1)
            block_group.append(torch.full_like(blocks, group))
        none = torch.arange(0)
        return ClipSegments(
            order=_by_priority(tokens, similarity),
            audio_group=torch.searchsorted(torch.tensor(audio_ends), torch.arange(n_audio), right=True),
            starts=torch.cat([none, *starts]),
            compared=torch.cat([none.bool(), *compared]),
            block_group=torch.cat([none, *block_group]),
            whole=whole,
            groups=len(spans),
            rates=lambda rho_v, kept: segment_rates(rho_v, kept, audio_counts),
            cost=mean_knn_similarity,
        )


def segment_ends(below: Sequence[int], n_audio: int) -> list[int]:
    """Where the segments end, n_audio last: before those of `below`, ascending, that leave a segment 30 tokens."""
    ends = []
    at = bisect_left(below, _MIN_SEGMENT)
    while at < len(below):
        ends.append(below[at])
        at = bisect_left(below, below[at] + _MIN_SEGMENT)
    return [*ends, n_audio]


def segment_rates(rho_v: float, kept: Sequence[int], audio: Sequence[int]) -> list[float]:
    """The share of video to drop in each segment, by the audio tokens kept there and all audio tokens there."""
    if not any(audio):
        return [max(0.35, rho_v - 0.15)]
    return [min(0.95, max(0.1, rho_v + 0.1 * (0.5 - k / n))) for k, n in zip(kept, audio, strict=True)]


def neighbour_cosines(audio: Tensor) -> Tensor:
    """(n_A - 1,) float32: the cosine of each audio token but the first to the one before."""
    import torch

    from omniqa.pruning.ops import cosine

    later, earlier = audio[1:].split(_BLOCK), audio[:-1].split(_BLOCK)
    return torch.cat([cosine(x, y) for x, y in zip(later, earlier, strict=True)])


def _by_priority(tokens: MediaTokens, similarity: Tensor) -> Tensor:
    """(n_A,) long on the CPU: the audio tokens by descending change, uniqueness and importance."""
    import torch

    a = tokens.audio_attention
    if a is None or not len(a):
        return torch.arange(0)
    change = torch.cat([torch.ones_like(a[:1]), ((1 - similarity) / 2).clamp(0, 1)])
    importance = torch.where(a.max() > 0, a / a.max(), 0.0)
    priority = 0.4 * change + 0.3 * uniqueness(tokens.audio) + 0.3 * importance
    return priority.argsort(descending=True, stable=True).cpu()


def uniqueness(audio: Tensor) -> Tensor:
    """(n_A,) float32: how far a token is from the mean, over the channels that vary least (methods.md, 2)."""
    import torch

    variance = torch.cat([channels.float().var(0, correction=0) for channels in audio.split(256, dim=1)])
    channels = variance.argsort(stable=True)[: audio.shape[1] // 2].sort().values

    def normalised(rows: Tensor) -> Tensor:
        return torch.nn.functional.normalize(rows[:, channels].float(), dim=1)

    mean = torch.stack([normalised(rows).sum(0) for rows in audio.split(_BLOCK)]).sum(0) / len(audio)
    far = torch.cat([(normalised(rows) - mean).square().sum(1) for rows in audio.split(_BLOCK)])
    likeness = torch.stack([(-far / (2 * spread)).exp() for spread in _SPREADS]).sum(0)
    return 1 - likeness / likeness.max()


def mean_knn_similarity(block: Tensor) -> Tensor:
    """(b, n) float32: the mean of each token's highest cosines to others of its block; `block`: (b, n, d)."""
    import torch

    from omniqa.pruning.ops import pairwise_cosine

    n = block.shape[1]
    if n == 1:
        return torch.zeros(block.shape[:2], device=block.device)
    itself = torch.eye(n, dtype=torch.bool, device=block.device)
    return pairwise_cosine(block, block).masked_fill(itself, -torch.inf).topk(min(_NEIGHBOURS, n - 1)).values.mean(-1)
