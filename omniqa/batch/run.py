"""Asks about clip after clip: decoding the next ones meanwhile, encoding each once, writing every line as it comes."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from omniqa.batch import rows
from omniqa.batch.ahead import Stopped, ahead
from omniqa.batch.clips import Clip, is_media, named_as_media
from omniqa.batch.questions import Question, Task
from omniqa.batch.results import Results
from omniqa.errors import CLIP_ERRORS, MediaError, OmniqaError, OutOfMemoryError, UsageError
from omniqa.lines import Row
from omniqa.media.sampling import Sampling
from omniqa.model.decoding import Decoding
from omniqa.pruning.base import AnyPruner

if TYPE_CHECKING:
    from omniqa.engine import EncodedVideo, OmniQA, PreparedClip

_FAULTS_IN_A_ROW = 3  # clips at which the model failed as it never should; the last of them ends the run
_FEWEST_FRAMES = 2


class NoMedia(Exception):
    """A file in a folder that is neither moving pictures nor sound: nobody asked about it."""


class Todo(NamedTuple):
    """A clip, and its questions that have no line yet, with their ids."""

    clip: Clip
    asked: list[tuple[str, Question]]


@dataclass
class _Asking:
    """A clip that is being asked about. left: what has no line yet. frames: how many are looked at.

    had_frames: how many there were when memory ran out, if it did.
    """

    clip: Clip
    left: deque[tuple[str, Question]]
    frames: int
    had_frames: int | None = None


@dataclass
class Batch:
    """Clips and questions, how they are asked, and where the lines go.

    prefetch: how many clips are decoded ahead of the one that the model works on.
    left_out: files in folders that turned out to be no media. waited_s: how long the model waited for decoding.
    """

    tasks: Sequence[Task]
    pruner: AnyPruner
    sampling: Sampling
    decoding: Decoding
    results: Results
    prefetch: int = 1
    left_out: dict[str, None] = field(default_factory=dict)
    waited_s: float = 0.0
    _faults: int = 0

    def missing(self) -> Iterator[Todo]:
        """What is still to be asked, clip after clip."""
        for task in self.tasks:
            if task.clip.path in self.left_out:
                continue
            asked = [pair for pair in task.asked() if pair[0] not in self.results.known]
            if asked:
                yield Todo(task.clip, asked)

    def anything_left(self) -> bool:
        """Whether there is something to ask a model; files that are no media may be all that is missing."""
        for todo in self.missing():
            if _is_wanted(todo.clip):
                return True
            self.left_out[todo.clip.path] = None
        return False

    def go_on(self, qa: "OmniQA") -> Generator[Row, None, None]:
        """Ask what is missing; gives every line once it is written.

        What one clip or question fails by is its line; ModelError and what `results` raises end the run. Raises
        UsageError where lines of another model are there, which the settings need not tell if they name none.
        """
        if any(line.model != qa.name for line in self.results.known.values()):
            raise UsageError(f"The results are of another model than {qa.name}. Write to another file, or set --model.")

        def prepare(todo: Todo, check: Callable[[], None]) -> "PreparedClip":
            return _prepare(qa, todo.clip, self.sampling, check)

        with closing(ahead(self.missing(), prepare, self.prefetch)) as clips:
            for todo, take in clips:
                for row in self._of_clip(qa, todo, take):
                    self.results.add(row)
                    yield row
        self.results.finish()

    def _of_clip(self, qa: "OmniQA", todo: Todo, take: Callable[[], "PreparedClip"]) -> Iterator[Row]:
        asking = _Asking(todo.clip, deque(todo.asked), self.sampling.max_frames)
        try:
            try:
                yield from self._answers(qa, asking, lambda: self._waited_for(take))
            except OutOfMemoryError:
                if asking.frames <= _FEWEST_FRAMES:
                    raise
            if asking.left:  # here, what the first attempt held is free
                asking.had_frames, asking.frames = asking.frames, max(_FEWEST_FRAMES, asking.frames // 2)
                fewer = replace(self.sampling, max_frames=asking.frames)
                yield from self._answers(qa, asking, lambda: _prepare(qa, todo.clip, fewer))
        except NoMedia:
            self.left_out[todo.clip.path] = None
        except CLIP_ERRORS as error:
            tried = f" Tried with {asking.had_frames} and {asking.frames} frames." if asking.had_frames else ""
            yield from self._failures(qa, asking, f"{error}{tried}")
        except OmniqaError:
            raise
        except Exception as error:
            self._faults += 1
            yield from self._failures(qa, asking, f"a fault in omniqa: {type(error).__name__}: {error}")
            if self._faults >= _FAULTS_IN_A_ROW:
                raise
        else:
            self._faults = 0

    def _waited_for(self, take: Callable[[], "PreparedClip"]) -> "PreparedClip":
        begun = time.perf_counter()
        try:
            return take()
        finally:
            self.waited_s += time.perf_counter() - begun

    def _answers(self, qa: "OmniQA", asking: _Asking, prepare: Callable[[], "PreparedClip"]) -> Iterator[Row]:
        """A line for each question that is left; raises where the clip can't be used or memory runs out."""
        video, first = _encode(qa, asking, prepare), True
        while asking.left:
            id, question = asking.left[0]
            row = self._answer(qa, asking, video, id, question, first)
            first = first and row["status"] == rows.FAILED
            asking.left.popleft()
            yield row

    def _answer(
        self, qa: "OmniQA", asking: _Asking, video: "EncodedVideo", id: str, question: Question, first: bool
    ) -> Row:
        try:
            answers = qa.ask_all(video, [question.text], self.pruner, decoding=self.decoding, count_encoding=first)
            answer = next(answers)
        except OutOfMemoryError:
            raise
        except CLIP_ERRORS as error:
            return self._failed(qa, asking.clip, id, question, str(error))
        return rows.answered(asking.clip, id, question, answer, self.results.settings, asking.had_frames)

    def _failures(self, qa: "OmniQA", asking: _Asking, error: str) -> Iterator[Row]:
        for id, question in asking.left:
            yield self._failed(qa, asking.clip, id, question, error)

    def _failed(self, qa: "OmniQA", clip: Clip, id: str, question: Question, error: str) -> Row:
        pruner = self.pruner
        return rows.failed(clip, id, question, error, qa.name, pruner.name, pruner.target, self.results.settings)


def _is_wanted(clip: Clip) -> bool:
    return named_as_media(clip) or is_media(clip.path)


def _prepare(qa: "OmniQA", clip: Clip, sampling: Sampling, check: Callable[[], None] = lambda: None) -> "PreparedClip":
    """The clip before the encoders. Whatever a strange file does to the decoders is trouble of that file alone."""
    if not _is_wanted(clip):
        raise NoMedia
    try:
        return qa.prepare(clip.path, sampling, progress=lambda stage, share: check())
    except (OmniqaError, Stopped):
        raise
    except Exception as error:
        raise MediaError(f"{clip.path} trips up the decoder ({type(error).__name__}: {error}).") from error


def _encode(qa: "OmniQA", asking: _Asking, prepare: Callable[[], "PreparedClip"]) -> "EncodedVideo":
    """The clip after both encoders; its pictures and sound are let go of."""
    prepared = prepare()
    asking.frames = len(prepared.clip.frames)
    return qa.encode(prepared)
