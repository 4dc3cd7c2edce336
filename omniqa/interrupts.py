"""That work which ends early ends whole: no Ctrl-C is lost or comes halfway, and errors hold nothing open."""

import _thread
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SOON_S = 0.01  # once Python has left the hook


def _own_handler() -> Callable[[int, FrameType | None], object] | None:
    """What Python runs at Ctrl-C; None in threads other than the main one, which alone is interrupted."""
    handler = signal.getsignal(signal.SIGINT)
    return handler if callable(handler) and threading.current_thread() is threading.main_thread() else None


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Let every Ctrl-C in the block leave it as KeyboardInterrupt, whoever drops or replaces that one on its way.

    Python drops what is raised while it frees an object, such as in a finaliser: there it is raised once more. C code
    may raise an error of its own in its place: that is told apart by the signal, which was noted. A part that handles
    KeyboardInterrupt and goes on needs a block of its own. Outside the main thread this does nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed in the block.
    """
    handler = _own_handler()
    if handler is None:
        yield
        return
    presses = _Presses()
    presses.watch()
    try:
        yield
    except Exception as error:
        if presses.count:
            raise KeyboardInterrupt from error
        raise
    finally:
        presses.leave(handler)
    if presses.count:
        raise KeyboardInterrupt


class _Presses:
    """Every Ctrl-C from `watch` to `leave`, raised until it goes through."""

    def __init__(self) -> None:
        self.count = 0
        self._raises = True
        self._other = sys.unraisablehook
        self._again: list[threading.Timer] = []

    def watch(self) -> None:
        sys.unraisablehook = self._raise_again
        signal.signal(signal.SIGINT, self._note)

    def leave(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self._raises = False
        for timer in self._again:
            timer.cancel()
            timer.join()
        sys.unraisablehook = self._other
        signal.signal(signal.SIGINT, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raises:
            raise KeyboardInterrupt

    def _raise_again(self, dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            self._other(dropped)
            return
        # Soon, not here: what is raised here is dropped, too.
        self._again.append(threading.Timer(_SOON_S, _thread.interrupt_main))
        self._again[-1].start()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back SIGINT in the block, and act on it after it. For blocks that take no time.

    Python interrupts the main thread alone; in others this does nothing.
    """
    handler = _own_handler()
    if handler is None:
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[-1])


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end the block only where it asks for it, so that nothing is left half done.

    Outside the main thread, which alone is interrupted, it changes nothing.

    Yields:
        A function for the block to call between its steps. It raises KeyboardInterrupt once Ctrl-C has been pressed. A
        second Ctrl-C does not wait for it.
    """
    handler = _own_handler()
    if handler is None:
        yield lambda: None
        return
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            handler(number, frame)
        pressed.append(number)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, handler)


def free_locals(error: BaseException) -> None:
    """Free the variables of the functions that an error has ended, and of those that led to it.

    An error that goes to another thread outlives its functions. What they had open, such as a decoder with its threads,
    would stay open as long.
    """
    led, seen = [error], set[int]()
    while led:
        one = led.pop()
        if id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            led += [other for other in (one.__cause__, one.__context__) if other is not None]
