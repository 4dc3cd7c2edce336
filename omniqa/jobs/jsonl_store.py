"""A file of results that grows by whole lines, one row each, and survives a kill at any moment."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from omniqa import json_output
from omniqa.errors import UsageError

if TYPE_CHECKING:
    from filelock import FileLock

Row = dict[str, Any]
LINE_BYTES = 2**27  # of a row; what is longer is no row, and is not read any further


class RowCodec(Protocol):
    """How a row is written as bytes.

    Attributes:
        header: what a file begins with, in front of the first row.
        opening: what its first line begins with.
        kind: what messages call a row.
    """

    header: bytes
    opening: bytes
    kind: str

    def encode(self, row: Row) -> bytes:
        """The row's line, with its end."""
        ...

    def decode(self, line: bytes) -> Row | None:
        """The row of a whole line; None where it is none."""
        ...

    def is_whole(self, piece: bytes, quotes: int = 0) -> bool:
        """Whether a line that was read up to a newline ends there; a newline may stand inside of one.

        Args:
            piece: what was read last.
            quotes: the quotation marks in earlier pieces of this line.
        """
        ...


class JsonLines:
    """One JSON object a line, in ASCII."""

    header = b""
    opening = b"{"
    kind = "JSON object"

    def encode(self, row: Row) -> bytes:
        """The row's line, with its end."""
        return json_output.dumps(row).encode() + b"\n"

    def decode(self, line: bytes) -> Row | None:
        """The row of a whole line; None where it is none."""
        try:
            row = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return row if isinstance(row, dict) else None

    def is_whole(self, piece: bytes, quotes: int = 0) -> bool:
        """Whether the line has its end."""
        return piece.endswith(b"\n")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


JSON_LINES = JsonLines()


class JsonlStore:
    """An append-only file of rows, open for one process at a time; `.NAME.lock` beside it is what is locked.

    Each line is on the disk when `append` returns. A half line that a kill left at the end is dropped on opening, one
    that a full disk or an interrupt left, at once.

    Attributes:
        path: the file; made if it is not there.
        layout: how a row is written.
        keep: what is kept of each row in `rows`, for a long file's would not fit in memory; it raises ValueError for
            one that has no place here.
        rows: what the file holds, in its order; `append` adds to it.

    Raises:
        UsageError: the file can't be written, is open elsewhere, or holds a line that is no row.
    """

    def __init__(self, path: Path, layout: RowCodec = JSON_LINES, keep: Callable[[Row], Any] = lambda row: row) -> None:
        self.path = path
        self._layout = layout
        self._keep = keep
        self._file = self._open(path, os.O_CREAT)
        self._lock = _lock_of(path)
        try:
            self._take_lock()
            self.rows = self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "JsonlStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs have the file."""
        os.close(self._file)
        self._lock.release()

    def append(self, row: Row) -> None:
        """Write one line, whole and for good.

        Raises:
            UsageError: the disk does not take it.
        """
        try:
            if not os.fstat(self._file).st_size:
                write_line(self._file, self._layout.header)
            write_line(self._file, self._layout.encode(row))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.rows.append(self._keep(row))

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Take lines out, all at once: whenever a kill comes, the file is as it was or as it shall be."""
        new = self.path.with_name(f".new-{self.path.name}")
        file = self._open(new, os.O_CREAT | os.O_TRUNC)
        try:
            with self.path.open("rb") as lines, open(file, "wb", closefd=False) as kept:
                for _, line, row in _rows(lines, self._layout, self.path):
                    if row is None or not unwanted(row):
                        kept.write(line)
            os.fsync(file)
            os.replace(new, self.path)
        except BaseException as error:
            os.close(file)
            new.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _unwritable(self.path, error) from error
            raise
        os.close(self._file)
        self._file = file
        self.rows = self._read()

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o666)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _take_lock(self) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout as error:
            raise UsageError(f"{self.path} is being written to by another run.") from error
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _read(self) -> list[Any]:
        kept, end = [], 0
        with self.path.open("rb") as file:
            for number, line, row in _rows(file, self._layout, self.path):
                end += len(line)
                if row is not None:
                    kept.append(_kept(row, self._keep, number, self.path))
        os.ftruncate(self._file, end)
        return kept


def _lock_of(path: Path) -> "FileLock":
    """The lock of a file beside `path`: `drop` replaces the file itself, and would replace its lock."""
    from filelock import FileLock  # here, for `omniqa --help` must not wait for it

    real = path.resolve()
    return FileLock(real.with_name(f".{real.name}.lock"), timeout=0, thread_local=False)


def read_rows(path: Path, layout: RowCodec, keep: Callable[[Row], Any] = lambda row: row) -> Iterator[Any]:
    """The rows of a file that nobody writes to any more; a half line at the end is left out.

    Args:
        keep: what is given of each row; it raises ValueError for one that has no place here.

    Raises:
        UsageError: the file can't be read, or holds a line that is no row.
    """
    try:
        with path.open("rb") as file:
            for number, _, row in _rows(file, layout, path):
                if row is not None:
                    yield _kept(row, keep, number, path)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from error


def line_of(path: Path, layout: RowCodec, wanted: Callable[[Row], bool]) -> int | None:
    """The number of the last line whose row is wanted; None where there is none. Raises OSError, UsageError."""
    with path.open("rb") as file:
        numbers = [number for number, _, row in _rows(file, layout, path) if row is not None and wanted(row)]
    return max(numbers, default=None)


def _kept(row: Row, keep: Callable[[Row], Any], number: int, path: Path) -> Any:
    try:
        return keep(row)
    except ValueError as error:
        raise UsageError(f"Line {number} of {path}: {error}. Remove it, or write to another file.") from error


def write_line(file: int, line: bytes) -> None:
    """Write to a file descriptor whatever happens all of `line` or nothing, and have it on the disk.

    A pipe or a terminal keeps what it was given. Raises OSError.
    """
    status = os.fstat(file)
    regular = stat.S_ISREG(status.st_mode)
    left = memoryview(line)
    try:
        while left:
            left = left[os.write(file, left) :]
        if regular:
            os.fsync(file)
    except BaseException as error:
        if regular and (left or isinstance(error, OSError)):
            os.ftruncate(file, status.st_size)
        raise


def _rows(file: BinaryIO, layout: RowCodec, path: Path) -> Iterator[tuple[int, bytes, Row | None]]:
    """Whole lines with their numbers and rows; the header has none. A half line at the end is not given."""
    pieces: list[bytes] = []
    first, quotes, size = 1, 0, 0
    for number, piece in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), start=1):
        pieces.append(piece)
        size += len(piece)
        if size > LINE_BYTES:
            _check_opening(pieces[0], first, layout, path)
            raise UsageError(f"Line {first} of {path} has more than {LINE_BYTES:,} bytes, so it is no {layout.kind}.")
        whole = layout.is_whole(piece, quotes)
        quotes += piece.count(b'"')
        if not whole:
            continue
        line = b"".join(pieces)
        if first == 1 and layout.header:
            if line != layout.header:
                raise UsageError(f"{path} has other columns. Write to another file.")
            yield first, line, None
        else:
            row = layout.decode(line)
            if row is None:
                raise UsageError(f"Line {first} of {path} is no {layout.kind}. Remove it, or write to another file.")
            yield first, line, row
        pieces, first, quotes, size = [], number + 1, 0, 0
    _check_opening(pieces[0] if pieces else b"", first, layout, path)
    if any(layout.is_whole(piece) and layout.decode(piece) is not None for piece in pieces[1:]):
        raise UsageError(f"Line {first} of {path} is no {layout.kind}: others follow before its last cell ends.")


def _check_opening(start: bytes, number: int, layout: RowCodec, path: Path) -> None:
    """Raises UsageError if a file's first line can't be the beginning of results."""
    if number == 1 and not (start.startswith(layout.opening) or layout.opening.startswith(start)):
        raise UsageError(f"{path} holds something else than results. Write to another file.")


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} can't be written to ({error.strerror}).")


def differences(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What settings differ in, in words; nothing where they are the same."""
    names = [*wanted, *known.keys() - wanted.keys()]
    return "; ".join(
        f"{name} was {known.get(name)!r}, not {wanted.get(name)!r}"
        for name in names
        if known.get(name) != wanted.get(name)
    )


def write_whole(path: Path, text: str) -> None:
    """Replace a file by `text`, such that it is never half there.

    Raises:
        UsageError: it can't be written.
    """
    try:
        with NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False, encoding="utf-8") as new:
            new.write(text)
        os.chmod(new.name, 0o644)
        os.replace(new.name, path)
    except OSError as error:
        raise _unwritable(path, error) from error
