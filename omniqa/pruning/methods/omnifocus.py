"""OmniFocus: what the question is about decides which chunks keep more tokens (arXiv 2607.03050)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from omniqa.errors import UsageError
from omniqa.models.base import AUDIO, VIDEO
from omniqa.pruning.budget import ClipTokens, Plan, bisect, floor_count
from omniqa.pruning.contract import Kept, MediaTokens, Method, QueryEmbeddings, Signal, missing

if TYPE_CHECKING:
    from torch import Tensor

_LEAST, _SPAN = 0.35, 0.40  # drop rates of the chunks nearest to the question, and how much higher others are


@dataclass(frozen=True)
class OmniFocusPlan(Plan):
    """The same tokens in every layer; keep_video, keep_audio: how many of each modality."""

    keep_video: int
    keep_audio: int


@dataclass(frozen=True)
class OmniFocus(Method[OmniFocusPlan]):
    """OmniFocus (methods.md, omnifocus), training-free; by a digest of the paper, which has no public code."""

    name: ClassVar[str] = "omnifocus"
    paper: ClassVar[str] = "https://arxiv.org/abs/2607.03050"
    summary: ClassVar[str] = "chunks like the question keep more; tokens like the other modality, and unlike their own"

    r_video: Annotated[float | None, "share of video kept; none: the retention"] = None
    r_audio: Annotated[float | None, "share of audio kept; none: the retention"] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("r_video", self.r_video), ("r_audio", self.r_audio)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"omnifocus: {name}={value} is not allowed; it must be from 0 to 1.")

    @property
    def needs(self) -> frozenset[Signal]:
        """The question's embeddings; nothing at R = 1."""
        return frozenset() if self.retention == 1 else frozenset({QueryEmbeddings()})

    def plan(self, clip: ClipTokens, layers: int) -> OmniFocusPlan:
        """round(R·n) tokens of each modality, in every layer."""
        keep_video, keep_audio = clip.n_video, clip.n_audio
        if self.retention < 1:
            keep_video = round((self.retention if self.r_video is None else self.r_video) * clip.n_video)
            keep_audio = round((self.retention if self.r_audio is None else self.r_audio) * clip.n_audio)
        return OmniFocusPlan(clip, (keep_video + keep_audio,) * layers, keep_video, keep_audio)

    def prune_input(self, media: MediaTokens, plan: OmniFocusPlan) -> Kept:
        """Each modality by itself, chunk by chunk."""
        if self.retention == 1:
            return super().prune_input(media, plan)
        if media.query is None:
            raise missing(self, "MediaTokens.query")
        direction = query_direction(media.query)
        video = media.video, media.chunk[media.places(VIDEO)]
        audio = media.audio, media.chunk[media.places(AUDIO)]
        return Kept(
            keep_modality(video, audio, direction, plan.keep_video),
            keep_modality(audio, video, direction, plan.keep_audio),
        )


Tokens = tuple["Tensor", "Tensor"]
"""(n, d) embeddings, and (n,) their chunks."""


def query_direction(query: Tensor) -> Tensor:
    """(d,) float32: the normalised mean of the normalised embeddings (words, d) of a question."""
    from torch.nn.functional import normalize

    return normalize(normalize(query.float(), dim=-1).mean(0), dim=0)


def keep_modality(own: Tokens, other: Tokens, direction: Tensor, total: int) -> Tensor:
    """(n,) bool: the `total` tokens of a modality that are kept."""
    import torch

    from omniqa.pruning.ops import cosine

    tokens, chunk = own
    keep = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    if not len(tokens):
        return keep
    places = [(chunk == number).nonzero().flatten() for number in chunk.unique().tolist()]
    nearness = torch.stack([cosine(tokens[place], direction).amax() for place in places])
    counts = chunk_counts(drop_rates(nearness), [len(place) for place in places], total)
    for place, count in zip(places, counts, strict=True):
        beside = other[0][other[1] == chunk[place[0]]]
        keep[place[choose(tokens[place], beside, count)]] = True
    return keep


def drop_rates(nearness: Tensor) -> list[float]:
    """The share of each chunk that is dropped, before all are shifted alike; lowest near the question."""
    farness = 1 - nearness.softmax(0)
    low, high = farness.amin(), farness.amax()
    spread = (farness - low) / (high - low) if high > low else farness - low
    return [_LEAST + _SPAN * part for part in spread.tolist()]


def chunk_counts(rates: list[float], sizes: list[int], total: int) -> list[int]:
    """How many tokens of each chunk are kept: `total` in all, by rates shifted alike, then by largest remainder."""

    def kept(shift: float) -> list[float]:
        return [size * (1 - min(1.0, max(0.0, rate + shift))) for rate, size in zip(rates, sizes, strict=True)]

    shares = kept(bisect(-1.0, 1.0, lambda shift: sum(kept(shift)) <= total)[1])
    counts = [min(size, floor_count(share)) for share, size in zip(shares, sizes, strict=True)]
    # Rounded, so that equal remainders tie.
    by_remainder = sorted(range(len(counts)), key=lambda number: round(counts[number] - shares[number], 9))
    for number in by_remainder[: total - sum(counts)]:
        counts[number] += 1
    return counts


def choose(tokens: Tensor, beside: Tensor, count: int) -> Tensor:
    """(count,) long: the tokens kept of one modality in one chunk.

    Half of them, rounded down, are most like the mean of the other modality beside them; the others are least like the
    mean of their own. Without the other modality, all are of the second kind.

    Args:
        tokens: (m, d) of the chunk.
        beside: (·, d) the other modality's tokens of the chunk.
        count: at most m.
    """
    import torch

    from omniqa.pruning.ops import cosine

    alike = tokens.new_zeros(0, dtype=torch.long)
    if len(beside):
        likeness = cosine(tokens, beside.float().mean(0))
        alike = likeness.argsort(descending=True, stable=True)[: count // 2]
    unlike = (1 - cosine(tokens, tokens.float().mean(0))).index_fill(0, alike, -torch.inf)
    return torch.cat([alike, unlike.argsort(descending=True, stable=True)[: count - len(alike)]])
