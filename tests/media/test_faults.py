"""A fault at every single call while a small clip is read: the same clip comes out, or the right error."""

import ctypes
import errno
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from omniqa.errors import MediaError, OutOfMemoryError, StorageError
from omniqa.media.clip import ClipOptions, sample
from omniqa.media.downmix import mono_gains
from tests.media.clips import CLOCKWISE, Audio, Video, grey, tone, write_clip
from tests.media.faults import Faults

SMALL = ClipOptions(fps=8, min_pixels=784, max_pixels=784)
NO_ROOM = av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")
NO_THREAD = av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
NO_DISK = av.error.OSError(errno.EIO, "Input/output error")
NO_SPACE = av.error.OSError(errno.ENOSPC, "No space left on device")
BROKEN = av.error.InvalidDataError(-1094995529, "Invalid data found")
MOST = 2**31 - 1  # bytes of one allocation: FFmpeg's own bound
_SOUND_ALLOCATION = 2**16  # bytes; below it, FFmpeg itself does not always look at what it was given


@pytest.fixture(scope="module", params=[".mp4", ".ts"])
def clip(request, tmp_path_factory):
    """Nine frames, turned on their side, and a third of a second of sound; in one of the files, in six channels."""
    path = tmp_path_factory.mktemp("faults") / f"clip{request.param}"
    channels = 6 if request.param == ".ts" else 1
    sound = Audio(np.tile(tone(0.3), (channels, 1)))
    return write_clip(path, Video([grey(k) for k in range(9)], matrix=CLOCKWISE), sound)


def same(one, other):
    return (
        np.array_equal(one.frames, other.frames)
        and np.array_equal(one.waveform, other.waveform)
        and (one.frame_times, one.warnings) == (other.frame_times, other.warnings)
    )


def read(path, faults, monkeypatch):
    mono_gains.cache_clear()
    with monkeypatch.context() as patch:
        faults.put_in(patch)
        return sample(path, SMALL)


def outcome(take):
    """The clip, or the error, of memory or media, that there is instead."""
    try:
        return take()
    except (OutOfMemoryError, MediaError) as error:
        return error


@pytest.mark.parametrize(
    ("fault", "error", "says", "lasts"),
    [
        (NO_ROOM, OutOfMemoryError, "ran out of memory", False),
        (NO_ROOM, OutOfMemoryError, "ran out of memory", True),
        (MemoryError(), OutOfMemoryError, "ran out of memory", False),
        (NO_DISK, StorageError, "Input/output error", False),
        (NO_SPACE, StorageError, "No space left", True),
        (OSError(errno.EIO, "Input/output error"), StorageError, "Input/output error", False),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError, "No space left", False),
    ],
)
def test_a_fault_at_any_call_is_its_error_or_changes_nothing(clip, monkeypatch, fault, error, says, lasts):
    whole, counting = sample(clip, SMALL), Faults(fault)
    assert same(read(clip, counting, monkeypatch), whole)
    assert counting.calls > 40
    failed = 0
    for k in range(1, counting.calls + 1):
        faults = Faults(fault, k, lasts)
        got = outcome(lambda faults=faults: read(clip, faults, monkeypatch))
        assert faults.struck
        if isinstance(got, Exception):
            assert isinstance(got, error), f"call {k}: {got!r}"
            assert says in str(got)
            failed += 1
        else:
            assert same(got, whole), f"call {k} failed, and the clip is another"
    assert failed > counting.calls / 2
    assert "omniqa-media" not in [thread.name for thread in threading.enumerate()]


def test_a_decoder_without_room_for_its_threads_is_no_damage(clip, monkeypatch):
    counting = Faults(NO_THREAD)
    read(clip, counting, monkeypatch)
    with pytest.raises(OutOfMemoryError):
        read(clip, Faults(NO_THREAD, 1, lasts=True), monkeypatch)


def test_broken_data_at_any_call_is_told_or_changes_nothing(tmp_path, monkeypatch):
    """What FFmpeg says of the data is damage: it is an error, or a warning beside the rest, for every call."""
    path = write_clip(tmp_path / "a.mp4", Video([grey(k) for k in range(4)]), Audio(tone(0.1)))
    counting = Faults(BROKEN)
    whole = read(path, counting, monkeypatch)
    assert counting.calls > 40
    damaged = 0
    for k in range(1, counting.calls + 1):
        got = outcome(lambda k=k: read(path, Faults(BROKEN, k), monkeypatch))
        if isinstance(got, Exception):
            assert isinstance(got, MediaError), f"call {k}: {got!r}"
        elif not same(got, whole):
            assert set(got.warnings) > set(whole.warnings), f"call {k} failed, and nothing is said of it"
            damaged += 1
    assert damaged > counting.calls / 4


@pytest.fixture
def largest_allocation():
    """Let FFmpeg allocate no more than so many bytes at a time."""
    library = next(
        (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libavutil" in line), None
    )
    if library is None:
        pytest.skip("FFmpeg's library can't be found in this process")
    limit = ctypes.CDLL(library).av_max_alloc
    limit.argtypes, limit.restype = [ctypes.c_size_t], None
    yield limit
    limit(MOST)


def test_any_allocation_of_ffmpeg_may_fail(clip, largest_allocation):
    whole = sample(clip, SMALL)
    sizes = [round(_SOUND_ALLOCATION * 1.1**k) for k in range(40)]
    got = []
    for size in sizes:
        largest_allocation(size)
        got.append(outcome(lambda: sample(clip, SMALL)))
    largest_allocation(MOST)
    for size, one in zip(sizes, got, strict=True):
        assert isinstance(one, OutOfMemoryError) or same(one, whole), f"{one}, with allocations up to {size} bytes"
    assert {isinstance(one, Exception) for one in got} == {True, False}
