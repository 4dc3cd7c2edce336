"""The lines of a job's results: one for each question and method, answered or failed."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from omniqa.errors import CLIP_ERRORS
from omniqa.file_state import FileState, as_field, is_stale
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.questions import Question
from omniqa.media.access import DEFAULT_ACCESS, Access
from omniqa.media.cut_names import file_stem
from omniqa.models.base import PromptText
from omniqa.pruning.variants import MethodVariant

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

OK = "ok"
FEWER_FRAMES = "fewer_frames"  # answered, from fewer frames than asked for, since memory ran out
FAILED = "failed"
_STATUSES = (OK, FEWER_FRAMES, FAILED)


Key = tuple[str, str]  # an id, and a column's name


class Request(NamedTuple):
    """One question by one method: one line of results.

    id: tells the question from all others, today and tomorrow. question: what the job's JobRows
        know how to put.
    column: the method; its name is empty in a job that has but one.
    """

    id: str
    question: Any
    column: MethodVariant

    @property
    def key(self) -> Key:
        """What tells it from all others of the job."""
        return self.id, self.column.name


class ClipQuestions(Protocol):
    """A clip, and the questions about it."""

    @property
    def clip(self) -> ClipPath:
        """The clip."""
        ...

    def asked(self) -> Iterator[tuple[str, Any]]:
        """The questions, each with its id."""
        ...


class ClipRequest(NamedTuple):
    """A request about a clip.

    Attributes:
        file: the clip's file as it was right before it was decoded.
        had_frames: how many there were when memory ran out, if it did.
        encoders_s: seconds of both encoders for this method's encoding of the clip; None if the cache had it, or
            unknown.
    """

    clip: ClipPath
    request: Request
    file: FileState | None
    had_frames: int | None = None
    encoders_s: float | None = None


class JobRows(Protocol):
    """What a kind of job puts to the model, and writes about the answer.

    Every line has the texts id, status, settings and model, and the clip's name as video or clip; a failure has an
    error. What is asked by several methods has a column, too.
    """

    def prompt(self, question: Any) -> str | PromptText:
        """The question as the model gets it."""
        ...

    def answered(self, asked: ClipRequest, answer: "Answer") -> Row:
        """The line of an answer."""
        ...

    def failed(self, asked: ClipRequest, error: str, model: str) -> Row:
        """The line of a question that has no answer."""
        ...


@dataclass(frozen=True)
class BatchRows:
    """The lines of a batch: what `ask` prints as JSON, and more.

    Attributes:
        settings: their name in the run file.
        cut: the folder that evidence is cut out into; None cuts nothing.
        access: how the file is opened for that.
        reports: the folder that HTML reports are written to, one an answer; None writes none.
    """

    settings: str
    cut: str | None = None
    access: Access = DEFAULT_ACCESS
    reports: str | None = None

    def prompt(self, question: Question) -> str:
        """The question as it is."""
        return question.text

    def answered(self, asked: ClipRequest, answer: "Answer") -> Row:
        """The line of an answer, marked where memory ran out for all frames."""
        status, row = OK, replace(answer, video=asked.clip.name).to_dict()
        if asked.had_frames is not None:
            status, media = FEWER_FRAMES, row["media"]
            media["warnings"].append(f"Memory ran out with {asked.had_frames} frames; answered from {media['frames']}.")
        if self.cut is not None:
            row["cuts"] = self._cuts(asked.clip, answer, row["media"]["warnings"])
        if self.reports is not None:
            row["report"] = self._report(asked, answer, row["media"]["warnings"])
        return self._line(asked, status, None, row)

    def _cuts(self, clip: ClipPath, answer: "Answer", warnings: list[str]) -> list[str]:
        """The files of the answer's evidence; that it can't be cut out is a warning, for the answer stands."""
        from omniqa.media.cut import cut

        spans = [(span.start_s, span.end_s) for span in answer.evidence_spans]
        try:
            return [str(path) for path in cut(clip.path, spans, str(self.cut), self.access)]
        except CLIP_ERRORS as error:
            warnings.append(f"The evidence could not be cut out: {error}")
            return []

    def _report(self, asked: ClipRequest, answer: "Answer", warnings: list[str]) -> str | None:
        """The file of the answer's report; that it can't be written is a warning, for the answer stands."""
        digest = blake2b(asked.request.id.encode(), digest_size=4).hexdigest()
        path = Path(str(self.reports)) / f"{file_stem(asked.clip.path)}-{digest}.html"
        try:
            replace(answer, video=asked.clip.name).report(path, asked.clip.path)
        except (*CLIP_ERRORS, OSError) as error:
            warnings.append(f"The report could not be written: {error}")
            return None
        return str(path)

    def failed(self, asked: ClipRequest, error: str, model: str) -> Row:
        """The line of a question that has no answer, with the same fields."""
        question, pruner = asked.request.question, asked.request.column.pruner
        nothing: Row = {
            "tokens": None,
            "timing_s": None,
            "memory": None,
            "media": None,
            "evidence": [],
            "evidence_spans": [],
            "evidence_gain": {"audio": None, "video": None},
        }
        nothing |= {} if self.cut is None else {"cuts": []}
        nothing |= {} if self.reports is None else {"report": None}
        retention: Row = {"target": pruner.target, "achieved": None, "audio": None, "video": None, "per_layer": []}
        names = {"video": asked.clip.name, "question": question.text, "answer": None, "model": model}
        how = {"method": pruner.name, "retention": retention}
        return self._line(asked, FAILED, error, names | how | nothing)

    def _line(self, asked: ClipRequest, status: str, error: str | None, row: Row) -> Row:
        tail = {"fields": dict(asked.request.question.fields), "settings": self.settings}
        return {"id": asked.request.id, "status": status, "error": error} | row | as_field(asked.file) | tail


class Known(NamedTuple):
    """What is kept in memory of a line.

    Attributes:
        stale: it answers for another file than the one that is there.
        video, error: of a failure, else None.
    """

    id: str
    column: str
    settings: str
    model: str
    failed: bool
    stale: bool
    video: str | None
    error: str | None

    @property
    def key(self) -> Key:
        """What tells its question and method from all others with the same settings."""
        return self.id, self.column


class Failure(NamedTuple):
    """Failures for the same reason.

    Attributes:
        cause: the first one's, without the file's name.
        questions, clips: how many.
        video: one of the clips.
    """

    cause: str
    questions: int
    clips: int
    video: str


def known(row: Row, now: Callable[[str], FileState | None] = lambda video: None) -> Known:
    """What to keep of a line, be it of JSON or of a table, where all cells are text.

    Raises ValueError, with the reason, for a line that is no result.

    Args:
        now: the file of a clip, by its name, as it is now; None if it does not matter.
    """
    clip = clip_field(row)
    for name in ("id", "status", "settings", "model", clip):
        if not isinstance(row.get(name), str):
            raise ValueError(f"it is no result, for its {name!r} is no text")
    if row["status"] not in _STATUSES:
        raise ValueError(f"its status is {row['status']!r:.60}, not one of {', '.join(_STATUSES)}")
    failed = row["status"] == FAILED
    video, error = (row[clip], str(row.get("error"))) if failed else (None, None)
    stale = is_stale(row, now(row[clip]))
    column, settings, model = (sys.intern(str(row.get(name, ""))) for name in ("column", "settings", "model"))
    return Known(row["id"], column, settings, model, failed, stale, video, error)


def clip_field(row: Row) -> str:
    """What a line calls its clip: "video" in a batch, "clip" in an evaluation."""
    return "clip" if "clip" in row else "video"


def causes(failures: Iterable[Known]) -> list[Failure]:
    """Failures by cause, the commonest first. Causes that differ in a number or the file's name are the same."""
    groups: dict[str, list[Known]] = {}
    for failure in failures:
        groups.setdefault(re.sub(r"\d[\d.]*", "0", _without_name(failure)), []).append(failure)
    found = [
        Failure(_without_name(group[0]), len(group), len({one.video for one in group}), str(group[0].video))
        for group in groups.values()
    ]
    return sorted(found, key=lambda failure: -failure.questions)


def _without_name(failure: Known) -> str:
    return str(failure.error).replace(str(failure.video), "the file")
