"""The queue in front of the model: one question is answered at a time, in the order in which they came."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omniqa.interrupts import free_locals


class TurnEnded(BaseException):
    """Ends a turn whose client has gone, or that has had its time. Nothing that handles errors shall handle it."""


@dataclass(eq=False)
class Turn:
    """A question that waits for the model, or is being answered.

    Attributes:
        work: what is done once it is the turn's time; it calls `check` between its steps.
        done: is called once with what `work` gave or raised, in the model's thread, or in that of whoever drops a turn
            that waits.
        most_s: seconds that it may take.
        started: when it began, by the monotonic clock; None while it waits.
    """

    work: Callable[["Turn"], Any]
    done: Callable[[Any, BaseException | None], None]
    most_s: float
    started: float | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Go on.

        Raises:
            TurnEnded: the client has gone, or the time is over.
        """
        if self._cancelled.is_set():
            raise TurnEnded
        if self.overdue:
            raise TurnEnded

    @property
    def wanted(self) -> bool:
        """Whether its client still waits."""
        return not self._cancelled.is_set()

    @property
    def overdue(self) -> bool:
        """Whether it has taken longer than it may."""
        return self.started is not None and time.monotonic() - self.started > self.most_s

    def cancel(self) -> None:
        """Let it end at its next step."""
        self._cancelled.set()


class TurnQueue:
    """A thread that takes turns, one after the other.

    Args:
        most: turns that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Turn] = deque()
        self._running: Turn | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._recent_s = 1.0  # what a turn took lately
        self._thread = threading.Thread(target=self._run, name="omniqa-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many turns wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no further turn can wait."""
        return self._closed or len(self._waiting) >= self._most + (self._running is None)

    @property
    def is_busy(self) -> bool:
        """Whether a turn is being taken."""
        return self._running is not None

    @property
    def retry_after_s(self) -> int:
        """Seconds after which there may be a place again: about what a turn takes."""
        return max(1, min(60, round(self._recent_s)))

    def add(self, turn: Turn) -> bool:
        """Let a turn wait for its time; False if too many wait."""
        with self._changed:
            if self.is_full:
                return False
            self._waiting.append(turn)
            self._changed.notify()
        return True

    def drop(self, turn: Turn) -> None:
        """Cancel a turn; if it waits, its place is free at once, and it is done."""
        turn.cancel()
        with self._changed:
            if turn not in self._waiting:
                return
            self._waiting.remove(turn)
        turn.done(None, TurnEnded())

    def close(self, wait_s: float = 10.0) -> None:
        """Take no more turns, and end the one at hand at its next step."""
        with self._changed:
            self._closed = True
            waiting, running = list(self._waiting), self._running
            self._changed.notify()
        for turn in waiting:
            self.drop(turn)
        if running is not None:
            running.cancel()
        self._thread.join(wait_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                turn = self._running = self._waiting.popleft()
            try:
                self._take(turn)
            finally:
                self._running = None

    def _take(self, turn: Turn) -> None:
        turn.started = time.monotonic()
        given, error = None, None
        try:
            given = turn.work(turn)
        except BaseException as raised:  # noqa: BLE001 (it goes to whoever waits)
            error = raised
            free_locals(raised)
        self._recent_s = 0.7 * self._recent_s + 0.3 * (time.monotonic() - turn.started)
        turn.done(given, error)
