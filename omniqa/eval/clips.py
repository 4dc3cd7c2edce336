"""Where the clips of a set of questions come from: files below a folder, and addresses where these are allowed."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from omniqa.errors import MediaError
from omniqa.file_state import FileState, file_state
from omniqa.media.access import is_address
from omniqa.media.sampling import ClipOptions

if TYPE_CHECKING:
    from omniqa.media.clip import Clip

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp"}


class Clips(Protocol):
    """The clips of a set, by the names that its questions use."""

    def sample(self, clip: str, pixels: tuple[int, int]) -> "Clip":
        """Frames and sound of a clip; pixels: the model's own bounds. Raises MediaError where it can't be used."""
        ...

    def file(self, clip: str) -> FileState | None:
        """The file of a clip as it is now; None if it is drawn, an address, or not to be found."""
        ...


@dataclass(frozen=True)
class Files:
    """Clips as files below a folder, however it is laid out; addresses where the sampling allows them."""

    folder: Path
    sampling: ClipOptions

    def sample(self, clip: str, pixels: tuple[int, int]) -> "Clip":
        """Decode a file. Raises MediaError where it is missing, there twice, or of no use."""
        from omniqa.media.clip import sample

        where = clip if self._is_address(clip) else self.find(clip)
        return sample(where, self.sampling.within(pixels))

    def file(self, clip: str) -> FileState | None:
        """The file of a clip as it is now; None if it is an address, or not to be found."""
        try:
            return None if self._is_address(clip) else file_state(self.find(clip))
        except MediaError:  # said when the clip is sampled
            return None

    def find(self, clip: str) -> Path:
        """The file at this path below the folder; else the one of this name anywhere below it, or of this stem.

        Raises MediaError where there is none, or several.
        """
        if is_address(clip):
            raise MediaError(f"{clip} is an address; omniqa opens it only with --allow-network.")
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
            raise MediaError(f"None of the {len(wanted)} clips is in {self.folder}, {wanted[0]} say. Set --media.")

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
