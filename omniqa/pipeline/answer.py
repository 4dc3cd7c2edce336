"""The answer to a question, and what is known about how it came about."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omniqa.media.sampling import ClipOptions
from omniqa.media.summary import MediaSummary
from omniqa.models.base import AUDIO, VIDEO, Geometry, MediaShape, Model
from omniqa.models.encoded_media import EncodedMedia
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.trace import Trace
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.options import options_of
from omniqa.terminal import LAYOUT, printable

if TYPE_CHECKING:
    from omniqa.media.clip import Clip
    from omniqa.media.source import Source

EVIDENCE_CHUNKS = 5


@dataclass(frozen=True)
class Retention:
    """Retention as it was measured.

    Attributes:
        target: what was asked.
        achieved: mean over the decoder's layers of (audio + video tokens computed) / (those before any pruning).
        audio, video: the same for one modality alone; None where the clip has none of it.
        per_layer: the share computed by each layer.
    """

    target: float
    achieved: float
    audio: float | None
    video: float | None
    per_layer: tuple[float, ...]


@dataclass(frozen=True)
class TokenCounts:
    """How many tokens of each kind; `kept` is after input-level pruning."""

    text: int
    audio: int
    video: int
    audio_kept: int
    video_kept: int
    generated: int


@dataclass(frozen=True)
class Evidence:
    """A chunk of the clip and the attention that the question drew to it (docs/evidence.md).

    Attributes:
        start_s, end_s: on the file's clock.
        score: by how much more attention the prompt's last row gave the chunk's tokens than the first row behind the
            media, which does not see the question: the positive differences, averaged over heads and layers, summed.
        audio, video: its parts.
        region: left, top, right and bottom, in pixels of the file's picture as it is shown (upright, with square
            pixels), of the smallest box with half of `video`; None if that is 0, or for all but the strongest chunks.
    """

    start_s: float
    end_s: float
    score: float
    audio: float
    video: float
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class EvidenceSpan:
    """Neighbouring chunks of evidence, joined: each has at least half of the strongest chunk's score.

    Attributes:
        start_s, end_s: on the file's clock.
        score: of its chunks together. audio, video: its parts.
    """

    start_s: float
    end_s: float
    score: float
    audio: float
    video: float


@dataclass(frozen=True)
class ModalityGain:
    """By what factor the question raised each modality's share of the attention that the clip gets.

    The share under the prompt's last row, divided by that under the first row behind the media, which does not see the
    question. None if the clip has none of the modality.
    """

    audio: float | None
    video: float | None

    @property
    def larger(self) -> str | None:
        """Whichever the question raised more, "audio" or "video"; None unless the clip has both."""
        if self.audio is None or self.video is None or self.audio == self.video:
            return None
        return "audio" if self.audio > self.video else "video"


@dataclass(frozen=True)
class Stats:
    """Counts, seconds by stage, and memory.

    Attributes:
        timing_s: load, cache (looking for the encoded clip, and keeping it), decode, preprocess, vision_encoder,
            audio_encoder, input_pruning, prefill, generate, time_to_first_token (from the opened file, model loading
            not included) and total (loading included). A stage that was not run for this question, since the video was
            encoded for an earlier one, is 0. Decoding runs beside the encoders: `overlapped` is by how much the stages'
            sum exceeds the time that passed.
    """

    tokens: TokenCounts
    timing_s: dict[str, float]
    device: str
    peak_rss_bytes: int
    peak_device_bytes: int | None
    media: MediaSummary
    seconds_per_token: float | None = None


@dataclass(frozen=True)
class Asked:
    """How the clip was taken and its tokens pruned: what a report needs to show the answer's tokens on the clip.

    Attributes:
        start_s: where the range starts on the file's clock.
        sampling: how the clip was taken from its file; None for a clip that was sampled before.
        planned: (L,) tokens that the method planned for each layer.
        options: the method's, by name.
    """

    shape: MediaShape
    geometry: Geometry
    start_s: float
    sampling: ClipOptions | None
    planned: tuple[int, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, video: EncodedClip, method: AnyMethod, model: Model) -> "Asked":
        """What a question about `video` was asked by."""
        return cls(
            shape=video.shape,
            geometry=model.geometry,
            start_s=video.start_s,
            sampling=video.sampling,
            planned=video.plan(method, model.layers).kept,
            options={option.name: getattr(method, option.name) for option in options_of(type(method))},
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer with everything that is reported about it.

    Attributes:
        token_ids: what was generated, the end token not included.
        chunks: all chunks of the clip, in the order of the attention that the question drew to them, strongest first.
        gain: which modality the question drew attention to.
    """

    video: str
    question: str
    text: str
    model: str
    method: str
    token_ids: tuple[int, ...]
    retention: Retention
    chunks: tuple[Evidence, ...]
    gain: ModalityGain
    stats: Stats
    trace: Trace
    asked: Asked

    def __repr__(self) -> str:
        kept = f"{100 * self.retention.achieved:.0f} %"
        return f"<Answer {shortened(self.text)!r} to {shortened(self.question)!r}: {self.method}, {kept} kept>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the question, the answer, and what it took. All text is escaped."""
        tokens = self.stats.tokens.audio + self.stats.tokens.video
        facts = [
            f"{self.stats.timing_s['total']:.1f} s",
            f"kept {100 * self.retention.achieved:.0f} % of {tokens} tokens",
        ]
        facts += [f"looked at {first.start_s:.3g} to {first.end_s:.3g} s" for first in self.evidence[:1]]
        facts += [self.method, self.model, self.video]
        question, text, more = (
            html.escape(printable(piece, LAYOUT)) for piece in (self.question, self.text, " · ".join(facts))
        )
        return f"<div><b>{question}</b><p style='white-space: pre-wrap'>{text}</p><small>{more}</small></div>"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The strongest chunks, strongest first; at most EVIDENCE_CHUNKS."""
        return self.chunks[:EVIDENCE_CHUNKS]

    @property
    def evidence_spans(self) -> tuple[EvidenceSpan, ...]:
        """The evidence as spans, strongest first."""
        return join_evidence(self.evidence)

    def report(
        self, path: str | Path, video: "str | Path | Source | Clip | None" = None, *, embed_media: bool = False
    ) -> None:
        """Write an HTML page that shows where the answer looked and what each layer kept; see docs/report.md.

        An answer holds no frames: the file is decoded once more. `omniqa.save_report` writes several answers at once.

        Args:
            path: the page's file.
            video: the file, or the `Clip` that was asked about. None is the file that the answer names.
            embed_media: put the file itself into the page, with marks to jump to.

        Raises:
            MediaError: the file can't be used, or has changed since it was asked about.
            UsageError: the answer is about a `Clip`, and that is not given.
            OSError: the page can't be written.
        """
        from omniqa import save_report  # by the package's own door: reports are built on the pipeline

        save_report(path, [self], video, embed_media=embed_media)

    def to_dict(self) -> dict[str, Any]:
        """The object that `omniqa ask` prints as JSON."""
        stats = self.stats
        return {
            "video": self.video,
            "question": self.question,
            "answer": self.text,
            "model": self.model,
            "method": self.method,
            "retention": vars(self.retention) | {"per_layer": list(self.retention.per_layer)},
            "tokens": dict(vars(stats.tokens)),
            "timing_s": dict(stats.timing_s),
            "memory": {
                "device": stats.device,
                "peak_rss_bytes": stats.peak_rss_bytes,
                "peak_device_bytes": stats.peak_device_bytes,
            },
            "media": stats.media.to_dict(),
            "evidence": [vars(chunk) | {"region": chunk.region and list(chunk.region)} for chunk in self.evidence],
            "evidence_spans": [dict(vars(span)) for span in self.evidence_spans],
            "evidence_gain": dict(vars(self.gain)),
        }


def shortened(text: str, length: int = 60) -> str:
    """At most `length` characters of a text; an ellipsis says that there is more."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def measure_retention(target: float, trace: Trace) -> Retention:
    """What was really computed, from the trace."""

    def mean_of(kind: int) -> float | None:
        mine = trace.modality == kind
        return float(trace.alive[:, mine].mean()) if mine.any() else None

    return Retention(
        target=target,
        achieved=float(trace.alive.mean()),
        audio=mean_of(AUDIO),
        video=mean_of(VIDEO),
        per_layer=tuple(float(share) for share in trace.alive.mean(axis=1)),
    )


def count_tokens(trace: Trace, text: int, generated: int) -> TokenCounts:
    """Tokens by kind; those that entered layer 0 are the kept ones."""
    entered = trace.modality[trace.alive[0]]
    return TokenCounts(
        text=text,
        audio=int((trace.modality == AUDIO).sum()),
        video=int((trace.modality == VIDEO).sum()),
        audio_kept=int((entered == AUDIO).sum()),
        video_kept=int((entered == VIDEO).sum()),
        generated=generated,
    )


def find_evidence(
    trace: Trace, surplus: NDArray[np.float32], media: EncodedMedia, geometry: Geometry
) -> tuple[Evidence, ...]:
    """All chunks, in the order of the attention that the question drew to them, strongest first.

    The first EVIDENCE_CHUNKS of them get a region.

    Args:
        surplus: (n,) see `PrefillOutput`.
        media: the clip.
        geometry: of the model's family.
    """
    drawn = np.maximum(surplus, 0)
    chunks, rank = np.unique(trace.chunk, return_inverse=True)  # numbers may be large, their count is the tokens'
    video, audio = (np.bincount(rank, drawn * (trace.modality == kind)) for kind in (VIDEO, AUDIO))
    score = video + audio
    order = np.argsort(-score, kind="stable")
    seconds, summary = geometry.chunk_seconds, media.summary
    regions = [
        _region(drawn[(rank == k) & (trace.modality == VIDEO)], media.shape, summary) for k in order[:EVIDENCE_CHUNKS]
    ]
    return tuple(
        Evidence(
            start_s=media.start_s + seconds * int(chunks[k]),
            end_s=media.start_s + min(seconds * (int(chunks[k]) + 1), summary.duration_s),
            score=float(score[k]),
            audio=float(audio[k]),
            video=float(video[k]),
            region=region,
        )
        for k, region in zip_longest(order.tolist(), regions)
    )


def measure_gain(trace: Trace, asked: NDArray[np.float32], unasked: NDArray[np.float32]) -> ModalityGain:
    """By what factor the question raised each modality's share of the attention.

    Args:
        trace: of the clip's n tokens.
        asked, unasked: (L - 1, n) see `PrefillOutput`.
    """

    def share(given: NDArray[np.float32], kind: int) -> float:
        return float(given[:, trace.modality == kind].sum(dtype=np.float64) / given.sum(dtype=np.float64))

    def gain(kind: int) -> float | None:
        if not (trace.modality == kind).any() or not asked.any() or not unasked[:, trace.modality == kind].any():
            return None
        return share(asked, kind) / share(unasked, kind)

    return ModalityGain(audio=gain(AUDIO), video=gain(VIDEO))


def join_evidence(chunks: Sequence[Evidence]) -> tuple[EvidenceSpan, ...]:
    """Chunks with at least half of the strongest's score, neighbours joined; strongest first.

    Args:
        chunks: strongest first.
    """
    spans: list[EvidenceSpan] = []
    strong = [chunk for chunk in chunks if chunk.score > 0 and chunk.score >= chunks[0].score / 2]
    for one in sorted(strong, key=lambda chunk: chunk.start_s):
        last = spans.pop() if spans and one.start_s <= spans[-1].end_s else None
        parts = (last, one) if last else (one,)
        score, audio, video = (sum(getattr(part, name) for part in parts) for name in ("score", "audio", "video"))
        spans.append(EvidenceSpan(parts[0].start_s, one.end_s, score, audio, video))
    return tuple(sorted(spans, key=lambda span: -span.score))


def _region(drawn: NDArray[np.float32], shape: MediaShape, summary: MediaSummary) -> tuple[int, int, int, int] | None:
    """The smallest box of the picture with half of what is drawn to a chunk's video tokens; None if nothing is.

    Of boxes as small, the one with most. In pixels of the file's picture, rounded to whole ones.
    """
    if not drawn.sum() > 0:
        return None
    grid = np.pad(
        drawn.reshape(-1, shape.rows, shape.cols).sum(0, dtype=np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0))
    )
    half, best, key = grid[-1, -1] * (0.5 - 1e-9), (0, 0, shape.cols, shape.rows), (np.inf, 0.0)
    for top in range(shape.rows):
        for bottom in range(top + 1, shape.rows + 1):
            columns = grid[bottom] - grid[top]
            lefts = np.arange(shape.cols)
            rights = np.searchsorted(columns, columns[:-1] + half)
            for left, right in zip(lefts[rights <= shape.cols], rights[rights <= shape.cols], strict=True):
                found = ((right - left) * (bottom - top), -(columns[right] - columns[left]))
                if found < key:
                    key, best = found, (int(left), top, int(right), bottom)
    left, top, right, bottom = best
    across, down = summary.picture_width / shape.cols, summary.picture_height / shape.rows
    return round(left * across), round(top * down), round(right * across), round(bottom * down)
