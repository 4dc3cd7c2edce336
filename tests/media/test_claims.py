"""Sizes that a file only claims: no memory is taken for them, and they are damage, not a lack of memory."""

import errno
import resource
import struct
import subprocess
import sys

import av
import psutil
import pytest

from omniqa.errors import MediaError, OutOfMemoryError
from omniqa.media.claims import claims_tags_beyond_end, is_only_claimed
from omniqa.media.clip import sample
from omniqa.media.probe import probe
from tests.media import cases
from tests.media.clips import Audio, Video, grey, index_of, tone, write_clip

NO_ROOM = av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")


def ivf(path, frames=10):
    video = Video([grey(k) for k in range(frames)], rate=10, codec="libvpx")
    return write_clip(path, video)


def frame_starts(data):
    """Where the frames' headers are in an IVF file."""
    at, starts = 32, []
    while at < len(data):
        starts.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    return starts


@pytest.mark.parametrize("size", [2**31, 2**31 + 5, 2**32 - 1])
def test_a_frame_that_claims_gigabytes_is_damage_and_what_lies_before_it_is_taken(tmp_path, size):
    path = ivf(tmp_path / "a.ivf")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, frame_starts(data)[6], size)
    path.write_bytes(data)
    clip = sample(path)
    assert [index_of(frame) for frame in clip.frames] == [0, 5]


def test_a_file_of_nothing_but_claims_is_refused(tmp_path):
    path = ivf(tmp_path / "a.ivf")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 32, 2**32 - 1)
    path.write_bytes(data[:44])
    with pytest.raises(MediaError, match="neither a picture nor sound"):
        probe(path)


def riff(path, form, claimed):
    """A WAV or AVI file with a list of tags in front of its media, whose size, and its tag's, are claimed."""
    plain = path.with_stem("plain")
    if form == "wav":
        write_clip(plain, audio=Audio(tone(1), codec="pcm_s16le"))
    else:
        cases.ordinary(plain.with_suffix(""), ".avi")
    data = plain.read_bytes()
    tags = struct.pack("<4sI4s4sI", b"LIST", claimed, b"INFO", b"ICMT", claimed - 12) + b"abcd"
    at = data.index(b"data") if form == "wav" else data.index(b"LIST", data.index(b"movi") - 8)
    path.write_bytes(data[:at] + tags + data[at:])
    return path


@pytest.mark.parametrize("form", ["wav", "avi"])
def test_tags_that_claim_more_than_the_file_holds_take_no_memory(tmp_path, form):
    path = riff(tmp_path / f"a.{form}", form, 2**31 - 2)
    code = (
        "import sys; from omniqa.errors import MediaError; from omniqa.media.probe import probe\n"
        "from omniqa.pipeline.stats import peak_rss_bytes\nbefore = peak_rss_bytes()\n"
        "try:\n    probe(sys.argv[1])\nexcept MediaError as error:\n    print(peak_rss_bytes() - before, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    grown, _, said = done.stdout.partition(" ")
    assert int(grown) < 30 * 2**20
    assert "claims sizes that it does not hold" in said


@pytest.mark.parametrize("form", ["wav", "avi"])
def test_tags_that_are_there_are_no_claim(tmp_path, form):
    path = riff(tmp_path / f"a.{form}", form, 16)
    assert not claims_tags_beyond_end(str(path))
    assert probe(path).audio is not None


def again_and_again(error):
    def again():
        raise error

    return again


def test_out_of_memory_that_does_not_come_again_or_comes_when_memory_is_short_is_what_it_says():
    assert is_only_claimed(NO_ROOM, again_and_again(NO_ROOM))
    assert not is_only_claimed(NO_ROOM, lambda: None)
    assert not is_only_claimed(NO_ROOM, again_and_again(av.error.EOFError(0, "End of file")))
    assert not is_only_claimed(MemoryError(), again_and_again(NO_ROOM))
    used = psutil.Process().memory_info().vms
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, hard))
    try:
        assert not is_only_claimed(NO_ROOM, again_and_again(NO_ROOM))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_header_that_runs_out_of_memory_every_time_is_too_damaged(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.wav", audio=Audio(tone(1), codec="pcm_s16le"))
    monkeypatch.setattr(av, "open", again_and_again_open(9))
    with pytest.raises(MediaError, match="claims sizes that it does not hold"):
        probe(path)
    monkeypatch.setattr(av, "open", again_and_again_open(1))
    with pytest.raises(OutOfMemoryError):
        probe(path)


def again_and_again_open(times, real=av.open):
    """`av.open` that runs out of memory so many times."""
    left = [times]

    def opened(*arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise NO_ROOM
        return real(*arguments, **options)

    return opened
