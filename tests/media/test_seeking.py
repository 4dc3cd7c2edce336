"""What is left undecoded is missed by nobody: the frames are those of a file that is decoded from end to end."""

from fractions import Fraction

import numpy as np
import pytest

from omniqa.media import seeking, segments
from omniqa.media.container import Damage, timed_frames
from omniqa.media.deinterlace import deinterlaced
from omniqa.media.geometry import upright
from omniqa.media.video import read_frames
from tests.media.clips import Audio, Video, real_clip, tone, write_clip

SIZE = (48, 64)
SECONDS = 12
WALL = np.kron(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
X264 = {"g": "25", "bf": "3", "preset": "ultrafast", "x264-params": "b-adapt=0"}
MPEG4 = {"codec": "mpeg4", "tick": Fraction(1, 25), "options": {"g": "25", "bf": "2"}}


def moving(index):
    """A texture that drifts, so that no two frames within seconds are equal, whatever the codec does to them."""
    return np.ascontiguousarray(np.roll(WALL, (index, 2 * index), (0, 1))[: SIZE[0], : SIZE[1]])


FRAMES = [moving(k) for k in range(SECONDS * 25)]


def film(**changes):
    return Video(FRAMES, **{"options": X264} | changes)


def x264(**params):
    given = ":".join(f"{name.replace('_', '-')}={value}" for name, value in params.items())
    return X264 | {"x264-params": f"{X264['x264-params']}:{given}"}


VARYING = [k / 25 + (k > 60) * 1.7 + (k > 200) * 0.013 for k in range(len(FRAMES))]

# Of each: the file's name, its picture, options of its muxer; and whether something can be left out.
CLIPS = {
    "mp4": ("a.mp4", film(), {}, True),
    "mp4, fragmented": ("a.mp4", film(), {"movflags": "frag_keyframe+empty_moov"}, True),
    "mp4, starts at -1 s": ("a.mp4", film(start=-1), {}, True),
    "mkv": ("a.mkv", film(), {}, True),
    "mkv, starts at 100 s": ("a.mkv", film(start=100), {}, True),
    "mkv, varying rate": ("a.mkv", film(times=VARYING), {}, True),
    "mpegts": ("a.ts", film(), {}, True),
    "mpegts, open groups": ("a.ts", film(options=x264(open_gop=1)), {}, True),
    "mpegts, a single keyframe and rolling refresh": ("a.ts", film(options=x264(intra_refresh=1)), {}, True),
    "mpeg2 in mpegts": ("a.ts", film(**MPEG4 | {"codec": "mpeg2video"}), {}, True),
    "interlaced": ("a.mkv", film(options=x264(tff=1)), {}, True),
    "a single keyframe": ("a.mp4", film(options=X264 | {"g": "9999"}), {}, True),
    "mpeg4": ("a.mp4", film(**MPEG4), {}, True),
    "avi": ("a.avi", film(**MPEG4), {}, True),
    "png": ("a.mov", film(codec="png", pix_fmt="rgb24", options={}), {}, True),
    "vp8": ("a.webm", film(codec="libvpx", options={"g": "25", "deadline": "realtime"}), {}, True),
    "vp9": ("a.webm", film(codec="libvpx-vp9", options={"g": "25", "deadline": "realtime", "cpu-used": "8"}), {}, True),
    "hevc": (
        "a.mp4",
        film(codec="libx265", options={"g": "25", "preset": "ultrafast", "x265-params": "log-level=0"}),
        {},
        True,
    ),
    "no timestamps": ("a.h264", film(), {}, False),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Makes a clip of CLIPS once: its path, and all its frames with their times."""
    made = {}

    def make(name):
        if name not in made:
            file, video, options, _ = CLIPS[name]
            path = write_clip(tmp_path_factory.mktemp("clips") / file, video, **options)
            made[name] = path, whole(path)
        return made[name]

    return make


def whole(path):
    """(start, end, picture) of every frame, decoded from the beginning; none that goes back in time."""
    decoded = []
    for timed in timed_frames(path, "video", Fraction(0), Damage()):
        if not decoded or timed.start >= decoded[-1].start:
            decoded.append(timed)
    frames = []
    for before, timed, after in zip([None, *decoded], decoded, [*decoded[1:], None], strict=False):
        frame = (deinterlaced(before, timed, after) if timed.frame.interlaced_frame else timed).frame
        frames.append((timed.start, timed.end, upright(frame.to_ndarray(format="rgb24"), frame)))
    return frames


def every(step, start="0", end=SECONDS + 3):
    times, time = [], Fraction(start)
    while time < end:
        times.append(time)
        time += Fraction(step)
    return times


def expected(frames, times):
    """By the rule: the last frame that begins at or before a time, or the first one 0.1 s early, up to the end."""
    shown = {}
    for time in times:
        begun = [frame for frame in frames if frame[0] <= time] or [
            frame for frame in frames[:1] if frame[0] <= time + Fraction(1, 10)
        ]
        if begun and (begun[-1] is not frames[-1] or time < begun[-1][1]):
            shown[time] = begun[-1][2]
    return shown


def same_as_whole(path, frames, times):
    size = frames[0][2].shape[:2]
    taken, wanted = dict(read_frames(path, times, size)), expected(frames, times)
    assert list(taken) == list(wanted)
    for time, picture in wanted.items():
        assert np.array_equal(taken[time], picture), f"another frame at {float(time):g} s"
    return taken


@pytest.fixture
def decoded(monkeypatch):
    """Packets given to the decoder: 'all' of those that are not left out, and of these the 'spare' ones."""
    counts = {"all": 0, "spare": 0, "whole": 0}
    frames, decode = segments._Decoder.frames, seeking.decode

    def counted(self, packet, spare):
        counts["all"] += 1
        counts["spare"] += spare and self._marked
        return frames(self, packet, spare)

    def counted_whole(*given):
        counts["whole"] += 1
        return decode(*given)

    monkeypatch.setattr(segments._Decoder, "frames", counted)
    monkeypatch.setattr(seeking, "decode", counted_whole)
    return counts


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(("step", "start"), [("0.08", "0"), ("0.5", "0.3"), ("2.7", "0"), ("1.1", "7.45"), ("9", "1")])
def test_the_same_frames_as_decoding_everything(clip, name, step, start):
    path, frames = clip(name)
    assert same_as_whole(path, frames, every(step, start))


@pytest.mark.parametrize("name", ["bbb_30s.webm", "rabbit320.mp4", "chaplin.mp4", "bikes.mp4", "no_duration.webm"])
def test_the_same_frames_of_real_clips(name):
    path = real_clip(name)
    frames = timed_frames(path, "video", Fraction(0), Damage())
    starts = [(start, end, frame.to_ndarray().tobytes()) for start, end, frame, *_ in frames]
    for step in ("0.5", "2.3"):
        times, passed = every(step, end=starts[-1][1]), []
        for start, end, frame, *_ in seeking.frames_for(path, times, Damage(), seeking.Access()):
            passed.append((start, end, frame.to_ndarray().tobytes()))
        assert expected(passed, times) == expected(starts, times)


def test_groups_at_which_no_time_looks_are_not_decoded(clip, decoded):
    path, frames = clip("mp4")
    same_as_whole(path, frames, every("2.7"))
    assert decoded["all"] <= 5 * (25 + 6)
    assert decoded["whole"] == 0


@pytest.mark.parametrize("name", ["mpegts", "mkv", "vp9", "mpeg4", "mpegts, open groups"])
def test_nor_are_they_where_there_is_no_index_or_the_codec_is_another(clip, decoded, name):
    path, frames = clip(name)
    same_as_whole(path, frames, every("6"))
    assert 3 <= decoded["all"] <= 3 * (25 + 12)
    assert decoded["whole"] == 0


@pytest.mark.parametrize("name", ["a single keyframe", "mpeg2 in mpegts"])
def test_frames_that_no_other_needs_are_passed_over_on_the_way(clip, decoded, name):
    path, frames = clip(name)
    given = list(seeking.frames_for(path, every("0.9"), Damage(), seeking.Access()))
    assert decoded["spare"] > decoded["all"] / 3
    assert len(given) < len(frames) - decoded["spare"] / 2


def test_without_timestamps_nothing_is_left_out(clip, decoded):
    path, frames = clip("no timestamps")
    same_as_whole(path, frames, every("2.7"))
    assert decoded["all"] == len(frames)
    assert decoded["spare"] == 0


@pytest.fixture
def leaps(monkeypatch):
    """Small files are sought in, too; where the seeks led is taken down."""
    monkeypatch.setattr(seeking, "_NEAR_BYTES", 0)
    monkeypatch.setattr(seeking, "_FAR_SECONDS", 0)
    made, go = [], seeking._Leap.go

    def counted(self, timestamp):
        made.append(timestamp)
        go(self, timestamp)

    monkeypatch.setattr(seeking._Leap, "go", counted)
    return made


@pytest.mark.parametrize("name", ["mp4", "mkv", "vp9", "hevc", "mpeg4", "mp4, starts at -1 s", "mkv, varying rate"])
def test_seeks_by_the_index_lead_to_the_same_frames(clip, leaps, decoded, name):
    path, frames = clip(name)
    same_as_whole(path, frames, every("2.7"))
    assert leaps
    assert decoded["whole"] == 0


def test_a_file_is_read_only_where_it_is_looked_at(tmp_path, leaps, monkeypatch):
    """The sound between makes the file long; the packets of the picture that are read are few."""
    path = write_clip(tmp_path / "a.mp4", film(), Audio(tone(SECONDS)))
    read, packets = [], seeking.packets

    def counted(*given):
        for packet in packets(*given):
            read.append(packet.pts)
            yield packet

    monkeypatch.setattr(seeking, "packets", counted)
    same_as_whole(path, whole(path), every("5"))
    assert len(read) < len(FRAMES) / 2


@pytest.mark.parametrize("name", ["mp4", "mkv"])
@pytest.mark.parametrize("wrong", [40, -40])
def test_a_seek_that_leads_elsewhere_does_no_harm(clip, leaps, decoded, monkeypatch, name, wrong):
    path, frames = clip(name)
    go = seeking._Leap.go

    def astray(self, timestamp):
        go(self, max(0, timestamp + round(wrong / 10 / self._stream.time_base)))

    monkeypatch.setattr(seeking._Leap, "go", astray)
    same_as_whole(path, frames, every("4.3"))
    if wrong > 0:
        assert len(leaps) == 1, "a file that was sought in without success is not sought in again"
    assert decoded["whole"] == 0


def test_a_file_that_can_not_be_sought_in_is_read_on(clip, leaps, monkeypatch):
    path, frames = clip("mp4")

    def refused(self, timestamp):
        raise seeking.SeekOvershoot

    monkeypatch.setattr(seeking._Leap, "go", refused)
    same_as_whole(path, frames, every("2.7"))


@pytest.mark.parametrize("name", ["mp4", "mpegts", "vp8"])
def test_false_keyframes_are_found_out(clip, decoded, monkeypatch, name):
    """As where a file lacks its table of keyframes: every frame is said to be one."""
    path, frames = clip(name)
    packets = seeking.packets

    def all_keyframes(*given):
        for packet in packets(*given):
            packet.is_keyframe = True
            yield packet

    monkeypatch.setattr(seeking, "packets", all_keyframes)
    same_as_whole(path, frames, every("2.7"))
    assert decoded["whole"] == 1


def test_what_a_damaged_file_shows_does_not_depend_on_what_is_left_out(clip, tmp_path):
    original, frames = clip("png")
    pieces = original.read_bytes().split(b"\x89PNG")
    marks = [b"\x89PNG" if k not in (67, 68, 150) else b"\x89BAD" for k in range(len(pieces) - 1)]
    path = tmp_path / "a.mov"
    path.write_bytes(b"".join(piece + mark for piece, mark in zip(pieces, [*marks, b""], strict=True)))
    remaining = [frame for k, frame in enumerate(frames) if k not in (67, 68, 150)]
    damage = Damage()
    taken = dict(read_frames(path, every("0.68", end=SECONDS), SIZE, damage))
    for time, picture in expected(remaining, every("0.68", end=SECONDS)).items():
        assert np.array_equal(taken[time], picture)
    assert damage.packets == 3


def test_timestamps_that_jump_back_are_followed_as_ever(clip, tmp_path):
    path = tmp_path / "twice.ts"
    path.write_bytes(clip("mpegts")[0].read_bytes() + clip("mpegts, open groups")[0].read_bytes())
    same_as_whole(path, whole(path), every("1.7"))
