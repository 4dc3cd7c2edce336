"""How often the evidence of answers points to the true spans, with chance beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

Span = tuple[float, float]  # seconds


@dataclass(frozen=True)
class EvidenceHit:
    """One question's evidence against its true span.

    Attributes:
        top: whether the strongest chunk touches the span. top3: whether one of the three strongest does.
        first: whether the strongest chunk is the clip's first.
        iou: intersection over union of the strongest evidence span and the true one.
        chance: of `top`, for a random chunk. chance3: of `top3`, for three random chunks.
    """

    top: bool
    top3: bool
    first: bool
    iou: float
    chance: float
    chance3: float


def compare(chunks: Sequence[Span], named: Span, true: Span, clip: Sequence[Span]) -> EvidenceHit:
    """Hold an answer's evidence against the true span.

    Args:
        chunks: the evidence's chunks, strongest first.
        named: the strongest evidence span.
        true: where the answer is seen or heard.
        clip: all chunks of the clip, in order.
    """
    touching = [overlap(chunk, true) > 0 for chunk in clip]
    misses, count = touching.count(False), len(touching)
    missed = 1.0
    for drawn in range(min(3, count)):
        missed *= max(0, misses - drawn) / (count - drawn)
    return EvidenceHit(
        top=overlap(chunks[0], true) > 0,
        top3=any(overlap(chunk, true) > 0 for chunk in chunks[:3]),
        first=chunks[0][0] == clip[0][0],
        iou=iou(named, true),
        chance=sum(touching) / count,
        chance3=1 - missed,
    )


def means(hits: Sequence[EvidenceHit]) -> dict[str, float]:
    """The mean of each attribute of at least one hit."""
    return {name: fmean(float(getattr(hit, name)) for hit in hits) for name in EvidenceHit.__annotations__}


def overlap(one: Span, other: Span) -> float:
    """Seconds that two spans share."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def iou(one: Span, other: Span) -> float:
    """Intersection over union of two spans."""
    shared = overlap(one, other)
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)
