"""That work which ends early leaves nothing behind: Ctrl-C held back for a moment, errors that hold nothing open."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back SIGINT in the block, and act on it after it. For blocks that take no time.

    Python interrupts the main thread alone; in others this does nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
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
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
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
