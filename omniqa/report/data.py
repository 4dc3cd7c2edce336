"""What a report shows, as plain data: one clip, and the runs of a question and a method about it."""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniqa.models.base import AUDIO, VIDEO
from omniqa.pipeline.answer import Answer, Evidence
from omniqa.pipeline.stages import STAGE_NAMES

MOST_PARTS = 120  # of a timeline
_NOT_STAGES = ("overlapped", "time_to_first_token", "total")


@dataclass(frozen=True)
class Part:
    """A part of the clip on the timeline, and the shares of all drawn attention that its picture and sound have."""

    start_s: float
    end_s: float
    video: float
    audio: float


@dataclass(frozen=True)
class Marks:
    """The tokens of one modality, in time order, a byte each, as base64.

    Attributes:
        layers: in how many of the decoder's layers the token was computed.
        shade: attention that the question drew to it: 255 times the square root of its share of the clip's highest.
    """

    layers: str
    shade: str


@dataclass(frozen=True)
class Layer:
    """The shares of tokens that one decoder layer computed; None where the clip has none of the kind."""

    video: float | None
    audio: float | None
    both: float
    planned: float


@dataclass(frozen=True)
class Run:
    """One answer.

    Attributes:
        label: the method at its retention.
        agreement: whether the answer is the first run's, in words; empty for the first, and for other questions.
        facts: names and values of what is known of it.
        options: the method's, by name.
        stages: seconds by name; totals: what lies across them.
        figures: more columns of the table of all runs.
        spans: the evidence, strongest first.
        kept: the layers' mean.
        parts: the timeline.
    """

    label: str
    question: str
    answer: str
    method: str
    agreement: str
    facts: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    stages: tuple[tuple[str, float], ...]
    totals: tuple[tuple[str, float], ...]
    figures: tuple[tuple[str, str], ...]
    spans: tuple[Part, ...]
    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]
    video: Marks
    audio: Marks
    kept: Layer
    warnings: tuple[str, ...] = ()

    @property
    def facts_by_name(self) -> dict[str, str]:
        """The facts, to look one up."""
        return dict(self.facts)

    def to_dict(self) -> dict[str, Any]:
        """What the page's script needs of it."""
        return {
            "label": self.label,
            "layers": [asdict(layer) for layer in self.layers],
            "parts": [asdict(part) for part in self.parts],
            "spans": [asdict(span) for span in self.spans],
            "video": asdict(self.video),
            "audio": asdict(self.audio),
        }


@dataclass(frozen=True)
class Shown:
    """The clip.

    Attributes:
        name: of the file.
        start_s, end_s: on the file's clock.
        grids: seconds on the file's clock of each temporal grid; each has rows × cols tokens and two frames.
        audio_tokens: from start_s on, audio_token_s long each.
    """

    name: str
    start_s: float
    end_s: float
    grids: tuple[float, ...]
    rows: int
    cols: int
    audio_tokens: int
    audio_token_s: float


@dataclass(frozen=True)
class Figures:
    """What a comparison knows of an answer beside the answer itself.

    Attributes:
        label: the method at its retention.
        agreement: whether the answer is the first one's, in words.
        columns: names and values.
    """

    label: str = ""
    agreement: str = ""
    columns: tuple[tuple[str, str], ...] = field(default=())


def shown(answer: Answer) -> Shown:
    """The clip that an answer is about."""
    asked, media = answer.asked, answer.stats.media
    return Shown(
        name=answer.video,
        start_s=asked.start_s,
        end_s=asked.start_s + media.duration_s,
        grids=tuple(asked.start_s + float(time) for time in asked.shape.grid_times),
        rows=asked.shape.rows,
        cols=asked.shape.cols,
        audio_tokens=asked.shape.audio_tokens,
        audio_token_s=1 / asked.geometry.audio_tokens_per_second,
    )


def run_of(answer: Answer, figures: Figures) -> Run:
    """An answer as a report shows it."""
    total = sum(chunk.score for chunk in answer.chunks) or 1.0
    timing, retention, tokens = answer.stats.timing_s, answer.retention, max(1, len(answer.trace.modality))
    return Run(
        label=figures.label or f"{answer.method} at {answer.retention.target:g}",
        question=answer.question,
        answer=answer.text,
        method=answer.method,
        agreement=figures.agreement,
        facts=_facts(answer),
        options=tuple((name, _text(value)) for name, value in answer.asked.options.items()),
        stages=tuple((STAGE_NAMES[name], timing[name]) for name in timing if name not in _NOT_STAGES and timing[name]),
        totals=tuple((STAGE_NAMES[name], timing[name]) for name in _NOT_STAGES if timing.get(name)),
        figures=figures.columns,
        spans=tuple(Part(s.start_s, s.end_s, s.video / total, s.audio / total) for s in answer.evidence_spans),
        parts=_parts(answer.chunks, total),
        layers=_layers(answer),
        video=_marks(answer, VIDEO),
        audio=_marks(answer, AUDIO),
        kept=Layer(retention.video, retention.audio, retention.achieved, mean(answer.asked.planned) / tokens),
        warnings=answer.stats.media.warnings,
    )


def words_beside(first: str, other: str) -> tuple[tuple[str, bool], ...]:
    """The words of `other` in pieces, each with whether it stands there in place of, or beside, those of `first`."""
    theirs, ours = first.split(), other.split()
    changes = SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes()
    return tuple((" ".join(ours[low:high]), tag != "equal") for tag, _, _, low, high in changes if high > low)


def _facts(answer: Answer) -> tuple[tuple[str, str], ...]:
    stats, retention = answer.stats, answer.retention
    tokens = stats.tokens
    gpu = stats.peak_device_bytes
    return (
        ("method", answer.method),
        ("model", answer.model),
        ("device", stats.device),
        ("retention asked", f"{retention.target:g}"),
        ("retention achieved", f"{retention.achieved:.4f}"),
        ("picture tokens", f"{tokens.video}, of which {tokens.video_kept} entered the decoder"),
        ("sound tokens", f"{tokens.audio}, of which {tokens.audio_kept} entered the decoder"),
        ("text tokens", str(tokens.text)),
        ("generated tokens", str(tokens.generated)),
        ("peak memory", f"{stats.peak_rss_bytes / 1e9:.2f} GB"),
        *((("peak memory of the GPU", f"{gpu / 1e9:.2f} GB"),) if gpu is not None else ()),
        ("frames", _frames(answer)),
    )


def _frames(answer: Answer) -> str:
    media = answer.stats.media
    if not media.frames:
        return "none"
    rate = f", {media.fps:.3g} a second" if media.fps else ""
    return f"{media.frames} of {media.width} by {media.height} pixels{rate}"


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _parts(chunks: Sequence[Evidence], total: float) -> tuple[Part, ...]:
    """All chunks in the order of time; of very long clips, several as one part."""
    ordered = sorted(chunks, key=lambda chunk: chunk.start_s)
    size = -(-len(ordered) // MOST_PARTS)
    groups = [ordered[at : at + size] for at in range(0, len(ordered), size or 1)]
    return tuple(
        Part(
            group[0].start_s,
            group[-1].end_s,
            sum(chunk.video for chunk in group) / total,
            sum(chunk.audio for chunk in group) / total,
        )
        for group in groups
    )


def _layers(answer: Answer) -> tuple[Layer, ...]:
    trace = answer.trace
    kinds = {kind: trace.modality == kind for kind in (VIDEO, AUDIO)}
    count = max(1, len(trace.modality))

    def share(alive: NDArray[np.bool_], kind: int) -> float | None:
        return float(alive[kinds[kind]].mean()) if kinds[kind].any() else None

    return tuple(
        Layer(share(alive, VIDEO), share(alive, AUDIO), float(alive.mean()), planned / count)
        for alive, planned in zip(trace.alive, answer.asked.planned, strict=True)
    )


def _marks(answer: Answer, kind: int) -> Marks:
    trace = answer.trace
    mine = trace.modality == kind
    drawn = np.maximum(trace.surplus, 0)
    highest = float(drawn.max(initial=0.0)) or 1.0
    shade = np.sqrt(drawn[mine] / highest) * 255
    return Marks(_base64(trace.alive[:, mine].sum(0)), _base64(shade.round()))


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()
