"""Reads files that must be files: a pipe or a device would block for ever, or never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for a writer.

    Raises:
        OSError: it can't be opened, or is a pipe, a device, a socket or a folder; `strerror` says which.
    """
    check_regular(path, os.stat(path))
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        check_regular(path, os.fstat(file))  # it may have become another since
        return open(file, "rb")
    except BaseException:
        os.close(file)
        raise


def read_regular(path: str | Path, max_bytes: int | None = None) -> bytes:
    """The whole content of a regular file.

    Raises:
        OSError: as of `open_regular`; also for a file of more than `max_bytes`, of which nothing is read.
    """
    with open_regular(path) as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
        return file.read()


def check_regular(path: str | Path, status: os.stat_result) -> None:
    """Raises OSError, as `open_regular` does, for the status of anything but a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
