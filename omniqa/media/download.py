"""Addresses whose media FFmpeg can't seek in: copied to a temporary file for as long as they are used.

FFmpeg opens what has byte ranges, and playlists, by itself. A server without ranges would make it read the file from
the start at every seek, so its file is copied first. Of a web page, yt-dlp finds the media.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from omniqa.media.access import Access

OnBytes = Callable[[int, int | None], None]  # gets the bytes copied so far, and how many there are if that is known

_WEB = ("http://", "https://")


@dataclass
class Copy:
    """What is known of an address in use. file: its copy; None if FFmpeg opens the address by itself."""

    users: int = 0
    ready: bool = False
    folder: str | None = None
    file: Path | None = None
    lock: Lock = field(default_factory=Lock)


_held: dict[str, Copy] = {}
_lock = Lock()


def unheard(done: int, total: int | None) -> None:
    """The progress that nobody watches."""


@contextmanager
def held(path: str | Path, access: Access, on_bytes: OnBytes = unheard) -> Iterator[None]:
    """Keep an address usable while the block runs: copied once, however often and wherever it is opened meanwhile.

    Does nothing for a file, and for an address that may not be opened: whoever opens that says so.

    Args:
        path: a file or an address.
        access: whether addresses may be opened, and how much may be copied.
        on_bytes: gets how far the copy is.

    Raises:
        MediaError: the server refuses, can't be reached, breaks off, or sends too much; or the disk is too small.
    """
    address = str(path)
    if not (access.allow_network and address.lower().startswith(_WEB)):
        yield
        return
    with _lock:
        entry = _held.setdefault(address, Copy())
        entry.users += 1
    try:
        with entry.lock:
            if not entry.ready:
                from omniqa.media.fetch import fetch

                fetch(address, access, entry, on_bytes)
                entry.ready = True
        yield
    finally:
        with _lock:
            entry.users -= 1
            if not entry.users:
                del _held[address]
        if not entry.users and entry.folder is not None:
            shutil.rmtree(entry.folder, ignore_errors=True)


def place(address: str) -> str:
    """What FFmpeg is told to open for an address: its copy, if one is held."""
    entry = _held.get(address)
    return address if entry is None or entry.file is None else f"file:{entry.file}"
