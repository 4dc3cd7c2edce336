"""Asks about clip after clip: decoding the next ones meanwhile, encoding each once, writing every line as it comes."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omniqa.errors import CLIP_ERRORS, MediaError, NotFiniteError, OmniqaError, OutOfMemoryError, UsageError
from omniqa.file_state import FileState
from omniqa.jobs.clips import ClipPath, Clips, is_media, named_as_media
from omniqa.jobs.fault_streak import FaultStreak
from omniqa.jobs.jsonl_store import Row
from omniqa.jobs.prefetch import Cancelled, prefetch
from omniqa.jobs.results import Results
from omniqa.jobs.rows import ClipQuestions, ClipRequest, JobRows, Request
from omniqa.media.sampling import ClipOptions
from omniqa.memory import is_out_of_memory, memory_errors
from omniqa.pipeline.token_estimate import estimate_tokens
from omniqa.pruning.budget import ClipTokens, Unreachable
from omniqa.pruning.contract import AnyMethod, needs_attended
from omniqa.pruning.variants import MethodVariant
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.generation_options import GenerationOptions

if TYPE_CHECKING:
    from omniqa.pipeline.answer import Answer
    from omniqa.pipeline.engine import EncodedClip, OmniQA, Ready

_FEWEST_FRAMES = 2


class NoMedia(Exception):
    """A file in a folder that is neither moving pictures nor sound: nobody asked about it."""


@dataclass(frozen=True)
class FailurePolicy:
    """What is done about a question that can't be answered as asked.

    Attributes:
        halve_frames: if memory runs out, the clip is asked about again with half its frames.
        nearest_retention: a method that can't reach the retention on a clip is asked at the nearest that it reaches.
        retry: what failed in an earlier run is asked again.
    """

    halve_frames: bool = False
    nearest_retention: bool = False
    retry: bool = False


class Todo(NamedTuple):
    """A clip, and the requests about it that have no line yet."""

    clip: ClipPath
    requests: list[Request]


@dataclass
class _Asking:
    """A clip that is being asked about. left: what has no line yet.

    Attributes:
        file: the clip's file as it was right before it was decoded.
        frames: how many are looked at, 0 until it is known.
        had_frames: how many there were when memory ran out, if it did.
        fault: that the model computed no numbers, if it did not.
    """

    clip: ClipPath
    left: deque[Request]
    file: FileState | None
    frames: int = 0
    had_frames: int | None = None
    fault: NotFiniteError | None = None

    def about(self, request: Request, encoders_s: float | None = None) -> ClipRequest:
        """One of its requests."""
        return ClipRequest(self.clip, request, self.file, self.had_frames, encoders_s)


@dataclass
class _Encodings:
    """A clip after both encoders: for methods that prune inside the vision encoder by rule, for all others as None.

    told: those of which an answer has told what encoding took.
    """

    by_rule: "dict[VisionRule | None, EncodedClip]"
    told: "set[VisionRule | None]" = field(default_factory=set)

    @property
    def counts(self) -> ClipTokens:
        """The clip's tokens before any pruning."""
        return next(iter(self.by_rule.values())).counts


@dataclass
class Runner:
    """How clips are asked about.

    Attributes:
        clips: where they come from.
        rows: what is put to the model, and what a line holds.
        policy: what is done about failures.
        prefetch: how many clips are decoded ahead of the one that the model works on.
        timed_alone: each answer's time and memory are its own, as if nothing had been asked about the clip before.
        describe: the text of an error in its row; the command line names its flags there.
        left_out: files in folders that turned out to be no media.
        waited_s: how long the model waited for decoding.
    """

    clips: Clips
    decoding: GenerationOptions
    rows: JobRows
    policy: FailurePolicy
    prefetch: int = 1
    timed_alone: bool = False
    describe: Callable[[OmniqaError], str] = str
    left_out: dict[str, None] = field(default_factory=dict)
    waited_s: float = 0.0
    _faults: FaultStreak = field(default_factory=FaultStreak)

    def ask(self, qa: "OmniQA", todos: Iterable[Todo]) -> Generator[Row, None, None]:
        """The lines about these clips, one after the other.

        What one clip or question fails by is its line; ModelError is raised,
        and so is a fault of the model at several clips in a row.
        """

        def prepare(item: tuple[Todo, FileState | None], check: Callable[[], None]) -> "Ready":
            return _prepare(qa, self.clips, item[0].clip, None, check, _attended(item[0].requests))

        # Each is looked at right before its thread begins: what is written to it from then on makes it another file.
        seen = ((todo, self.clips.file(todo.clip.path)) for todo in todos)
        with closing(prefetch(seen, prepare, self.prefetch)) as clips:
            for (todo, file), take in clips:
                yield from self._of_clip(qa, _Asking(todo.clip, deque(todo.requests), file), take)

    def _of_clip(self, qa: "OmniQA", asking: _Asking, take: Callable[[], "Ready"]) -> Iterator[Row]:
        try:
            try:
                yield from self._answers(qa, asking, lambda: self._waited_for(take))
            except OutOfMemoryError:
                asking.frames = asking.frames or _expected_frames(asking.clip, self.clips.sampling)
                if not self.policy.halve_frames or asking.frames <= _FEWEST_FRAMES:
                    raise
            if asking.left:  # here, what the first attempt held is free
                asking.had_frames, asking.frames = asking.frames, max(_FEWEST_FRAMES, asking.frames // 2)
                asking.file = self.clips.file(asking.clip.path)
                yield from self._answers(
                    qa,
                    asking,
                    lambda: _prepare(qa, self.clips, asking.clip, asking.frames, attended=_attended(asking.left)),
                )
        except NoMedia:
            self.left_out[asking.clip.path] = None
        except CLIP_ERRORS as error:
            tried = f" Tried with {asking.had_frames} and {asking.frames} frames." if asking.had_frames else ""
            yield from self._failures(qa, asking, f"{self.describe(error)}{tried}")
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
        """A line for each request that is left; raises if the clip can't be used or memory runs out."""
        with memory_errors():
            encodings = self._encode(qa, asking, prepare)
        while asking.left:
            row = self._answer(qa, asking, encodings)
            asking.left.popleft()
            yield row

    def _encode(self, qa: "OmniQA", asking: _Asking, prepare: Callable[[], "Ready"]) -> _Encodings:
        """The clip after both encoders, once for each rule; its pictures and sound are freed."""
        from omniqa.pipeline.engine import EncodedClip

        ready = prepare()
        asking.frames = ready.frames
        shape = ready.shape
        clip = ClipTokens(shape.audio_tokens, shape.grids, shape.tokens_per_grid)
        rules = {self._rule(qa, request.column.pruner, clip): request.column.pruner for request in asking.left}
        encoded: dict[VisionRule | None, EncodedClip] = {}
        if None in rules:
            del rules[None]
            encoded[None] = qa.encode(ready, attended=_attended(asking.left))
        if rules and isinstance(ready, EncodedClip):  # from the cache, with all tokens
            ready = _prepare(qa, self.clips, asking.clip, asking.frames, decode=True)
        for rule, pruner in rules.items():
            encoded[rule] = qa.encode(ready, method=self._reached(pruner, clip, qa))
        return _Encodings(encoded)

    def _reached(self, pruner: AnyMethod, clip: ClipTokens, qa: "OmniQA") -> AnyMethod:
        """The method, at the nearest retention that it reaches on this clip if the policy says so."""
        try:
            pruner.plan(clip, qa.model.layers)
        except Unreachable as error:
            if self.policy.nearest_retention:
                return replace(pruner, retention=error.nearest)
        return pruner

    def _rule(self, qa: "OmniQA", pruner: AnyMethod, clip: ClipTokens) -> VisionRule | None:
        """The rule that the clip is encoded by; None also for a method that will refuse the clip."""
        try:
            return qa.early_rule(self._reached(pruner, clip, qa), clip)
        except UsageError:
            return None

    def _answer(self, qa: "OmniQA", asking: _Asking, encodings: _Encodings) -> Row:
        """The line of the next request. The first answer from an encoding tells what encoding took."""
        request = asking.left[0]
        rule = self._rule(qa, request.column.pruner, encodings.counts)
        video = encodings.by_rule[rule]
        try:
            answer = self._ask(qa, video, request, first=not self.timed_alone and rule not in encodings.told)
            encodings.told.add(rule)
        except (*CLIP_ERRORS, NotFiniteError) as error:
            if isinstance(error, OutOfMemoryError) and self.policy.halve_frames:
                raise
            asking.fault = error if isinstance(error, NotFiniteError) else asking.fault
            return self.rows.failed(asking.about(request), self.describe(error), qa.name)
        encoders = [video.timing_s[stage] for stage in ("vision_encoder", "audio_encoder") if stage in video.timing_s]
        return self.rows.answered(asking.about(request, sum(encoders) if encoders else None), answer)

    def _ask(self, qa: "OmniQA", video: "EncodedClip", request: Request, first: bool) -> "Answer":
        def ask(pruner: AnyMethod) -> "Answer":
            prompts, reuse = [self.rows.prompt(request.question)], not self.timed_alone
            with memory_errors():
                answers = qa.ask_all(
                    video, prompts, pruner, decoding=self.decoding, count_encoding=first, reuse_prefix=reuse
                )
                return next(answers)

        pruner = self._reached(request.column.pruner, video.counts, qa)
        try:
            return ask(pruner)
        except Unreachable as error:  # some methods learn it from the tokens, not from their counts
            if not self.policy.nearest_retention:
                raise
            nearest = replace(pruner, retention=error.nearest)
        return ask(nearest)

    def _failures(self, qa: "OmniQA", asking: _Asking, error: str) -> Iterator[Row]:
        return (self.rows.failed(asking.about(request), error, qa.name) for request in asking.left)


@dataclass
class Job:
    """Clips, questions and methods: every question is asked by every method once; and where the lines go."""

    tasks: Sequence[ClipQuestions]
    columns: Sequence[MethodVariant]
    runner: Runner
    results: Results

    def missing(self) -> Iterator[Todo]:
        """What is still to be asked, clip after clip."""
        for task in self.tasks:
            if task.clip.path in self.runner.left_out:
                continue
            requests = [Request(id, question, column) for id, question in task.asked() for column in self.columns]
            left = [request for request in requests if request.key not in self.results.known]
            if left:
                yield Todo(task.clip, left)

    def anything_left(self) -> bool:
        """Whether there is something to ask a model; files that are no media may be all that is missing."""
        for todo in self.missing():
            if _is_wanted(todo.clip):
                return True
            self.runner.left_out[todo.clip.path] = None
        return False

    def go_on(self, qa: "OmniQA") -> Generator[Row, None, None]:
        """Ask this model what is missing; gives every line once it is written.

        Raises what `Runner.ask` and `write` raise.
        """
        self._check_model(qa.name)
        return self.write(self.runner.ask(qa, self.missing()))

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
                f"The results are of the model {self.results.model}, not of {name}.",
                field="model",
                advice="Write to another file, or set {model}.",
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


def _prepare(
    qa: "OmniQA",
    clips: Clips,
    clip: ClipPath,
    frames: int | None,
    check: Callable[[], None] = lambda: None,
    attended: bool = False,
    decode: bool = False,
) -> "Ready":
    """The clip before the encoders. Whatever a strange file does to the decoders is trouble of that file alone.

    Args:
        frames: the most that are taken; None is what the sampling says.
        attended, decode: see `OmniQA.prepare`.
    """
    if not _is_wanted(clip):
        raise NoMedia
    try:
        source = clips.source(clip.path, qa.pixels)
        sampling = clips.sampling if frames is None else replace(clips.sampling, max_frames=frames)
        options = sampling if isinstance(source, str | Path) else None  # what is drawn is sampled already
        return qa.prepare(source, options, attended=attended, progress=lambda stage, share: check(), decode=decode)
    except (OmniqaError, Cancelled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MediaError(f"{clip.path} trips up the decoder ({type(error).__name__}: {error}).") from error


def _attended(requests: Iterable[Request]) -> bool:
    return needs_attended(*[request.column.pruner for request in requests])
