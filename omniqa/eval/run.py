"""A set of questions as a job: what the model is asked, and what is kept of each answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omniqa.eval.evidence import MEASURES, measure
from omniqa.eval.protocol import Protocol
from omniqa.eval.questions import SetQuestion
from omniqa.file_state import FileState, as_field
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.jsonl_store import JSON_LINES, Row, read_rows
from omniqa.jobs.rows import FAILED, OK, ClipRequest, Known, known
from omniqa.jobs.runner import FailurePolicy
from omniqa.models.base import PromptText
from omniqa.pruning.variants import MethodVariant

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer

RESULTS = "results.jsonl"  # in the folder of an evaluation

# All methods see the same frames. What failed before is tried again.
POLICY = FailurePolicy(halve_frames=False, nearest_retention=True, retry=True)

# What a line must hold that the report reads; failures have the first part alone.
_FAILED: dict[str, tuple[type, ...]] = {"question": (int,), "clip": (str,), "column": (str,)}
_ANSWERED: dict[str, tuple[type, ...]] = {
    "said": (str, type(None)), "correct": (bool,), "achieved": (int, float), "at_floor": (bool,),
    "input_pruning_s": (int, float), "prefill_s": (int, float), "peak_device_bytes": (int, type(None)),
}  # fmt: skip


_DEFAULT = Protocol()


class LabeledClip(NamedTuple):
    """A clip of a set, and the questions about it."""

    clip: ClipPath
    questions: list[SetQuestion]

    def asked(self) -> Iterator[tuple[str, SetQuestion]]:
        """The questions, each with its number as id."""
        return ((str(question.number), question) for question in self.questions)


@dataclass(frozen=True)
class EvalRows:
    """What is kept of each answer.

    Attributes:
        settings: their name in the run file.
        protocol: how questions are put and answers scored.
    """

    settings: str
    protocol: Protocol = _DEFAULT

    def prompt(self, question: SetQuestion) -> str | PromptText:
        """The question as it is put."""
        return self.protocol.style.prompt(question)

    def answered(self, asked: ClipRequest, answer: "Answer") -> Row:
        """The line of an answer."""
        question, stats, retention = asked.request.question, answer.stats, answer.retention
        result = self.protocol.scorer.score(question, answer.text)
        line = self._line(asked, OK, answer.model) | {
            "answer": answer.text,
            "said": result.said,
            "expected": question.answer,
            "correct": result.correct,
            "achieved": retention.achieved,
            "at_floor": retention.target != asked.request.column.pruner.target,
            "encoders_s": asked.encoders_s,
            "input_pruning_s": stats.timing_s["input_pruning"],
            "prefill_s": stats.timing_s["prefill"],
            "generate_s": stats.timing_s["generate"],
            "generated": stats.tokens.generated,
            "peak_rss_bytes": stats.peak_rss_bytes,
            "peak_device_bytes": stats.peak_device_bytes,
            "warnings": list(stats.media.warnings),
            "points_to": answer.gain.larger,
        }
        hit = measure(answer, question.evidence)
        return line if hit is None else line | {"evidence": hit.to_dict()}

    def failed(self, asked: ClipRequest, error: str, model: str) -> Row:
        """The line of a question that has no answer."""
        return self._line(asked, FAILED, model) | {"error": error}

    def _line(self, asked: ClipRequest, status: str, model: str) -> Row:
        id, question, column = asked.request
        names = {"question": question.number, "clip": question.clip, "column": column.name}
        how = {"method": column.pruner.name, "retention": column.pruner.target, "model": model}
        return {"id": id, "status": status} | names | how | {"settings": self.settings} | as_field(asked.file)


def by_clip(questions: Sequence[SetQuestion]) -> list[LabeledClip]:
    """The questions of a set, clip after clip."""
    clips: dict[str, LabeledClip] = {}
    for question in questions:
        task = clips.setdefault(question.clip, LabeledClip(ClipPath(question.clip, question.clip), []))
        task.questions.append(question)
    return list(clips.values())


def read_answers(
    results: Path, questions: Sequence[SetQuestion], columns: Sequence[MethodVariant]
) -> Mapping[tuple[int, str], Row]:
    """What is known by question and column, failures included.

    Raises:
        UsageError: the file can't be read, or a line is no answer; the message names the line.
    """
    wanted = {(question.number, column.name) for question in questions for column in columns}
    rows = read_rows(results, JSON_LINES, checked)
    return {key: row for row in rows if (key := (row["question"], row["column"])) in wanted}


def faults(questions: Sequence[SetQuestion], columns: Sequence[MethodVariant]) -> Mapping[tuple[int, str], Row]:
    """Failures in place of answers, for the questions that are themselves at fault and are never asked."""
    return {
        (question.number, column.name): {
            "question": question.number, "clip": question.clip, "column": column.name, "error": question.fault,
        }
        for question in questions if question.fault is not None
        for column in columns
    }  # fmt: skip


def known_answer(row: Row, now: Callable[[str], FileState | None] = lambda clip: None) -> Known:
    """As `omniqa.jobs.rows.known`, for a line that the report can read."""
    return known(checked(row), now)


def checked(row: Row) -> Row:
    """A line of results as it is. Raises ValueError, with the reason, for one that is none."""
    wanted = _FAILED | ({"error": (str,)} if "error" in row else _ANSWERED)
    for name, kinds in wanted.items():
        if name not in row or not isinstance(row[name], kinds):
            raise ValueError(f"it is no result of an evaluation, for {name!r} is missing or of another kind")
    if "evidence" in row and not _is_evidence(row["evidence"]):
        raise ValueError("it is no result of an evaluation, for its 'evidence' lacks a measure")
    return row


def _is_evidence(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(name), int | float) for name in MEASURES)
