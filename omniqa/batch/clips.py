"""The clips of a batch: files, folders, lists of names; and the part of them that one machine takes."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from omniqa.errors import MediaError, UsageError
from omniqa.eval.clips import VIDEO_SUFFIXES
from omniqa.file_state import FileState, file_state
from omniqa.media.access import is_address

MEDIA_SUFFIXES = VIDEO_SUFFIXES | {
    ".aac", ".ac3", ".aif", ".aiff", ".flac", ".gif", ".m2ts", ".m4a", ".mka", ".mp3", ".mts", ".mxf", ".oga", ".ogg",
    ".ogv", ".opus", ".vob", ".wav", ".wma",
}  # fmt: skip
# What FFmpeg also opens: pictures, and lists of other files, which are found by themselves.
_NO_CLIPS = {"concat", "dash", "hls", "ico", "image2"}
_PICTURES = "_pipe"


class ClipPath(NamedTuple):
    """A clip to ask about.

    name: what results call it. path: where it is. found: it was found in a folder, so it need not be media at all.
    """

    name: str
    path: str
    found: bool = False


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a batch, counted from 1.

    Which part a clip belongs to is told by its name alone: other clips, or another machine, don't change it.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "3/16". Raises UsageError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise UsageError(f"--shard is I/N, from 1/N to N/N, not {text!r}.")
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, name: str) -> bool:
        """Whether the clip of this name belongs to this part."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def find(names: Iterable[str]) -> list[ClipPath]:
    """Clips by the names of files and folders, each once, in the order of the names.

    A folder gives all files below it, in alphabetical order, whatever they are; names that begin with a dot are left
    out, and links to other folders. A name in several spellings ("./a.mp4", "a.mp4") is one clip.
    """
    clips: dict[str, ClipPath] = {}
    for name in map(one_spelling, names):
        for path in _walk(name) if os.path.isdir(name) else [name]:
            if path not in clips or path == name:  # named, it is wanted
                clips[path] = ClipPath(path, path, found=path != name)
    return list(clips.values())


def one_spelling(name: str) -> str:
    """The name as it is kept, the same for "./a.mp4" and "a.mp4"; an address stays as it is."""
    return name if is_address(name) else os.path.normpath(name)


def _walk(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield one_spelling(os.path.join(here, name))


def listed(pieces: Iterable[bytes], zero: bool) -> list[str]:
    """The names in a list, one a line; zero: one up to each NUL, as `find -print0` writes them."""
    names = b"".join(pieces).split(b"\0" if zero else b"\n")
    return [os.fsdecode(name) for name in names if name]


def files_now(clips: Iterable[ClipPath]) -> Callable[[str], FileState | None]:
    """A function that gives the file of one of these clips, by the clip's name, as it is when it is first asked for."""
    paths = {clip.name: clip.path for clip in clips}
    return cache(lambda name: file_state(paths[name]) if name in paths else None)


def named_as_media(clip: ClipPath) -> bool:
    """Whether the user, or the file's name, says that this is media: if it can't be read, that is a failure."""
    return not clip.found or Path(clip.path).suffix.lower() in MEDIA_SUFFIXES


def is_media(path: str) -> bool:
    """Whether a file holds moving pictures or sound, by its content."""
    from omniqa.media.watchdog import run_watched

    try:
        return run_watched(lambda progress: _holds_media(path), path, lambda done: None)
    except MediaError:
        return False


def _holds_media(path: str) -> bool:
    from omniqa.media.container import main_stream, open_media

    with open_media(path) as container:
        kinds = set(container.format.name.split(","))
        if kinds & _NO_CLIPS or container.format.name.endswith(_PICTURES):
            return False
        return bool(main_stream(container, "video") or main_stream(container, "audio"))
