"""What a process holds open, and an interrupt at a given step of what it does."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PACKAGE = str(Path(__file__).parents[1] / "omniqa")
_PATIENCE_S = 3.0  # the kernel takes a moment to end a thread that Python has joined
_SETTLING_S = 0.1


class Held(NamedTuple):
    """Names of Python's threads, how many threads there are of any kind, and what descriptors lead to."""

    threads: list[str]
    tasks: int
    files: list[str]


def held() -> Held:
    """What is held at this moment, by threads that are about to end, too."""
    files = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            files.append(os.readlink(link))
    threads = sorted(thread.name for thread in threading.enumerate())
    return Held(threads, len(os.listdir("/proc/self/task")), sorted(files))


def settled() -> Held:
    """What is held once nothing is about to end."""
    time.sleep(_SETTLING_S)
    return held()


def left_behind(before: Held) -> list[str]:
    """What is held beyond `before` once threads that have ended are gone: threads and files by name."""
    end = time.monotonic() + _PATIENCE_S
    while (more := _more(held(), before)) and time.monotonic() < end:
        time.sleep(0.005)
    return more


def _more(now: Held, before: Held) -> list[str]:
    more = Counter([*now.threads, *now.files]) - Counter([*before.threads, *before.files])
    return [*more.elements(), *["a thread that is none of Python's"] * (now.tasks - before.tasks)]


def steps_of(work: Callable[[], object], at: int = 0) -> int:
    """Run `work`; give how many lines of the package this thread ran. SIGINT comes at line `at` of them."""
    steps = 0

    def step(frame, event, argument):
        nonlocal steps
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        # Python itself takes no signal while it resumes a generator that delegates; "call" would be such a moment.
        steps += event == "line"
        if steps == at and event == "line":
            signal.raise_signal(signal.SIGINT)
        return step

    sys.settrace(step)
    try:
        work()
    finally:
        sys.settrace(None)
    return steps
