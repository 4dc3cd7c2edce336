"""Sizes that a file claims and does not hold, for which FFmpeg would take memory, or says that it has none."""

import os
import struct
from collections.abc import Callable, Iterator

import av

_PLENTY = 2**29  # bytes: more than any packet or picture that is taken needs
_RIFF = {b"RIFF", b"RF64", b"BW64"}
_TAG_BYTES = 2**20  # of tags that a file which is cut off may lack
_CHUNKS = 1000


def is_only_claimed(error: Exception, again: Callable[[], object]) -> bool:
    """Whether "out of memory" means a size that only the file claims: it comes again, although memory is there.

    FFmpeg gives that error for any size beyond 2 GiB, too.

    Args:
        error: FFmpeg's.
        again: does once more what led to it.
    """
    if not isinstance(error, av.error.MemoryError):
        return False
    try:
        av.Packet(_PLENTY)  # by FFmpeg's own allocator, which may have a limit of its own
    except MemoryError:
        return False
    try:
        again()
    except av.error.MemoryError:
        return True
    except av.error.FFmpegError:
        return False
    return False


def claims_tags_beyond_end(path: str) -> bool:
    """Whether tags in a RIFF file (WAV, AVI) claim to go on beyond its end, by more than a mebibyte.

    FFmpeg takes memory for such a tag before it reads it, and writes to all of that.
    """
    size = os.path.getsize(path)
    return any(name == b"INFO" and end > size + _TAG_BYTES for name, end in _riff_lists(path))


def _riff_lists(path: str) -> Iterator[tuple[bytes, int]]:
    """The lists of a RIFF file, those behind an AVI's media left out: the name, and where each one claims to end."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] not in _RIFF:
            return
        for _ in range(_CHUNKS):
            chunk = file.read(8)
            if len(chunk) < 8:
                return
            name, length = struct.unpack("<4sI", chunk)
            start = file.tell()
            kind = file.read(4) if name == b"LIST" else b""
            if kind:
                yield kind, start + length
            if kind == b"movi":
                return
            nested = kind and kind != b"INFO" and head[8:] == b"AVI "  # read on inside, as FFmpeg does
            if not nested:
                file.seek(start + length + length % 2)
