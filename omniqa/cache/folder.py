"""A folder of entries, bounded in size: the least recently used go first. Free of torch.

Any number of processes may use it at once, and may be ended at any moment: an entry is written under another name and
then renamed, so that it is there as a whole or not at all. Reading an entry marks it as used, by its file's time.
"""

import json
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIGABYTES = 20.0  # that a cache may take, where nothing else is said
CACHE_BYTES = int(GIGABYTES * 10**9)
SUFFIX = ".omniqa.safetensors"
_UNFINISHED = ".omniqa.part"
_ABANDONED_S = 3600  # after which what is unfinished has no writer any more
_LONGEST_HEADER = 2**24


@dataclass(frozen=True)
class Entry:
    """An entry: its file, its bytes, when it was used last (seconds since 1970), and what its header tells of it."""

    path: Path
    bytes: int
    used: float
    about: dict[str, Any]


class CacheFolder:
    """A folder whose entries take at most `most_bytes` together. It is made when something is first written."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    def path(self, key: str) -> Path:
        """Where the entry of this key is, or would be."""
        return self.folder / f"{key}{SUFFIX}"

    def unfinished(self, key: str) -> Path:
        """Where this process writes the entry of this key before it is whole. Makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key}.{os.getpid()}{_UNFINISHED}"

    def used(self, path: Path) -> None:
        """Mark an entry as used now."""
        with suppress(OSError):  # gone meanwhile, or a folder that can only be read
            os.utime(path)

    def entries(self) -> list[Entry]:
        """All entries, the most recently used first. Raises OSError where the folder can't be read."""
        found = []
        for path in self._files(SUFFIX):
            with suppress(FileNotFoundError):  # another process was faster
                about = path.stat()
                found.append(Entry(path, about.st_size, about.st_mtime, _header(path)))
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
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def clear(self) -> list[Entry]:
        """Delete all entries, and nothing else that may lie there; gives what was deleted."""
        gone = self.entries()
        for path in [*(entry.path for entry in gone), *self._files(_UNFINISHED)]:
            path.unlink(missing_ok=True)
        return gone

    def _files(self, suffix: str) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name.endswith(suffix)] if self.folder.is_dir() else []


def _header(path: Path) -> dict[str, Any]:
    """What the header of a safetensors file says of the entry; empty where it is damaged."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, _LONGEST_HEADER)))
        return dict(json.loads(header["__metadata__"]["about"]))
    except (struct.error, ValueError, KeyError, TypeError):
        return {}
