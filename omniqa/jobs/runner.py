"""Asks about clip after clip: decoding the next ones meanwhile, encoding each once, writing every line as it comes."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from omniqa.errors import CLIP_ERRORS, MediaError, NotFiniteError, OmniqaError, OutOfMemoryError, UsageError
from omniqa.file_state import FileState, file_state
from omniqa.jobs import rows
from omniqa.jobs.clips import ClipPath, is_media, named_as_media
from omniqa.jobs.fault_streak import FaultStreak
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.prefetch import Cancelled, prefetch
from omniqa.jobs.questions import Question, Task
from omniqa.jobs.results import Results
from omniqa.media.sampling import ClipOptions
from omniqa.memory import is_out_of_memory, memory_errors
from omniqa.pipeline.token_estimate import estimate_tokens
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.generation_options import GenerationOptions

if TYPE_CHECKING:
    from omniqa.pipeline.engine import EncodedClip, OmniQA, Ready

_FEWEST_FRAMES = 2


class NoMedia(Exception):
    """A file in a folder that is neither moving pictures nor sound: nobody asked about it."""


class Todo(NamedTuple):
    """A clip, and its questions that have no line yet, with their ids."""

    clip: ClipPath
    asked: list[tuple[str, Question]]


@dataclass
class _Asking:
    """A clip that is being asked about. left: what has no line yet.

    file: the clip's file as it was right before it was decoded.
    frames: how many are looked at, 0 until it is known. had_frames: how many there were when memory ran out, if it did.
    fault: that the model computed no numbers, if it did not.
    """

    clip: ClipPath
    left: deque[tuple[str, Question]]
    file: FileState | None
    frames: int = 0
    had_frames: int | None = None
    fault: NotFiniteError | None = None

    def about(self, id: str, question: Question) -> rows.Asked:
        """One of its questions."""
        return rows.Asked(self.clip, id, question, self.file)


@dataclass
class Asker:
    """How clips are asked about.

    settings: their name, in every line. prefetch: how many clips are decoded ahead of the one that the model works on.
    left_out: files in folders that turned out to be no media. waited_s: how long the model waited for decoding.
    """

    pruner: AnyMethod
    sampling: ClipOptions
    decoding: GenerationOptions
    settings: str
    prefetch: int = 1
    left_out: dict[str, None] = field(default_factory=dict)
    waited_s: float = 0.0
    _faults: FaultStreak = field(default_factory=FaultStreak)

    def ask(self, qa: "OmniQA", todos: Iterable[Todo]) -> Generator[Row, None, None]:
        """The lines about these clips, one after the other.

        What one clip or question fails by is its line; ModelError is raised,
        and so is a fault of the model at several clips in a row.
        """

        def prepare(item: tuple[Todo, FileState | None], check: Callable[[], None]) -> "Ready":
            return _prepare(qa, item[0].clip, self.sampling, check)

        # Each is looked at right before its thread begins: what is written to it from then on makes it another file.
        seen = ((todo, file_state(todo.clip.path)) for todo in todos)
        with closing(prefetch(seen, prepare, self.prefetch)) as clips:
            for (todo, file), take in clips:
                yield from self._of_clip(qa, _Asking(todo.clip, deque(todo.asked), file), take)

    def failed(self, asked: rows.Asked, error: str, model: str) -> Row:
        """The line of a question that has no answer."""
        return rows.failed(asked, error, model, self.pruner.name, self.pruner.target, self.settings)

    def _of_clip(self, qa: "OmniQA", asking: _Asking, take: Callable[[], "Ready"]) -> Iterator[Row]:
        try:
            try:
                yield from self._answers(qa, asking, lambda: self._waited_for(take))
            except OutOfMemoryError:
                asking.frames = asking.frames or _expected_frames(asking.clip, self.sampling)
                if asking.frames <= _FEWEST_FRAMES:
                    raise
            if asking.left:  # here, what the first attempt held is free
                asking.had_frames, asking.frames = asking.frames, max(_FEWEST_FRAMES, asking.frames // 2)
                asking.file = file_state(asking.clip.path)
                fewer = replace(self.sampling, max_frames=asking.frames)
                yield from self._answers(qa, asking, lambda: _prepare(qa, asking.clip, fewer))
        except NoMedia:
            self.left_out[asking.clip.path] = None
        except CLIP_ERRORS as error:
            tried = f" Tried with {asking.had_frames} and {asking.frames} frames." if asking.had_frames else ""
            yield from self._failures(qa, asking, f"{error}{tried}")
        except OmniqaError:
            raise
        except Exception as error:
            yield from self._failures(qa, asking, f"a fault in omniqa: {type(error).__name__}: {error}")
            if self._faults.failed():
                raise
        else:
            if not asking.fault:
                self._faults.worked()
            elif self._faults.failed():
                raise asking.fault

    def _waited_for(self, take: Callable[[], "Ready"]) -> "Ready":
        begun = time.perf_counter()
        try:
            return take()
        finally:
            self.waited_s += time.perf_counter() - begun

    def _answers(self, qa: "OmniQA", asking: _Asking, prepare: Callable[[], "Ready"]) -> Iterator[Row]:
        """A line for each question that is left; raises where the clip can't be used or memory runs out."""
        with memory_errors():
            video, first = _encode(qa, asking, prepare), True
        while asking.left:
            id, question = asking.left[0]
            with memory_errors():
                row = self._answer(qa, asking, video, id, question, first)
            first = first and row["status"] == rows.FAILED
            asking.left.popleft()
            yield row

    def _answer(
        self, qa: "OmniQA", asking: _Asking, video: "EncodedClip", id: str, question: Question, first: bool
    ) -> Row:
        try:
            answers = qa.ask_all(video, [question.text], self.pruner, decoding=self.decoding, count_encoding=first)
            answer = next(answers)
        except OutOfMemoryError:
            raise
        except NotFiniteError as error:
            asking.fault = error
            return self.failed(asking.about(id, question), str(error), qa.name)
        except CLIP_ERRORS as error:
            return self.failed(asking.about(id, question), str(error), qa.name)
        return rows.answered(asking.about(id, question), answer, self.settings, asking.had_frames)

    def _failures(self, qa: "OmniQA", asking: _Asking, error: str) -> Iterator[Row]:
        for id, question in asking.left:
            yield self.failed(asking.about(id, question), error, qa.name)


@dataclass
class Batch:
    """Clips and questions, how they are asked, and where the lines go."""

    tasks: Sequence[Task]
    asker: Asker
    results: Results

    def missing(self) -> Iterator[Todo]:
        """What is still to be asked, clip after clip."""
        for task in self.tasks:
            if task.clip.path in self.asker.left_out:
                continue
            asked = [pair for pair in task.asked() if pair[0] not in self.results.known]
            if asked:
                yield Todo(task.clip, asked)

    def anything_left(self) -> bool:
        """Whether there is something to ask a model; files that are no media may be all that is missing."""
        for todo in self.missing():
            if _is_wanted(todo.clip):
                return True
            self.asker.left_out[todo.clip.path] = None
        return False

    def go_on(self, qa: "OmniQA") -> Generator[Row, None, None]:
        """Ask this model what is missing; gives every line once it is written.

        Raises what `Asker.ask` and `write` raise.
        """
        self._check_model(qa.name)
        return self.write(self.asker.ask(qa, self.missing()))

    def write(self, lines: Generator[Row, None, None]) -> Generator[Row, None, None]:
        """Write lines as they come, whoever asked; gives each once it is written.

        Raises what `results` raises, and UsageError where lines of another model are there, which the settings need
        not tell if they name none.
        """
        with closing(lines):
            for row in lines:
                self._check_model(row["model"])
                self.results.add(row)
                yield row
        self.results.finish()

    def _check_model(self, name: str) -> None:
        if self.results.model not in (None, name):
            raise UsageError(
                f"The results are of the model {self.results.model}, not of {name}. Write to another file, or set "
                "--model."
            )


def _expected_frames(clip: ClipPath, sampling: ClipOptions) -> int:
    """How many frames are taken from a file if it holds what it says; where that can't be told, as many as may be."""
    try:
        from omniqa.media.probe import probe  # and with it PyAV: what is refused need not wait for it

        return 2 * estimate_tokens(probe(clip.path, sampling.access), sampling).grids
    except OmniqaError:
        return sampling.max_frames


def _is_wanted(clip: ClipPath) -> bool:
    return named_as_media(clip) or is_media(clip.path)


def _prepare(qa: "OmniQA", clip: ClipPath, sampling: ClipOptions, check: Callable[[], None] = lambda: None) -> "Ready":
    """The clip before the encoders. Whatever a strange file does to the decoders is trouble of that file alone."""
    if not _is_wanted(clip):
        raise NoMedia
    try:
        return qa.prepare(clip.path, sampling, progress=lambda stage, share: check())
    except (OmniqaError, Cancelled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MediaError(f"{clip.path} trips up the decoder ({type(error).__name__}: {error}).") from error


def _encode(qa: "OmniQA", asking: _Asking, prepare: Callable[[], "Ready"]) -> "EncodedClip":
    """The clip after both encoders; its pictures and sound are let go of."""
    prepared = prepare()
    asking.frames = prepared.frames
    return qa.encode(prepared)
