"""Work on what comes next, in other threads, while this one is used: a bounded number of steps ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from queue import SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

from omniqa.interrupts import free_locals, interrupts_held

S = TypeVar("S")
T = TypeVar("T")
_LAST_WAIT_S = 10.0  # for a thread that was told to stop; one that hangs in the decoder is left behind


class Cancelled(Exception):
    """Nobody waits for this work any more."""


class Pending(Generic[T]):
    """Work that a thread of its own is doing."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self.thread = Thread(target=self._run, args=(work,), daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:  # no room for a thread
            self._outcome.put((None, error))

    def take(self) -> T:
        """Wait for the result, or raise what the work raised. Once: it is held here no longer."""
        result, error = self._outcome.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # which holds this frame, and would hold itself by it
        return result  # type: ignore[return-value]  # there is one where there is no error

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised in `take`
            free_locals(error)
            self._outcome.put((None, error))


def prefetch(
    items: Iterable[S], work: Callable[[S, Callable[[], None]], T], count: int
) -> Generator[tuple[S, Callable[[], T]], None, None]:
    """Each item in turn, with a function that waits for its result.

    While one is used, the next `count` are worked on or wait, each in a thread of its own; never more, so that at most
    count + 1 results are held at once.
    work: gets the item, and a function to call now and then; that raises Cancelled once this generator is closed.
    """
    stop = Event()

    def check() -> None:
        if stop.is_set():
            raise Cancelled

    def begin(item: S) -> Pending[T]:
        return Pending(lambda: work(item, check))

    source = iter(items)
    waiting: deque[tuple[S, Pending[T]]] = deque()
    pending = None
    try:
        while True:
            for item in islice(source, count + 1 - len(waiting)):
                with interrupts_held():  # a thread that has begun is known here, or has not
                    waiting.append((item, begin(item)))
            if not waiting:
                return
            item, pending = waiting[0]
            waiting.popleft()
            yield item, pending.take
    finally:
        stop.set()
        for _, left in [(None, pending), *waiting]:
            if left is not None and left.thread.ident is not None:
                left.thread.join(_LAST_WAIT_S)
