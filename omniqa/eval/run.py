"""Asks every question by every method, each clip encoded once, and keeps each answer as it comes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniqa.errors import CLIP_ERRORS, NotFiniteError, OmniqaError
from omniqa.eval.questions import Question
from omniqa.eval.scoring import score
from omniqa.file_state import FileState, as_field, is_stale
from omniqa.jobs.clips import Clips
from omniqa.jobs.fault_streak import FaultStreak
from omniqa.jobs.jsonl_store import JsonlStore
from omniqa.pruning.budget import Unreachable
from omniqa.pruning.variants import MethodVariant
from omniqa.runtime.generation_options import GenerationOptions

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer
    from omniqa.pipeline.engine import EncodedClip, OmniQA

Row = dict[str, Any]

# What a line must hold that the report reads; failures have the first part alone.
_FAILED: dict[str, tuple[type, ...]] = {"question": (int,), "clip": (str,), "column": (str,)}
_ANSWERED: dict[str, tuple[type, ...]] = {
    "said": (str, type(None)), "correct": (bool,), "achieved": (int, float), "at_floor": (bool,),
    "input_pruning_s": (int, float), "prefill_s": (int, float), "peak_device_bytes": (int, type(None)),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Questions, columns, and the file of answers that they share with earlier runs.

    hint: a line that open questions end with, or nothing.
    """

    questions: Sequence[Question]
    clips: Clips
    columns: Sequence[MethodVariant]
    decoding: GenerationOptions
    store: JsonlStore
    hint: str = ""

    def rows(self) -> dict[tuple[int, str], Row]:
        """What is known by question and column, failures included; of several lines the last one counts."""
        wanted = {(question.number, column.name) for question in self.questions for column in self.columns}
        known = {(row["question"], row["column"]): row for row in self.store.rows}
        return {key: row for key, row in known.items() if key in wanted}

    def missing(self) -> list[tuple[Question, MethodVariant]]:
        """What is still to be asked, clip after clip; what failed before is tried again."""
        done = {key for key, row in self.rows().items() if "error" not in row}
        clips = {question.clip: None for question in self.questions}
        place = {clip: index for index, clip in enumerate(clips)}
        ordered = sorted(self.questions, key=lambda question: place[question.clip])
        pairs = [(question, column) for question in ordered for column in self.columns]
        return [pair for pair in pairs if (pair[0].number, pair[1].name) not in done]

    def go_on(self, qa: "OmniQA") -> Iterator[Row]:
        """Ask what is missing; gives every line once it is in the store.

        Raises ModelError, and NotFiniteError only at several clips in a row.
        """
        streak = FaultStreak()
        for clip, pairs in groupby(self.missing(), key=lambda pair: pair[0].clip):
            for row in self._of_clip(qa, clip, list(pairs), streak):
                self.store.append(row)
                yield row

    def _of_clip(
        self, qa: "OmniQA", clip: str, pairs: list[tuple[Question, MethodVariant]], streak: FaultStreak
    ) -> Iterator[Row]:
        file = self.clips.file(clip)  # before it is decoded: what is written to it from now on makes it another one
        for row in self._rows_of_clip(qa, clip, pairs, streak):
            yield row | as_field(file)

    def _rows_of_clip(
        self, qa: "OmniQA", clip: str, pairs: list[tuple[Question, MethodVariant]], streak: FaultStreak
    ) -> Iterator[Row]:
        try:
            source = self.clips.source(clip, qa.pixels)
            video = qa.encode(source, self.clips.sampling if isinstance(source, str | Path) else None)
        except CLIP_ERRORS as error:
            yield from [_failed(question, column, error) for question, column in pairs]
            return
        fault = None
        for question, column in pairs:
            try:
                yield self._asked(qa, video, question, column)
            except NotFiniteError as error:
                fault = error
                yield _failed(question, column, error)
        if not fault:
            streak.worked()
        elif streak.failed():
            raise fault

    def _asked(self, qa: "OmniQA", video: "EncodedClip", question: Question, column: MethodVariant) -> Row:
        prompt = question.prompt(self.hint)
        try:
            answer, at_floor = _ask(qa, video, prompt, column, self.decoding)
        except CLIP_ERRORS as error:
            return _failed(question, column, error)
        result, stats = score(question, answer.text), answer.stats
        return _head(question, column) | {
            "answer": answer.text,
            "said": result.said,
            "expected": question.answer,
            "correct": result.correct,
            "achieved": answer.retention.achieved,
            "at_floor": at_floor,
            "input_pruning_s": stats.timing_s["input_pruning"],
            "prefill_s": stats.timing_s["prefill"],
            "generate_s": stats.timing_s["generate"],
            "generated": stats.tokens.generated,
            "peak_rss_bytes": stats.peak_rss_bytes,
            "peak_device_bytes": stats.peak_device_bytes,
            "model": answer.model,
            "warnings": list(stats.media.warnings),
        }


def drop_changed(store: JsonlStore, clips: Clips) -> int:
    """Take out all lines about clips whose files have changed since; gives the number of these clips."""
    now: dict[str, FileState | None] = {row["clip"]: None for row in store.rows}
    now |= {clip: clips.file(clip) for clip in now}
    changed = {row["clip"] for row in store.rows if is_stale(row, now[row["clip"]])}
    if changed:
        store.drop(lambda row: is_stale(row, now[row["clip"]]))
    return len(changed)


def checked(row: Row) -> Row:
    """A line of results as it is. Raises ValueError, with the reason, for one that is none."""
    wanted = _FAILED | ({"error": (str,)} if "error" in row else _ANSWERED)
    for name, kinds in wanted.items():
        if name not in row or not isinstance(row[name], kinds):
            raise ValueError(f"it is no result of an evaluation, for {name!r} is missing or of another kind")
    is_stale(row, None)  # raises for a file that is none
    return row


def _ask(
    qa: "OmniQA", video: "EncodedClip", prompt: str, column: MethodVariant, decoding: GenerationOptions
) -> tuple["Answer", bool]:
    """The answer, and whether the method had to be asked at the nearest retention that it reaches on this clip."""
    try:
        return next(qa.ask_all(video, [prompt], column.pruner, decoding=decoding, reuse_prefix=False)), False
    except Unreachable as error:
        pruner = replace(column.pruner, retention=error.nearest)
    return next(qa.ask_all(video, [prompt], pruner, decoding=decoding, reuse_prefix=False)), True


def _head(question: Question, column: MethodVariant) -> Row:
    pruner = column.pruner
    return {"question": question.number, "clip": question.clip, "column": column.name, "method": pruner.name,
            "retention": pruner.target}  # fmt: skip


def _failed(question: Question, column: MethodVariant, error: OmniqaError) -> Row:
    return _head(question, column) | {"error": str(error)}
