"""OmniZip: where much audio matters, more video stays (arXiv 2511.14582)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.audio_guided import AudioGuided, ClipSegments
from omniqa.pruning.contract import MediaTokens

if TYPE_CHECKING:
    from torch import Tensor

_NEIGHBOURS = 5


@dataclass(frozen=True)
class OmniZip(AudioGuided):
    """Audio by importance and anchors; video by a rate per 2 s chunk, its grids in turn by density and by change."""

    name: ClassVar[str] = "omnizip"
    paper: ClassVar[str] = "https://arxiv.org/abs/2511.14582"
    summary: ClassVar[str] = "the audio kept in a chunk says how much of its video stays"

    lo: Annotated[float | None, "lowest rate of a chunk with audio, set with hi; none: from rho_v"] = None
    hi: Annotated[float | None, "highest rate of a chunk with audio, set with lo; none: from rho_v"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lo is None and self.hi is None:
            return
        if self.lo is None or self.hi is None or not 0 <= self.lo <= self.hi <= 1:
            raise UsageError(f"omnizip: lo={self.lo} hi={self.hi} is not allowed; set both, 0 <= lo <= hi <= 1.")

    def bounds(self, rho_v: float) -> tuple[float, float]:
        """The lowest and the highest rate of a chunk with audio."""
        if self.lo is not None and self.hi is not None:
            return self.lo, self.hi
        lo = max(0.0, rho_v - 0.35) if rho_v <= 0.75 else 0.40 + 0.5 * (rho_v - 0.75)
        return lo, min(1.0, rho_v + 0.10)

    def segment(self, tokens: MediaTokens) -> ClipSegments:
        """Groups are chunks, blocks are grids; within a chunk every second one is compared with the one before."""
        import torch

        chunk = tokens.chunk.cpu()
        modality = tokens.modality.cpu()
        groups = int(chunk.max()) + 1
        audio, video = chunk[modality == AUDIO], chunk[modality == VIDEO]
        of_grid = video[:: tokens.tokens_per_grid].contiguous() if len(video) else video
        grids = torch.arange(len(of_grid))
        place = grids - torch.searchsorted(of_grid, of_grid)
        audio_counts = audio.bincount(minlength=groups).tolist()
        video_counts = (of_grid.bincount(minlength=groups) * tokens.tokens_per_grid).tolist()

        def rates(rho_v: float, kept: Sequence[int]) -> list[float]:
            return chunk_rates(rho_v, *self.bounds(rho_v), kept, audio_counts, video_counts)

        return ClipSegments(
            order=_by_importance(tokens),
            audio_group=audio,
            starts=grids * tokens.tokens_per_grid,
            compared=place % 2 == 1,
            block_group=of_grid,
            whole=torch.zeros(len(video), dtype=torch.bool),
            groups=groups,
            rates=rates,
            cost=lambda grid: -density_peaks(grid),
        )


def _by_importance(tokens: MediaTokens) -> Tensor:
    import torch

    if tokens.audio_attention is None:
        return torch.arange(0)
    return tokens.audio_attention.argsort(descending=True, stable=True).cpu()


def chunk_rates(
    rho_v: float, lo: float, hi: float, kept: Sequence[int], audio: Sequence[int], video: Sequence[int]
) -> list[float]:
    """The share of video to drop in each chunk (methods.md, omnizip, 3).

    Args:
        kept, audio, video: by chunk, the audio tokens kept, all audio tokens and all video tokens.
    """
    rates = [rho_v] * len(audio)
    heard = [c for c, count in enumerate(audio) if count]
    for c in heard:
        rates[c] = hi - (hi - lo) * (kept[c] / audio[c])

    def dropped(chunks: Sequence[int]) -> float:
        return sum(video[c] * rates[c] for c in chunks)

    def clamp(rate: float) -> float:
        return min(hi, max(lo, rate))

    fixed = {min(heard, key=rates.__getitem__), max(heard, key=rates.__getitem__)} if len(heard) > 2 else set()
    free = [c for c in heard if c not in fixed]
    goal = rho_v * sum(video[c] for c in heard) - dropped(sorted(fixed))
    scale = goal / dropped(free) if dropped(free) > 0 else 1.0
    for c in free:
        rates[c] = clamp(rates[c] * scale)
    free_video = sum(video[c] for c in free)
    if fixed and free_video:
        missing = (goal - dropped(free)) / free_video
        for c in free:
            rates[c] = clamp(rates[c] + missing)
    return rates


def density_peaks(grid: Tensor) -> Tensor:
    """(b, n) float32: density·δ of each token of `grid` (b, n, d), by DPC-kNN within its own grid (methods.md, 4)."""
    import torch

    from omniqa.pruning.ops import pairwise_cosine

    n = grid.shape[1]
    if n == 1:
        return torch.ones(grid.shape[:2], device=grid.device)
    similarity = pairwise_cosine(grid, grid)
    distance = 1 - (similarity + similarity.mT) / 2  # symmetric to the last digit, so that ties are ties
    itself = torch.eye(n, dtype=torch.bool, device=grid.device)
    nearest = distance.masked_fill(itself, torch.inf).topk(min(_NEIGHBOURS, n - 1), largest=False).values
    density = (-nearest.mean(-1)).exp()
    denser = density[:, None, :] > density[:, :, None]
    to_denser = distance.masked_fill(~denser, torch.inf).amin(-1)
    largest = distance.masked_fill(itself, -torch.inf).amax(-1)
    return density * torch.where(denser.any(-1), to_denser, largest)
