"""How often the evidence of answers points to the true spans, with chance beside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omniqa.eval.questions import SetQuestion
from omniqa.eval.statistics import clustered
from omniqa.jobs.jsonl_store import Row

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

ONE_SPAN, SEVERAL_SPANS = "one span", "several spans"
Span = tuple[float, float]  # seconds


@dataclass(frozen=True)
class EvidenceHit:
    """One answer's evidence against the spans where its question's answer is seen or heard.

    Attributes:
        top: whether the strongest chunk touches a true span. top3: whether one of the three strongest does.
        rank: of the strongest chunk that touches one; the strongest of all has rank 1.
        iou: intersection over union of the strongest evidence span and the true ones.
        first: whether the strongest chunk is the clip's first.
        top_chance, top3_chance, rank_chance, iou_chance, first_chance: the expected values for chunks in random order;
            for `iou`, of one random chunk.
    """

    top: bool
    top3: bool
    rank: int
    iou: float
    first: bool
    top_chance: float
    top3_chance: float
    rank_chance: float
    iou_chance: float
    first_chance: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


MEASURES = tuple(EvidenceHit.__annotations__)


def compare(chunks: Sequence[Span], named: Span, true: Sequence[Span]) -> EvidenceHit | None:
    """Hold an answer's evidence against the true spans; None if no chunk touches any of them.

    Args:
        chunks: all chunks of the clip, strongest first.
        named: the strongest evidence span.
        true: where the answer is seen or heard.
    """
    touching = [any(overlap(chunk, span) > 0 for span in true) for chunk in chunks]
    count, hits = len(chunks), sum(touching)
    if not hits:
        return None
    drawn, first = min(3, count), min(chunks)
    return EvidenceHit(
        top=touching[0],
        top3=any(touching[:3]),
        rank=1 + touching.index(True),
        iou=iou(named, true),
        first=chunks[0] == first,
        top_chance=hits / count,
        top3_chance=1 - comb(count - hits, drawn) / comb(count, drawn),
        rank_chance=(count + 1) / (hits + 1),
        iou_chance=sum(iou(chunk, true) for chunk in chunks) / count,
        first_chance=1 / count,
    )


def measure(answer: "Answer", true: Sequence[Span]) -> EvidenceHit | None:
    """Hold an answer's evidence against the true spans; None as for `compare`."""
    chunks = [(chunk.start_s, chunk.end_s) for chunk in answer.chunks]
    spans = answer.evidence_spans
    named = (spans[0].start_s, spans[0].end_s) if spans else (0.0, 0.0)
    return compare(chunks, named, true)


def cells(
    questions: Sequence[SetQuestion], columns: Iterable[str], rows: Mapping[tuple[int, str], Row]
) -> list[dict[str, Any]]:
    """The means of all measures, over the rightly answered questions whose true spans are known; docs/eval.md.

    Args:
        questions: those that were asked.
        columns: names of the methods.
        rows: results by question and column; those with evidence hold `EvidenceHit.to_dict`.
    """
    return [
        _cell(group, column, found)
        for column in columns
        for group, members in _groups(questions).items()
        if (found := [(one.clip, row) for one in members if _counts(row := rows.get((one.number, column), {}))])
    ]


def _counts(row: Row) -> bool:
    return bool(row.get("correct") and row.get("evidence"))


def _groups(questions: Sequence[SetQuestion]) -> dict[str, list[SetQuestion]]:
    """Questions with one true span, all and by modality, and those with several."""
    groups: dict[str, list[SetQuestion]] = {ONE_SPAN: [one for one in questions if len(one.evidence) == 1]}
    for modality in sorted({name for one in groups[ONE_SPAN] for name in one.in_groups("modality")}):
        members = [one for one in groups[ONE_SPAN] if modality in one.in_groups("modality")]
        groups[f"{ONE_SPAN}, {modality}"] = members
    return groups | {SEVERAL_SPANS: [one for one in questions if len(one.evidence) > 1]}


def _cell(group: str, column: str, found: Sequence[tuple[str, Row]]) -> dict[str, Any]:
    """The means of hits, and clustered intervals of the shares. found: clips and rows."""
    counts: dict[str, list[tuple[int, int]]] = {}
    for measure in ("top", "top3"):
        by_clip: dict[str, tuple[int, int]] = {}
        for clip, row in found:
            hits, size = by_clip.get(clip, (0, 0))
            by_clip[clip] = hits + bool(row["evidence"][measure]), size + 1
        counts[measure] = list(by_clip.values())
    means = {name: fmean(float(row["evidence"][name]) for _, row in found) for name in MEASURES}
    pointed = [row["points_to"] == "video" for _, row in found if row.get("points_to")]
    intervals = {
        f"{name}_{side}": bound
        for name, by_clips in counts.items()
        for side, bound in zip(("low", "high"), clustered(by_clips), strict=True)
    }
    to_video = fmean(pointed) if pointed else None
    return {"group": group, "column": column, "n": len(found), "to_video": to_video} | means | intervals


def overlap(one: Span, other: Span) -> float:
    """Seconds that two spans share."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def iou(span: Span, true: Sequence[Span]) -> float:
    """Intersection over union of a span and others, which may overlap each other."""
    apart = merge(true)
    shared = sum(overlap(span, other) for other in apart)
    union = span[1] - span[0] + sum(end - start for start, end in apart) - shared
    return shared / union if union > 0 else 0.0


def merge(spans: Sequence[Span]) -> list[Span]:
    """The same time in spans that do not overlap, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
