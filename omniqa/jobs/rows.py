"""The lines of a batch's results: one a question, answered or failed."""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from omniqa.file_state import FileState, as_field, is_stale
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.questions import Question

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

OK = "ok"
FEWER_FRAMES = "fewer_frames"  # answered, from fewer frames than asked for, since memory ran out
FAILED = "failed"
_STATUSES = (OK, FEWER_FRAMES, FAILED)


class Asked(NamedTuple):
    """A question about a clip. file: the clip's file as it was right before it was decoded."""

    clip: ClipPath
    id: str
    question: Question
    file: FileState | None


class Known(NamedTuple):
    """What is kept in memory of a line.

    stale: it answers for another file than the one that is there. video and error: of a failure, else None.
    """

    id: str
    settings: str
    model: str
    failed: bool
    stale: bool
    video: str | None
    error: str | None


class Failure(NamedTuple):
    """Failures for the same reason.

    cause: the first one's, without the file's name. questions, clips: how many. video: one of the clips.
    """

    cause: str
    questions: int
    clips: int
    video: str


def answered(asked: Asked, answer: "Answer", settings: str, had_frames: int | None) -> Row:
    """The line of an answer: what `ask --json` prints, and more.

    settings: their name in the run file. had_frames: how many there were when memory ran out, if it did.
    """
    status, row = OK, replace(answer, video=asked.clip.name).to_dict()
    if had_frames is not None:
        status, media = FEWER_FRAMES, row["media"]
        media["warnings"].append(f"Memory ran out with {had_frames} frames; answered from {media['frames']}.")
    return _head(asked, status, None) | row | _tail(asked, settings)


def failed(asked: Asked, error: str, model: str, method: str, target: float, settings: str) -> Row:
    """The line of a question that has no answer, with the same fields."""
    nothing: Row = {"tokens": None, "timing_s": None, "memory": None, "media": None, "evidence": []}
    retention: Row = {"target": target, "achieved": None, "audio": None, "video": None, "per_layer": []}
    names = {"video": asked.clip.name, "question": asked.question.text, "answer": None, "model": model}
    how = {"method": method, "retention": retention}
    return _head(asked, FAILED, error) | names | how | nothing | _tail(asked, settings)


def _head(asked: Asked, status: str, error: str | None) -> Row:
    return {"id": asked.id, "status": status, "error": error}


def _tail(asked: Asked, settings: str) -> Row:
    return as_field(asked.file) | {"fields": dict(asked.question.fields), "settings": settings}


def known(row: Row, now: Callable[[str], FileState | None] = lambda video: None) -> Known:
    """What to keep of a line, be it of JSON or of a table, where all cells are text.

    now: the file of a clip, by its name, as it is now; None if it does not matter.
    Raises ValueError, with the reason, for a line that is no result of a batch.
    """
    for name in ("id", "status", "settings", "model", "video"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"it is no result of a batch, for its {name!r} is no text")
    if row["status"] not in _STATUSES:
        raise ValueError(f"its status is {row['status']!r:.60}, not one of {', '.join(_STATUSES)}")
    failed = row["status"] == FAILED
    video, error = (row["video"], str(row.get("error"))) if failed else (None, None)
    stale = is_stale(row, now(row["video"]))
    return Known(row["id"], sys.intern(row["settings"]), sys.intern(row["model"]), failed, stale, video, error)


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
