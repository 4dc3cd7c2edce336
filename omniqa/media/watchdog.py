"""A watch over reading and decoding: a file that makes no progress is given up, whatever holds it.

FFmpeg can't be stopped inside a call. So the work runs in a thread of its own and says `beat` at every packet; the
caller waits, and goes on without it once the beats stay away. Such a thread ends at its next beat, or with the process.
A caller that is interrupted waits for that beat, and what the thread had open is closed by then: no thread, none of
FFmpeg's either, and no file descriptor is left behind it.

The caller waits in a SimpleQueue, which an interrupt leaves whole. A Queue's condition may be left without its lock.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread, local
from typing import Any, TypeVar

from omniqa.errors import MediaError
from omniqa.interrupts import free_locals, interrupts_held
from omniqa.media.access import STALL_SECONDS
from omniqa.memory import memory_errors

T = TypeVar("T")
Progress = Callable[[float], None]

_TICK = 0.25  # seconds; time is counted in waits, so that a stopped process (Ctrl-Z) does not count

_LAST_WAIT_S = 10.0  # for a thread whose caller has gone; one that hangs inside FFmpeg is left behind

_here = local()


class Abandoned(BaseException):
    """Ends work whose caller has gone; nothing that handles errors shall handle it."""


@dataclass
class _Pulse:
    heartbeats: int = 0
    given_up: bool = False
    share: float = 0.0
    held_up_s: float = 0.0


@dataclass(frozen=True)
class _Done:
    value: Any = None
    error: BaseException | None = None


def heartbeat() -> None:
    """Say that reading goes on. Does nothing where nobody watches."""
    pulse: _Pulse | None = getattr(_here, "pulse", None)
    if pulse is None:
        return
    if pulse.given_up:
        raise Abandoned
    pulse.heartbeats += 1


def run_watched(work: Callable[[Progress], T], path: object, progress: Progress, stall: float = STALL_SECONDS) -> T:
    """What `work` returns or raises; it runs in another thread and is given up when it stands still.

    Args:
        work: gets a function that passes on the fraction done, and calls `beat`.
        path: the file, for the message.
        progress: called in this thread with the fractions that `work` tells.
        stall: seconds without a beat, to give up after.

    Raises:
        MediaError: nothing has moved for `stall` seconds.
    """
    pulse, told = _Pulse(), SimpleQueue[float | _Done]()
    news = _News(told, pulse, path, stall)
    with memory_errors(), _Worker(pulse, _run, work, pulse, told) as worker, closing(iter(news)) as shares:
        worker.start()
        for share in shares:
            progress(share)
    return news.result


def streamed(
    work: Callable[[Callable[[Any], None], Progress], T],
    path: object,
    progress: Progress,
    room: int,
    stall: float = STALL_SECONDS,
) -> Generator[Any, None, tuple[T, float]]:
    """What `work` hands on, piece by piece, while it goes on in another thread; given up like `watched`.

    Args:
        work: gets a function that hands on a piece, and one that passes on the fraction done; calls `beat`.
        path: the file, for the message.
        progress: called in this thread, at every piece, with the last fraction told.
        room: most pieces that wait to be taken. `work` waits then, and is not given up for it.
        stall: seconds without a beat, to give up after.

    Returns:
        What `work` returns, and the seconds that it took without waiting for room.

    Raises:
        MediaError: nothing has moved for `stall` seconds.
    """
    pulse, told, places = _Pulse(), SimpleQueue[Any](), SimpleQueue[None]()
    for _ in range(room):
        places.put(None)
    news = _News(told, pulse, path, stall)
    worker = _Worker(pulse, _run_ahead, work, pulse, told, places)
    with memory_errors(), worker, closing(iter(news)) as pieces:
        worker.start()
        for piece in pieces:
            places.put(None)
            progress(pulse.share)
            yield piece
    value, seconds = news.result
    progress(1.0)
    return value, seconds


class _Worker:
    """A thread that is there as long as its caller waits for it."""

    def __init__(self, pulse: _Pulse, target: Callable[..., None], *arguments: Any) -> None:
        self._pulse = pulse
        self._thread = Thread(target=target, args=arguments, name="omniqa-media", daemon=True)

    def start(self) -> None:
        with interrupts_held():  # in the middle of its start, nobody could tell whether there is a thread
            self._thread.start()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        stands_still = self._pulse.given_up
        self._pulse.given_up = True
        if not stands_still and self._thread.ident is not None:
            self._thread.join(_LAST_WAIT_S)


class _News:
    """What comes through a queue up to its end, and then `result`. Raises what the work raised."""

    def __init__(self, told: SimpleQueue[Any], pulse: _Pulse, path: object, stall: float) -> None:
        self._told, self._pulse, self._path, self._stall = told, pulse, path, stall
        self.result: Any = None

    def __iter__(self) -> Generator[Any, None, None]:
        idle, heartbeats = 0.0, 0
        while True:
            try:
                news = self._told.get(timeout=_TICK)
            except Empty:
                idle, heartbeats = (
                    (idle + _TICK if self._pulse.heartbeats == heartbeats else 0.0),
                    self._pulse.heartbeats,
                )
                if idle >= self._stall:
                    self._pulse.given_up = True
                    raise MediaError(
                        f"{self._path} was given up: nothing of it could be read for {self._stall:g} s."
                    ) from None
                continue
            if not isinstance(news, _Done):
                yield news
            elif news.error is not None:
                try:
                    raise news.error
                finally:
                    del news  # an error that holds the frame it is held by keeps decoders open until they are collected
            else:
                self.result = news.value
                return


def _run(work: Callable[[Progress], Any], pulse: _Pulse, told: SimpleQueue[float | _Done]) -> None:
    _here.pulse = pulse
    try:
        told.put(_Done(work(told.put)))
    except Abandoned:
        return
    except BaseException as error:  # noqa: BLE001  whatever it is, it is raised where the caller waits
        told.put(_failed(error))


def _run_ahead(
    work: Callable[[Callable[[Any], None], Progress], Any],
    pulse: _Pulse,
    told: SimpleQueue[Any],
    places: SimpleQueue[None],
) -> None:
    _here.pulse, begun = pulse, time.perf_counter()

    def hand_on(piece: Any) -> None:
        before = time.perf_counter()
        _take_place(places, pulse)
        told.put(piece)
        pulse.held_up_s += time.perf_counter() - before
        heartbeat()

    def report(share: float) -> None:
        pulse.share = share

    try:
        value = work(hand_on, report)
        told.put(_Done((value, time.perf_counter() - begun - pulse.held_up_s)))
    except Abandoned:
        return
    except BaseException as error:  # noqa: BLE001  whatever it is, it is raised where the caller waits
        told.put(_failed(error))


def _failed(error: BaseException) -> _Done:
    """An error that holds nothing open, nor the frame that waits for its being taken."""
    free_locals(error)
    return _Done(error=error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))


def _take_place(places: SimpleQueue[None], pulse: _Pulse) -> None:
    """Wait for room, as long as somebody is there to make it."""
    while not pulse.given_up:
        with suppress(Empty):
            places.get(timeout=_TICK)
            return
