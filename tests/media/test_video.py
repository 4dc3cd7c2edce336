import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from omniqa.errors import MediaError
from omniqa.media.container import Damage, Timed, timed_frames
from omniqa.media.video import _in_order, read_frames
from tests.media.clips import CLOCKWISE, LEVELS, MIRRORED, Audio, Video, grey, index_of, real_clip, tone, write_clip

SIZE = (56, 84)
FRAMES = [grey(k) for k in range(75)]  # 3 s at 25 frames a second


def shown(path, times):
    """{time: index of the frame shown at it}"""
    return {time: index_of(frame) for time, frame in read_frames(path, [Fraction(str(t)) for t in times], SIZE)}


def patches(height=64, width=96):
    """Black, with a bright patch at the top left and a dim one at the top right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 4, : width // 4], picture[: height // 4, -width // 4 :] = 240, 120
    return picture


def corners(frame):
    """Brightness at the top left, top right, bottom right and bottom left."""
    return [round(float(frame[y, x].mean()) / 120) for y, x in ((8, 8), (8, -8), (-8, -8), (-8, 8))]


@pytest.mark.parametrize(
    "video",
    [
        pytest.param(("a.mp4", Video(FRAMES)), id="mp4, B-frames"),
        pytest.param(("a.mkv", Video(FRAMES)), id="mkv, B-frames"),
        pytest.param(("a.ts", Video(FRAMES)), id="mpegts, B-frames"),
        pytest.param(("a.avi", Video(FRAMES, codec="mpeg4", tick=Fraction(1, 25), options={"qmax": "2"})), id="avi"),
        pytest.param(("a.webm", Video(FRAMES, codec="libvpx")), id="webm"),
        pytest.param(("a.h264", Video(FRAMES)), id="no timestamps at all"),
    ],
)
def test_the_frame_shown_is_the_last_that_began(tmp_path, video):
    path = write_clip(tmp_path / video[0], video[1])
    times = [0, 0.04, 0.079, 0.08, 0.5, 0.999, 1, 2.6, 2.96, 2.999]
    wanted = {Fraction(str(t)): int(Fraction(str(t)) * 25) % LEVELS for t in times}
    assert shown(path, times) == wanted


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_varying_frame_rate_is_followed(tmp_path, name):
    begins = [0, 0.3, 0.35, 1.1, 1.9, 2.6]
    path = write_clip(tmp_path / name, Video(FRAMES[:6], times=begins))
    assert list(shown(path, [0, 0.299, 0.3, 0.34, 0.36, 1, 1.2, 1.899, 1.9, 2.5, 2.6]).values()) == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5,
    ]  # fmt: skip


def shifted(source, path, which, by):
    """A copy of a Matroska file in which the block of one packet says that it is shown so many milliseconds later."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        payload = [bytes(packet) for packet in container.demux(video=0) if packet.size][which]
    at = data.index(payload) - 3
    struct.pack_into(">h", data, at, struct.unpack_from(">h", data, at)[0] + by)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("which", "by"), [(20, -500), (74, -1000)])
def test_one_stray_time_costs_one_frame(tmp_path, which, by):
    video = Video(FRAMES, codec="mpeg4", tick=Fraction(1, 25), options={"bf": "0"})
    whole = write_clip(tmp_path / "whole.mkv", video)
    times = [0.1, 0.5, 0.82, 1, 2, 2.8]
    expected = shown(whole, times)
    if which == 20:
        expected[Fraction("0.82")] = 19
    assert shown(shifted(whole, tmp_path / "a.mkv", which, by), times) == expected


@pytest.mark.parametrize(
    ("starts", "kept"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([9, 0, 1, 2], [0, 1, 2, 9]),
        ([9, 9, 0, 1], [0, 1, 9]),
        ([0, 1, 9, 2, 3], [0, 1, 2, 3, 9]),
        ([5, 6, 0, 7], [5, 6, 7]),
        ([0, 1, 1, 2], [0, 1, 2]),
        ([0, 1, 9], [0, 1, 9]),
        ([3], [3]),
        ([], []),
    ],
)
def test_a_frame_that_comes_too_early_waits_and_one_that_comes_too_late_is_left_out(starts, kept):
    frames = [Timed(Fraction(start), Fraction(start + 1), None) for start in starts]
    assert [frame.start for frame in _in_order(frames)] == kept


def test_one_frame_can_be_shown_at_many_times(tmp_path):
    path = write_clip(tmp_path / "a.mkv", Video(FRAMES[:3], rate=1, codec="mpeg4"))
    assert list(shown(path, [0, 0.25, 0.5, 0.75, 1, 1.5, 2.9]).values()) == [0, 0, 0, 0, 1, 1, 2]


def test_before_a_late_first_frame_nothing_is_shown(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES, start=1.5), Audio(tone(4)))
    assert shown(path, [0, 1, 1.3, 1.5, 2]) == {Fraction(3, 2): 0, Fraction(2): 12}


def test_the_first_frame_stands_in_for_a_tenth_of_a_second(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES, start=1.5), Audio(tone(4)))
    assert shown(path, [1.39, 1.41, 1.45]) == {Fraction("1.41"): 0, Fraction("1.45"): 0}


def test_after_the_end_of_the_last_frame_nothing_is_shown(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES))
    assert list(shown(path, [2.99, 3, 3.5])) == [Fraction("2.99")]


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_times_count_from_where_a_recording_starts(tmp_path, name):
    path = write_clip(tmp_path / name, Video(FRAMES, start=100))
    assert list(shown(path, [0, 1, 2]).values()) == [0, 25, 50 % LEVELS]


def test_what_lies_before_zero_is_not_shown(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES, start=-1))
    assert list(shown(path, [0, 1]).values()) == [25, 50 % LEVELS]


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        (None, [2, 1, 0, 0]),
        (CLOCKWISE, [0, 2, 1, 0]),
        ((0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30), [1, 0, 0, 2]),  # counterclockwise
        ((-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30), [0, 0, 2, 1]),  # upside down
        (MIRRORED, [1, 2, 0, 0]),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_picture_is_turned_upright(tmp_path, matrix, seen, name):
    path = write_clip(tmp_path / name, Video([patches()] * 5, matrix=matrix, options={"crf": "10"}))
    ((_, frame),) = read_frames(path, [Fraction(0)], (112, 112))
    assert corners(frame) == seen


def test_odd_sizes_come_out_at_the_size_asked_for(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video([grey(k, 33, 57) for k in range(25)], pix_fmt="yuv444p"))
    ((_, frame),) = read_frames(path, [Fraction(1, 2)], SIZE)
    assert frame.shape == (*SIZE, 3)
    assert frame.dtype == np.uint8
    assert index_of(frame) == 12


def test_frames_that_change_size_on_the_way_all_come_out_alike(tmp_path):
    parts = [write_clip(tmp_path / f"{h}.h264", Video([grey(k, h, 64) for k in range(25)])) for h in (48, 96)]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = dict(read_frames(path, [Fraction(1, 2), Fraction(3, 2)], SIZE))
    assert [(frame.shape, index_of(frame[:, 24:60])) for frame in frames.values()] == [((*SIZE, 3), 12)] * 2


@pytest.fixture(scope="module")
def long_frames():
    return [grey(k) for k in range(20 * 25)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "50"}),
        ("a.mkv", "libx264", {"g": "50"}),
        ("a.ts", "libx264", {"g": "100"}),
        ("open.ts", "libx264", {"g": "50", "x264-params": "open-gop=1:bframes=3"}),
        ("a.mp4", "libx264", {"g": "2000"}),  # one keyframe only
        ("a.ts", "libx264", {"g": "2000"}),
        ("a.avi", "mpeg4", {"g": "50"}),
        ("a.h264", "libx264", {"g": "50"}),
    ],
)
def test_starting_far_in_shows_what_decoding_from_the_start_shows(tmp_path, long_frames, name, codec, options):
    tick = Fraction(1, 25) if name == "a.avi" else Fraction(1, 12000)
    path = write_clip(tmp_path / name, Video(long_frames, codec=codec, tick=tick, options=options))
    everything = {timed.start: timed.frame.to_ndarray(format="gray").mean() for timed in from_start(path)}
    for since in ("7.98", "13.5", "19.96"):
        time = Fraction(since)
        begun = max(start for start in everything if start <= time)
        wanted = everything[begun]
        first = next(timed_at(path, time))
        assert first.to_ndarray(format="gray").mean() == wanted


def test_a_stream_that_appears_on_the_way_does_no_harm(tmp_path):
    """As where a broadcast's programme, or an advertisement in it, brings a second sound track."""
    parts = [
        write_clip(tmp_path / "1.ts", Video([grey(k) for k in range(400)])),
        write_clip(tmp_path / "2.ts", Video([grey(k) for k in range(50)], start=16), Audio(tone(2), start=16)),
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert list(shown(path, [1, 15, 17])) == [1, 15, 17]


def from_start(path):
    return timed_frames(path, "video", Fraction(0), Damage())


def timed_at(path, time):
    """The decoded frame on screen at a time, found by seeking."""
    last = None
    for timed in timed_frames(path, "video", time, Damage()):
        if timed.start > time:
            break
        last = timed.frame
    yield last


def test_a_damaged_stretch_is_left_out_and_counted(tmp_path):
    path = write_clip(tmp_path / "a.mov", Video(FRAMES, codec="png", pix_fmt="rgb24"))
    pieces = path.read_bytes().split(b"\x89PNG")
    marks = [b"\x89PNG" if k not in (30, 31, 32) else b"\x89BAD" for k in range(len(pieces) - 1)]
    path.write_bytes(b"".join(piece + mark for piece, mark in zip(pieces, [*marks, b""], strict=True)))
    damage = Damage()
    times = [Fraction(k, 25) for k in (10, 29, 32, 33, 60)]
    seen = [index_of(frame) for _, frame in read_frames(path, times, SIZE, damage)]
    assert seen == [10, 29, 29, 33, 20]
    assert damage.packets == 3


def test_sound_alone_has_no_frames_to_read(tmp_path):
    path = write_clip(tmp_path / "a.wav", audio=Audio(tone(1), codec="pcm_s16le"))
    with pytest.raises(MediaError, match="no video stream"):
        list(read_frames(path, [Fraction(0)], SIZE))


def test_frames_are_decoded_as_they_are_asked_for():
    frames = read_frames(real_clip("bbb_30s.webm"), [Fraction(k) for k in range(30)], SIZE)
    assert next(frames)[0] == 0
    assert next(frames)[0] == 1
    frames.close()
