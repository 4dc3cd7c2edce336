"""A folder of entries, bounded in size: the least recently used go first. Free of torch.

Any number of processes may use it at once, and may be ended at any moment: an entry is written under another name and
then renamed, so that it is there as a whole or not at all. Reading an entry marks it as used, by its file's time.
"""

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from omniqa.files import check_regular, open_regular

GIGABYTES = 20.0  # that a cache may take, where nothing else is said
CACHE_BYTES = int(GIGABYTES * 10**9)
SUFFIX = ".omniqa.safetensors"
_UNFINISHED = ".omniqa.part"
_ABANDONED_S = 3600  # after which what is unfinished has no writer any more


@dataclass(frozen=True)
class Entry:
    """An entry: its file, its bytes, when it was used last (seconds since 1970), and what its header tells of it."""

    path: Path
    bytes: int
    used: float
    about: dict[str, Any]


class CacheFolder:
    """A folder whose entries take at most `most_bytes` together. It is made when something is first written."""

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        suffix: str = SUFFIX,
        describe: Callable[[Path], dict[str, Any]] | None = None,
    ) -> None:
        """Makes nothing yet.

        Args:
            folder: may be one that does not exist.
            most_bytes: of all entries together.
            suffix: how the names of its entries end.
            describe: gives what an entry's header tells, empty if it is damaged; None is for encoded clips.
        """
        self.folder = folder
        self.most_bytes = most_bytes
        self._suffix = suffix
        self._describe = describe or _header

    def path(self, key: str) -> Path:
        """Where the entry of this key is, or would be."""
        return self.folder / f"{key}{self._suffix}"

    def open(self, path: Path) -> BinaryIO:
        """Open an entry for reading, without ever waiting for a writer.

        Raises:
            OSError: it can't be opened, or is a link, a pipe, a device, a socket or a folder.
            ValueError: it is larger than all entries may be together.
        """
        check_regular(path, os.lstat(path))
        file = open_regular(path)
        if os.fstat(file.fileno()).st_size > self.most_bytes:
            file.close()
            raise ValueError("it is larger than the cache may be")
        return file

    def drop(self, path: Path) -> None:
        """Take away what has an entry's name and is none: of a link the link alone, of folders only empty ones."""
        with suppress(OSError):  # what can't be taken away is found again, and told of again
            if stat.S_ISDIR(os.lstat(path).st_mode):
                path.rmdir()
            else:
                path.unlink()

    def unfinished(self, key: str) -> Path:
        """A new name under which the entry of this key is written before it is whole. Makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key}.{uuid4().hex}{_UNFINISHED}"

    def used(self, path: Path) -> None:
        """Mark an entry as used now."""
        with suppress(OSError):  # gone meanwhile, or a folder that can only be read
            os.utime(path)

    def entries(self) -> list[Entry]:
        """All entries, the most recently used first.

        Raises:
            OSError: the folder can't be read.
        """
        found = []
        for path in self._files(self._suffix):
            with suppress(FileNotFoundError):  # another process was faster
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append(Entry(path, status.st_size, status.st_mtime, self._describe(path)))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def shrink(self) -> None:
        """Delete the least recently used entries until the rest is within bounds, and what crashes have left."""
        held = 0
        for entry in self.entries():
            held += entry.bytes
            if held > self.most_bytes:
                entry.path.unlink(missing_ok=True)
        for path in self._files(_UNFINISHED):
            with suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > _ABANDONED_S:
                    self.drop(path)

    def clear(self) -> list[Entry]:
        """Delete all entries, and nothing else that may lie there; gives what was deleted."""
        gone = self.entries()
        for entry in gone:
            entry.path.unlink(missing_ok=True)
        for path in [*self._files(self._suffix), *self._files(_UNFINISHED)]:  # what is left of these names is no entry
            self.drop(path)
        return gone

    def _files(self, suffix: str) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name.endswith(suffix)] if self.folder.is_dir() else []


def _header(path: Path) -> dict[str, Any]:
    """What the header of an entry says about the clip; empty where it is damaged."""
    from omniqa.cache.entry import read_header  # and with it numpy, which what is refused need not wait for

    try:
        with open_regular(path) as file:
            return asdict(read_header(file).about)
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        return {}
