"""The folder whose files clients may name. Nothing outside is ever opened: links are not followed, at any level."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from omniqa.serve.errors import ApiError

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp",
    ".mp3", ".m4a", ".wav", ".flac", ".ogg", ".oga", ".opus", ".aac",
)  # fmt: skip
MOST_LISTED = 2000
_DEEPEST = 16
_PLAIN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class RootFile(NamedTuple):
    """What tells a file's content from others: where it is on the disk, its size, and when it was last changed."""

    device: int
    inode: int
    bytes: int
    mtime_ns: int


class MediaRoot:
    """A folder below which files are opened by relative paths, folder by folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[BufferedReader, RootFile]]:
        """A regular file below the folder, and its state.

        Args:
            path: relative, with slashes. No part may be a link, empty, "." or "..".

        Raises:
            ApiError: there is no such file; the same for whatever lies outside.
        """
        try:
            file = self._open(path)
        except (OSError, ValueError) as error:
            raise not_found(path) from error
        with file:
            status = os.fstat(file.fileno())
            yield file, RootFile(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def list(self) -> list[str]:
        """Paths of media files below the folder, at most MOST_LISTED, in order."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.folder, followlinks=False):
            inner = os.path.relpath(folder, self.folder)
            parts = [] if inner == os.curdir else inner.split(os.sep)
            folders[:] = sorted(name for name in folders if not name.startswith(".")) if len(parts) < _DEEPEST else []
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES) and not name.startswith(".") and _is_plain(folder, name):
                    found.append("/".join([*parts, name]))
                    if len(found) == MOST_LISTED:
                        return found
        return found

    def _open(self, path: str) -> BufferedReader:
        parts = path.split("/")
        if "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts) or len(parts) > _DEEPEST:
            raise ValueError("no path below the folder")
        at = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _PLAIN | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = inner
            number = os.open(parts[-1], _PLAIN, dir_fd=at)
        finally:
            os.close(at)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise ValueError("no regular file")
        return os.fdopen(number, "rb")


def not_found(path: str) -> ApiError:
    """The error about a path that names no file, or none that may be read."""
    return ApiError(404, f"There is no file {path[:200]!r} under the media root.", "file_not_found", "messages")


def _is_plain(folder: str, name: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode)
    except OSError:
        return False
