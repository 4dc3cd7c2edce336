r"""The process's own streams: the one place where omniqa reads stdin and writes to stdout and stderr.

What others wrote (file names, tags, questions, answers) may hold control characters that move a terminal's cursor,
change its title, or turn the order of letters around. They are written as visible escapes such as `\x1b`. JSON
has escapes of its own; data such as CSV is left as it is where it goes into a file or a pipe.

Results go to stdout: where they can't be written, the command ends with an error. Messages go to stderr: where they
can't be written, the command goes on without them.
"""

import os
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from omniqa.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

STDIN, STDOUT, STDERR = 0, 1, 2
LAYOUT = "\n\t"  # the control characters that an answer may hold
# Controls, invisible formatting (bidi overrides and isolates among it), line and paragraph separators, surrogates.
_UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
# Formatting that joins letters or emoji, and what only hints at where a word may break.
_HARMLESS = frozenset("\u200c\u200d\u00ad\u2060")
_PIECE = 2**20


def printable(text: str, keep: str = "") -> str:
    r"""Text that is safe for a terminal: control characters become escapes, as `\x1b` or `\u202e`.

    It goes by single characters, so that a text in pieces is as safe as the whole.

    Args:
        text: whatever came from outside.
        keep: control characters that stay, such as `LAYOUT`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in keep else _escaped(one) for one in text)


@cache
def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE or character in _HARMLESS:
        return character
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Printable text on one line: runs of white space become a space."""
    return printable(" ".join(text.split()))


def give_up_stdout() -> None:
    """Let stdout take all and keep nothing: nobody reads it any more."""
    _to_nowhere(sys.stdout)


def _to_nowhere(stream: TextIO) -> None:
    """Let nothing that the stream still holds back fail when the process ends."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class _Stream(ABC):
    """A standard stream for as long as a command runs; all but writing is left to the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write; what can't be written is `_failed`'s business."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self.stream.flush()
        except OSError as error:
            self._failed(error)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    @abstractmethod
    def _failed(self, error: OSError) -> None:
        """Handle what could not be written."""

    def _give_up(self) -> None:
        _to_nowhere(self.stream)


class _Results(_Stream):
    """stdout: what can't be written there is an error."""

    def _failed(self, error: OSError) -> None:
        self._give_up()
        if isinstance(error, BrokenPipeError):
            raise error
        raise UsageError(f"stdout can't be written to ({error.strerror}).") from error


class _Messages(_Stream):
    """stderr: what can't be written there is lost, for there is nowhere to say so."""

    def _failed(self, error: OSError) -> None:
        self._give_up()


class _OtherMessages(_Messages):
    """stderr as libraries and `say` have it: what they write is made printable, and stands above a drawn bar."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.drawn: Console | None = None
        self._line = ""

    def write(self, text: str) -> int:
        """Write, with control characters as escapes; libraries' own bars begin with a carriage return."""
        start = "\r" if text.startswith("\r") else ""
        safe = start + printable(text.removeprefix(start), LAYOUT)
        if self.drawn is None:
            super().write(safe)
            return len(text)
        *lines, self._line = (self._line + safe).split("\n")
        for line in lines:
            self.drawn.print(line.rpartition("\r")[2], soft_wrap=True)
        return len(text)


@contextmanager
def guarded() -> Iterator[None]:
    """Run with standard streams that fail as they should, and through which libraries write nothing unsafe."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Results(sys.stdout), _OtherMessages(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def open_standard_streams() -> None:
    """Give the process the streams that it was started without (`>&-`), and stdout a way to show any character.

    A closed stdin or stdout fails when it is used; a closed stderr takes all and shows nothing. No file that is opened
    later gets their numbers.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_WRONLY)  # the lowest free number, which is 0; reading from it fails
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 (for as long as the process runs)
    if sys.stdout is None:
        os.open(os.devnull, os.O_RDONLY)  # writing to it fails
        sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = open(STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def check_stdout() -> None:
    """Raise UsageError where stdout is closed, before work is done whose result has nowhere to go."""
    try:
        os.write(sys.stdout.fileno(), b"")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"stdout can't be written to ({error.strerror}).") from error


def write(text: str) -> None:
    """Write to stdout at once, as a person reads it: control characters other than LAYOUT become escapes."""
    sys.stdout.write(printable(text, LAYOUT))
    sys.stdout.flush()


def write_data(text: str) -> None:
    """Write data without control characters, such as JSON, to stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def for_file(data: bytes, file: int) -> bytes:
    """Data as it may be written to a descriptor: unchanged, or printable where that is a terminal."""
    if not os.isatty(file):
        return data
    text = data.decode(errors="surrogateescape").replace("\r\n", "\n")
    return printable(text, LAYOUT).encode()


class BinaryStdout:
    """stdout for lines of data."""

    def write(self, data: bytes) -> int:
        """Write `data`; on a terminal, printable."""
        return sys.stdout.buffer.write(for_file(data, sys.stdout.fileno()))

    def flush(self) -> None:
        """Write what is held back."""
        sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a line to stderr, or several."""
    sys.stderr.write(printable(text, LAYOUT) + "\n")
    sys.stderr.flush()


def rich_console(stderr: bool = False, width: int | None = None) -> "Console":
    """A Rich console on stdout or stderr; no text in it is taken for markup. Text goes in by `printable`."""
    from rich.console import Console

    file: Any = sys.stderr if stderr else sys.stdout
    if isinstance(file, _OtherMessages):  # Rich moves the cursor and colours by control characters of its own
        file = _Messages(file.stream)
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def columns(stream: TextIO) -> int | None:
    """Characters that a terminal shows in a line; None where the stream is none, or it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # no terminal; a stream without a descriptor
        return None


@contextmanager
def drawing(console: "Console") -> Iterator[None]:
    """Let lines for stderr stand above what `console` draws there meanwhile, such as a bar."""
    messages = sys.stderr
    if not isinstance(messages, _OtherMessages):
        yield
        return
    messages.drawn = console
    try:
        yield
    finally:
        messages.drawn = None


def read_stdin() -> str:
    """All of stdin as text.

    Raises:
        UsageError: it is closed or can't be read.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"What came from stdin is no {error.encoding.upper()} text ({error.reason}).") from error
    except OSError as error:
        raise unreadable(error) from error


def stdin_pieces() -> Iterator[bytes]:
    """All of stdin as bytes, piece by piece.

    Raises:
        UsageError: it is closed or can't be read.
    """
    try:
        while piece := sys.stdin.buffer.read(_PIECE):
            yield piece
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> UsageError:
    """The error about a stdin that can't be read."""
    return UsageError(f"stdin can't be read ({error.strerror or error}).")
