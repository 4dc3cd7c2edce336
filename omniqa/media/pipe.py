"""Media that comes through a pipe, kept in a temporary file: it must be sought in, and is read more than once."""

import os
import select
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omniqa.errors import MediaError
from omniqa.interrupts import interrupts_held
from omniqa.media.access import STALL_SECONDS

_PIECE = 2**20


def is_pipe(path: str) -> bool:
    """Whether a path is a named pipe, as one made by mkfifo or by a shell's <(command)."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):  # not there, or no path at all: whoever opens it says so
        return False


def read_pipe(path: str, stall: float = STALL_SECONDS) -> Iterator[bytes]:
    """All that a named pipe gives, in pieces.

    Raises:
        MediaError: nobody writes to it for `stall` seconds, or it can't be read.
    """
    try:
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without a writer, a plain open would wait for ever
    except OSError as error:
        raise MediaError(f"{path} can't be read: {error.strerror}.") from error
    try:
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        while True:
            if not waiting.poll(1000 * stall):
                raise MediaError(f"{path} is a pipe into which nothing was written for {stall:g} s.")
            piece = os.read(pipe, _PIECE)
            if not piece:
                return
            yield piece
    finally:
        os.close(pipe)


@contextmanager
def spool_to_tempfile(pieces: Iterable[bytes], name: str) -> Iterator[Path]:
    """A temporary file of these bytes, deleted in the end.

    Raises:
        MediaError: there is no room for it.
    """
    with ExitStack() as held:
        with interrupts_held():  # between its making and its name being known, nobody could delete it
            file = held.enter_context(tempfile.NamedTemporaryFile(prefix="omniqa-", suffix=".media"))
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
        except OSError as error:
            raise MediaError(f"{name} can't be kept in {tempfile.gettempdir()}: {error.strerror}.") from error
        yield Path(file.name)
