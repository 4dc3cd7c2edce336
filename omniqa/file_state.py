"""What tells a file from what was there before: its size and the time of its last change, as results hold them."""

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FIELD = "file"  # of a line of results
_SIZE, _MTIME = f"{FIELD}.bytes", f"{FIELD}.mtime_s"  # its columns in a table


class FileState(NamedTuple):
    """A file's size, and when it was last written to, in seconds since 1970."""

    bytes: int
    mtime_s: float


def file_state(path: str | Path) -> FileState | None:
    """The file at this path as it is now; None if no regular file can be seen there, as with an address."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # whoever reads it says why; a name with a NUL is a ValueError
        return None
    return FileState(status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None


def as_field(state: FileState | None) -> dict[str, Any]:
    """The part of a result's line that says which file it answers for."""
    return {FIELD: None if state is None else state._asdict()}


def is_stale(line: Mapping[str, Any], now: FileState | None) -> bool:
    """Whether a line of results answers for another file than the one that is there now.

    A line that older versions wrote does not say what it answers for, and stands. So does one whose file is gone.

    Args:
        line: an object, or a table's cells by their columns.
        now: as `file_state` gives it.

    Raises:
        ValueError: what the line says of its file is of no use.
    """
    says, before = _stored(line)
    return says and now is not None and now != before


def _stored(line: Mapping[str, Any]) -> tuple[bool, FileState | None]:
    """Whether a line says what its file was, and what it says."""
    if FIELD in line:
        value = line[FIELD]
        if value is not None and not isinstance(value, Mapping):
            raise _malformed(value)
        return True, None if value is None else _state(value.get("bytes"), value.get("mtime_s"), value)
    if _SIZE not in line or _MTIME not in line:
        return False, None
    size, mtime = line[_SIZE], line[_MTIME]
    if size == mtime == "":
        return True, None
    try:
        return True, _state(int(size), float(mtime), (size, mtime))
    except ValueError as error:
        raise _malformed((size, mtime)) from error


def _state(size: Any, mtime: Any, value: Any) -> FileState:
    whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    timed = isinstance(mtime, int | float) and not isinstance(mtime, bool) and math.isfinite(mtime)
    if not (whole and timed):
        raise _malformed(value)
    return FileState(size, float(mtime))


def _malformed(value: Any) -> ValueError:
    return ValueError(f"its {FIELD!r} is {value!r:.60}, not a size in bytes and a time in seconds")
