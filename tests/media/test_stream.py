"""Frames that are handed on as they come are those that would be held, and few of them wait."""

import time
from threading import enumerate as threads

import numpy as np
import pytest

from omniqa.errors import MediaError
from omniqa.media.clip import sample, stream_clip
from omniqa.media.sampling import ClipOptions
from omniqa.media.watchdog import streamed
from tests.media.clips import Audio, Video, grey, spoil, tone, write_clip

SMALL = ClipOptions(fps=4, min_pixels=784, max_pixels=16 * 784)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, Video([grey(k) for k in range(60)], 12), Audio(tone(5)))


def taken(path, sampling, **options):
    """The pairs of frames, and what the stream returns."""
    pieces, stream = [], stream_clip(path, sampling, **options)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, *end.value


@pytest.mark.parametrize("fps", [4, 1, 3])
def test_the_same_frames_times_and_sound(clip, fps):
    sampling = ClipOptions(fps=fps, min_pixels=784, max_pixels=16 * 784)
    whole = sample(clip, sampling)
    pieces, streamed_clip, seconds = taken(clip, sampling, room=1)
    assert np.array_equal(np.concatenate(pieces), whole.frames)
    assert {piece.shape[0] for piece in pieces} == {2}
    assert streamed_clip.frame_times == whole.frame_times
    assert np.array_equal(streamed_clip.waveform, whole.waveform)
    assert streamed_clip.frames.shape == (0, *whole.frames.shape[1:])
    assert (streamed_clip.info, streamed_clip.warnings) == (whole.info, whole.warnings)
    assert seconds > 0


def test_sound_alone_hands_on_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mp3", audio=Audio(tone(2), codec="libmp3lame"))
    pieces, clip, _ = taken(path, SMALL)
    assert pieces == []
    assert clip.frames.shape == (0, 0, 0, 3)
    assert clip.warnings == ("There is no video stream.",)


def test_damage_is_told_as_ever(tmp_path):
    path = write_clip(tmp_path / "a.mkv", Video([grey(k) for k in range(60)], 12), Audio(tone(5)))
    spoil(path, "video", slice(20, 30))
    whole = sample(path, SMALL)
    pieces, clip, _ = taken(path, SMALL)
    assert clip.warnings == whole.warnings
    assert np.array_equal(np.concatenate(pieces), whole.frames)


def test_no_more_pieces_wait_than_there_is_room_for():
    made = []

    def work(hand_on, report):
        for number in range(20):
            made.append(number)
            hand_on(number)

    ahead = []
    for number in streamed(work, "file", lambda share: None, room=3):
        time.sleep(0.01)
        ahead.append(len(made) - number)
    assert max(ahead) <= 1 + 3 + 1  # the one that was taken, those that wait, and the one in work's hands


def test_waiting_for_room_is_no_standstill():
    stream = streamed(lambda hand_on, report: [hand_on(k) for k in range(4)], "file", lambda share: None, 1, stall=0.3)
    for _ in stream:
        time.sleep(0.8)


def test_a_standstill_is_given_up():
    def work(hand_on, report):
        hand_on(1)
        time.sleep(2)

    stream = streamed(work, "a file", lambda share: None, 1, stall=0.5)
    assert next(stream) == 1
    with pytest.raises(MediaError, match="a file was given up"):
        next(stream)


def test_work_ends_once_nobody_takes_its_pieces(clip):
    before = set(threads())
    stream = stream_clip(clip, SMALL, room=1)
    next(stream)
    (thread,) = set(threads()) - before
    stream.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="was not found"):
        next(stream_clip(tmp_path / "none.mp4"))
