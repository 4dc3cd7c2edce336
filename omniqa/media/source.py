"""A file and what it holds, probed once and passed on: file → Source."""

import time
from dataclasses import dataclass
from pathlib import Path

from omniqa.file_state import FileState, file_state
from omniqa.media.access import DEFAULT_ACCESS, Access
from omniqa.media.probe import MediaInfo, probe


@dataclass(frozen=True)
class Source:
    """A file that has been probed.

    Attributes:
        info: what it holds, and how it is opened.
        file: the file's state before it was probed; None for an address.
        seconds: how long probing took.
    """

    info: MediaInfo
    file: FileState | None
    seconds: float

    @property
    def path(self) -> str:
        """The file, or the address."""
        return self.info.path


def path_of(video: str | Path | Source) -> str | Path:
    """The path of a file, whether it has been probed or not."""
    return video.path if isinstance(video, Source) else video


def open_source(video: str | Path | Source, access: Access = DEFAULT_ACCESS) -> Source:
    """Probe a file. A source is returned as it is, unless the file has changed or is opened in another way.

    Args:
        video: a path, an address or a source.
        access: how the file is opened.

    Raises:
        MediaError: as `omniqa.media.probe.probe` does.
    """
    path = path_of(video)
    file = file_state(path)
    if isinstance(video, Source) and video.file == file and video.info.access == access:
        return video
    begun = time.perf_counter()
    info = probe(path, access)
    return Source(info, file, time.perf_counter() - begun)
