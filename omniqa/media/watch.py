"""A watch over reading and decoding: a file that makes no progress is given up, whatever holds it.

FFmpeg can't be stopped inside a call. So the work runs in a thread of its own and says `beat` at every packet; the
caller waits, and goes on without it once the beats stay away. Such a thread ends at its next beat, or with the process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread, local
from typing import Any, TypeVar

from omniqa.errors import MediaError
from omniqa.media.access import STALL_SECONDS

T = TypeVar("T")
Progress = Callable[[float], None]

_TICK = 0.25  # seconds; time is counted in waits, so that a stopped process (Ctrl-Z) does not count

_here = local()


class GivenUp(BaseException):
    """Ends work whose caller has gone; nothing that handles errors shall handle it."""


@dataclass
class _Pulse:
    beats: int = 0
    given_up: bool = False


@dataclass(frozen=True)
class _Done:
    value: Any = None
    error: BaseException | None = None


def beat() -> None:
    """Say that reading goes on. Does nothing where nobody watches."""
    pulse: _Pulse | None = getattr(_here, "pulse", None)
    if pulse is None:
        return
    if pulse.given_up:
        raise GivenUp
    pulse.beats += 1


def watched(work: Callable[[Progress], T], path: object, progress: Progress, stall: float = STALL_SECONDS) -> T:
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
    Thread(target=_run, args=(work, pulse, told), name="omniqa-media", daemon=True).start()
    idle, beats = 0.0, 0
    try:
        while True:
            try:
                news = told.get(timeout=_TICK)
            except Empty:
                idle, beats = (idle + _TICK if pulse.beats == beats else 0.0), pulse.beats
                if idle >= stall:
                    raise MediaError(f"{path} was given up: nothing of it could be read for {stall:g} s.") from None
                continue
            if not isinstance(news, _Done):
                progress(news)
            elif news.error is not None:
                raise news.error
            else:
                return news.value
    finally:
        pulse.given_up = True


def _run(work: Callable[[Progress], Any], pulse: _Pulse, told: SimpleQueue[float | _Done]) -> None:
    _here.pulse = pulse
    try:
        told.put(_Done(work(told.put)))
    except BaseException as error:  # noqa: BLE001  whatever it is, it is raised where the caller waits
        told.put(_Done(error=error))
