"""One question on its way: through the queue, the model's thread, and back to the client as events."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omniqa.errors import OmniqaError, OutOfMemoryError
from omniqa.media.sampling import ClipOptions, selected_range
from omniqa.media.source import Source, open_source
from omniqa.models.base import check_length
from omniqa.pipeline.answer import Answer
from omniqa.pipeline.conversation import check_context
from omniqa.serve.chat_request import ChatRequest
from omniqa.serve.clips import ClipStore
from omniqa.serve.errors import NO_RETRY, ApiError, bad_request
from omniqa.serve.media import Medium, named
from omniqa.serve.settings import Limits
from omniqa.serve.turns import Turn, TurnEnded, TurnQueue

if TYPE_CHECKING:
    from omniqa.pipeline.engine import OmniQA

HEARTBEAT_S = 10.0
_STEP = 0.05  # of a stage's share, below which its progress is no news


class ClientGone(Exception):
    """The client went away; nobody is to be answered."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is; queued: how many turns wait before this one."""

    stage: str
    share: float


@dataclass(frozen=True)
class Piece:
    """A piece of the answer's text."""

    text: str


class Answerer:
    """Answers questions in the model's thread.

    Args:
        qa: the model.
        clips: encoded clips that are at hand.
        limits: what clients may use.
    """

    def __init__(self, qa: "OmniQA", clips: ClipStore, limits: Limits) -> None:
        self._qa, self._clips, self._limits = qa, clips, limits

    def answer(self, request: ChatRequest, medium: Medium, turn: Turn, tell: "Exchange") -> Answer:
        """Answer a question, telling of progress and of each piece of the text.

        Raises:
            ApiError: the clip or the conversation can't be used.
            TurnEnded: the client has gone, or the time is over.
        """
        try:
            return self._answer(request, medium, turn, tell)
        except OutOfMemoryError as error:
            self._clips.trim(0)
            raise named(error, medium) from error
        except OmniqaError as error:
            raise named(error, medium) from error

    def _answer(self, request: ChatRequest, medium: Medium, turn: Turn, tell: "Exchange") -> Answer:
        qa, method, sampling = self._qa, request.method, request.sampling

        def progress(stage: str, share: float) -> None:
            turn.check()
            tell.progress(stage, share)

        turn.check()
        check_length(request.prompt)
        source = open_source(medium.path, sampling.access)
        _check_duration(source, sampling, self._limits.clip_s)
        clip, fresh = self._clips.get(
            medium.digest, sampling, method, lambda: qa.encode(source, sampling, method=method, progress=progress)
        )
        check_context(qa, clip, request.prompt, method, request.decoding.max_new_tokens)
        spent = clip.timing_s if fresh else {}
        pieces = qa.stream(clip, request.prompt, method, request.decoding, spent, progress)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                self._clips.trim()
                return replace(end.value, video=medium.name)
            turn.check()
            tell.put(Piece(piece))


def _check_duration(source: Source, sampling: ClipOptions, most_s: float) -> None:
    start, end = selected_range(source.info, sampling)
    if end - start > most_s:
        raise bad_request(
            f"The clip is {float(end - start):,.0f} s long; this server takes {most_s:,.0f} s. Set clip.start and "
            "clip.end.",
            "clip",
            "too_long",
        )


class Exchange:
    """Events of one turn, put by the model's thread and taken by the event loop."""

    def __init__(self, turns: TurnQueue, limits: Limits) -> None:
        self._turns, self._limits = turns, limits
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._told: dict[str, float] = {}
        self._turn: Turn | None = None
        self._asked = time.monotonic()

    def put(self, event: Any) -> None:
        """Hand on an event, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def progress(self, stage: str, share: float) -> None:
        """Hand on how far a stage is, if that is news."""
        if share >= 1 or share - self._told.get(stage, -1.0) >= _STEP:
            self._told[stage] = share
            self.put(Progress(stage, share))

    @property
    def waited_s(self) -> float:
        """How long the question waited for its turn."""
        started = self._turn.started if self._turn else None
        return (started or time.monotonic()) - self._asked

    def check_place(self) -> None:
        """Refuse a question for which there is no place, before anything is done for it.

        Raises:
            ApiError: too many wait.
        """
        if self._turns.is_full:
            raise self._full()

    def begin(self, answerer: Answerer, request: ChatRequest, medium: Medium, held: ExitStack) -> None:
        """Let the question wait for its turn.

        Args:
            answerer: answers it.
            request: the question.
            medium: its clip.
            held: what keeps the clip's file there; it is closed once the turn is over.

        Raises:
            ApiError: too many wait.
        """

        def done(answer: Any, error: BaseException | None) -> None:
            held.close()
            self.put(answer if error is None else error)

        turn = Turn(lambda turn: answerer.answer(request, medium, turn, self), done, self._limits.turn_s)
        if not self._turns.add(turn):
            held.close()
            raise self._full()
        self._turn = turn

    def cancel(self) -> None:
        """Give the turn up, wherever it is."""
        if self._turn is not None:
            self._turns.drop(self._turn)

    async def events(self, gone: "asyncio.Task[None]") -> AsyncIterator[Progress | Piece | Answer | None]:
        """Progress and pieces as they come, and the answer last. None says that nothing came for a while.

        Args:
            gone: ends once the client has gone.

        Raises:
            ClientGone: it has.
            ApiError: the question can't be answered, or waited too long.
        """
        try:
            while True:
                event = await self._next(gone)
                if isinstance(event, BaseException):
                    raise self._error(event)
                yield event
                if isinstance(event, Answer):
                    return
        finally:
            self.cancel()

    async def _next(self, gone: "asyncio.Task[None]") -> Any:
        assert self._turn is not None
        seconds = HEARTBEAT_S
        if self._turn.started is None:
            seconds = min(seconds, max(0.0, self._asked + self._limits.wait_s - time.monotonic()))
        taking = asyncio.ensure_future(self._events.get())
        try:
            await asyncio.wait({taking, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
        finally:
            taking.cancel()
        if gone.done():
            raise ClientGone
        if self._turn.started is None and time.monotonic() - self._asked >= self._limits.wait_s:
            raise self._busy(f"The question waited {self._limits.wait_s:g} s for its turn")
        return None

    def _error(self, error: BaseException) -> BaseException:
        if isinstance(error, TurnEnded):
            if self._turn is not None and self._turn.overdue:
                return ApiError(
                    504, f"The answer took longer than {self._limits.turn_s:g} s.", "too_slow", headers=NO_RETRY
                )
            return ApiError(503, "The server is ending.", "ending", headers=NO_RETRY)
        return error

    def _full(self) -> ApiError:
        return self._busy("Too many questions wait")

    def _busy(self, why: str) -> ApiError:
        seconds = self._turns.retry_after_s
        return ApiError(
            429, f"{why}. Try again in {seconds} s.", "rate_limit_exceeded", headers={"retry-after": str(seconds)}
        )
