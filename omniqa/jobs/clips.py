"""The clips of a job: files, folders, lists of names, a data set's; and the part of them that one machine takes."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from omniqa.errors import MediaError, UsageError
from omniqa.file_state import FileState, file_state
from omniqa.media.access import is_address, refused
from omniqa.media.sampling import ClipOptions

if TYPE_CHECKING:
    from omniqa.media.clip import Clip

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp"}
MEDIA_SUFFIXES = VIDEO_SUFFIXES | {
    ".aac", ".ac3", ".aif", ".aiff", ".flac", ".gif", ".m2ts", ".m4a", ".mka", ".mp3", ".mts", ".mxf", ".oga", ".ogg",
    ".ogv", ".opus", ".vob", ".wav", ".wma",
}  # fmt: skip
# What FFmpeg also opens: pictures, and lists of other files, which are found by themselves.
_NO_CLIPS = {"concat", "dash", "hls", "ico", "image2"}
_PICTURES = "_pipe"


class ClipPath(NamedTuple):
    """A clip to ask about.

    Attributes:
        name: what results call it.
        path: where it is, or what a data set calls it.
        found: it was found in a folder, so it need not be media at all.
    """

    name: str
    path: str
    found: bool = False


class Clips(Protocol):
    """Where clips come from."""

    @property
    def sampling(self) -> ClipOptions:
        """Which frames and what sound are taken."""
        ...

    def source(self, clip: str, pixels: tuple[int, int]) -> "Path | str | Clip":
        """A file or an address, or a clip that is drawn.

        Args:
            clip: the clip's path.
            pixels: the model's bounds for a frame, where the sampling names none.

        Raises:
            MediaError: there is no such clip.
        """
        ...

    def file(self, clip: str) -> FileState | None:
        """The file of a clip as it is now; None if it is drawn, an address, or not to be found."""
        ...


@dataclass(frozen=True)
class Paths:
    """Clips by their paths."""

    sampling: ClipOptions

    def source(self, clip: str, pixels: tuple[int, int]) -> str:
        """The path; whoever opens it says if nothing is there."""
        return clip

    def file(self, clip: str) -> FileState | None:
        """The file there as it is now."""
        return file_state(clip)


@dataclass(frozen=True)
class MediaFolder:
    """Clips as files below a folder, however it is laid out; addresses where the sampling allows them."""

    folder: Path
    sampling: ClipOptions

    def source(self, clip: str, pixels: tuple[int, int]) -> Path | str:
        """Where the clip is.

        Raises:
            MediaError: it is missing, or there twice.
        """
        return clip if self._is_address(clip) else self.find(clip)

    def file(self, clip: str) -> FileState | None:
        """The file of a clip as it is now; None if it is an address, or not to be found."""
        try:
            return None if self._is_address(clip) else file_state(self.find(clip))
        except MediaError:  # said when the clip is opened
            return None

    def find(self, clip: str) -> Path:
        """The file at this path below the folder; else the one of this name anywhere below it, or of this stem.

        Raises:
            MediaError: there is none, or several.
        """
        if is_address(clip):
            raise refused(clip)
        path = self.folder / clip
        if path.is_file():
            return path
        found = self._by_name.get(path.name) or self._by_name.get(path.stem, [])
        if not found:
            raise MediaError(f"{clip} is not in {self.folder}.")
        if len(found) > 1:
            raise MediaError(f"{clip} is in {self.folder} more than once: {found[0]} and {found[1]}.")
        return found[0]

    def check(self, clips: Iterable[str]) -> None:
        """Raises MediaError where not one of these clips is there: it is another folder then."""
        wanted = list(clips)
        for clip in wanted:
            if self._is_address(clip):
                return
            try:
                self.find(clip)
            except MediaError:
                continue
            return
        if wanted and is_address(wanted[0]):
            self.find(wanted[0])
        if wanted:
            raise MediaError(
                f"None of the {len(wanted)} clips is in {self.folder}, {wanted[0]} say.",
                field="folder",
                advice="Set {folder}.",
            )

    def _is_address(self, clip: str) -> bool:
        return self.sampling.allow_network and is_address(clip)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """All files by their names, videos also by their names without the suffix."""
        files: dict[str, list[Path]] = defaultdict(list)
        for folder, _, names in os.walk(self.folder):
            for name in sorted(names):
                path = Path(folder) / name
                files[name].append(path)
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    files[path.stem].append(path)
        return dict(files)


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a job, counted from 1.

    Which part a clip belongs to is told by its name alone: other clips, or another machine, don't change it.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "3/16".

        Raises:
            UsageError: the text is anything else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise UsageError(f"shard is I/N, from 1/N to N/N, not {text!r}.", field="shard")
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


def files_now(clips: Iterable[ClipPath], source: Clips) -> Callable[[str], FileState | None]:
    """A function that gives the file of one of these clips, by the clip's name, as it is when it is first asked for."""
    paths = {clip.name: clip.path for clip in clips}
    return cache(lambda name: source.file(paths[name]) if name in paths else None)


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
