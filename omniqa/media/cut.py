"""Spans of a file as files of their own: packets copied where keyframes allow it, else encoded again.

A copy is exact to a frame: it is made only if the span begins at a keyframe and no frame in it needs one behind it. It
is decoded once; one that gives other frames than it should is encoded again, too.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from tempfile import NamedTemporaryFile

import av

from omniqa.errors import MediaError, UsageError
from omniqa.media.access import DEFAULT_ACCESS, Access
from omniqa.media.cut_copy import copy_span
from omniqa.media.cut_encode import encode_span
from omniqa.media.cut_names import file_stem, make_folder
from omniqa.media.download import held
from omniqa.media.probe import MediaInfo
from omniqa.media.source import Source, open_source, path_of
from omniqa.media.timeline import exact
from omniqa.media.watchdog import run_watched
from omniqa.memory import is_out_of_memory

Span = tuple[float, float]  # seconds on the file's clock

_OF_THE_FOLDER = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOENT}


def cut(
    video: str | Path | Source,
    spans: Sequence[Span],
    folder: str | Path,
    access: Access = DEFAULT_ACCESS,
    name: str | None = None,
) -> list[Path]:
    """Write each span of a file, picture and sound, to a file of its own. The file itself is never touched.

    A file is written whole or not at all. Its name has the file's stem, a digest of its path and beginning, and the
    span: the same span of the same file is written to the same place, and no other is.

    Args:
        video: the media file.
        spans: start and end of each.
        folder: where to; made if it is not there.
        access: how the file is opened.
        name: what the file is called, if its path does not tell, such as "-" for what came from stdin.

    Returns:
        The files, in the order of the spans.

    Raises:
        MediaError: the file can't be used, or holds nothing in a span.
        UsageError: the folder can't be written to.
    """
    target = make_folder(folder)
    with held(path_of(video), access):
        source = open_source(video, access)
        stem = file_stem(source.path, name)
        cutter = _Cutter(source.info, target, stem)
        return run_watched(lambda progress: [cutter.cut(span) for span in spans], source.path, lambda done: None)


class _Cutter:
    """Cuts spans out of one file."""

    def __init__(self, info: MediaInfo, folder: Path, stem: str) -> None:
        self._info, self._folder, self._stem = info, folder, stem

    def cut(self, span: Span) -> Path:
        start, end = (min(exact(max(0.0, time)), self._info.duration) for time in span)
        if start >= end:
            raise MediaError(f"{self._info.path}: there is nothing from {span[0]:g} to {span[1]:g} s.")
        name = f"{self._stem}-{_seconds(start)}-{_seconds(end)}s"
        return self._written(name, lambda file: copy_span(self._info, start, end, file)) or self._encoded(
            name, start, end
        )

    def _encoded(self, name: str, start: Fraction, end: Fraction) -> Path:
        path = self._written(name, lambda file: encode_span(self._info, start, end, file))
        if path is None:
            raise MediaError(f"{self._info.path}: nothing from {_seconds(start)} to {_seconds(end)} s can be decoded.")
        return path

    def _written(self, name: str, write: Callable[[Path], str | None]) -> Path | None:
        """What `write` leaves in a temporary file, under its name; None if it returns no suffix."""
        with _writing_errors(self._info.path, self._folder):
            with NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as file:
                new = Path(file.name)
            try:
                suffix = write(new)
                if suffix is None:
                    return None
                path = self._folder / f"{name}{suffix}"
                if os.path.exists(path) and os.path.exists(self._info.path) and path.samefile(self._info.path):
                    raise UsageError(f"{path} is the file itself; give another folder.", field="cut")
                new.chmod(0o644)
                new.replace(path)
                return path
            finally:
                with suppress(FileNotFoundError):
                    new.unlink()


@contextmanager
def _writing_errors(path: str, folder: Path) -> Iterator[None]:
    """Turn errors of the file system and of FFmpeg's encoders and muxers into omniqa's."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, av.FFmpegError) and error.errno not in _OF_THE_FOLDER:
            raise MediaError(f"{path} can't be cut: {error.strerror}.") from error
        raise UsageError(f"A cut can't be written to {folder} ({error.strerror}).", field="cut") from error


def _seconds(time: Fraction) -> str:
    """Seconds with at most three decimals: "2", "7.96"."""
    return f"{float(time):.3f}".rstrip("0").rstrip(".")
