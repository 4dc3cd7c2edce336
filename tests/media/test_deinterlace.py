"""Frames flagged as two fields become whole pictures; others stay as they are."""

from fractions import Fraction

import av
import numpy as np
import pytest

from omniqa.media.clip import ClipOptions, sample
from omniqa.media.video import PictureCounts, read_frames
from tests.media.clips import CLOCKWISE

SIZE = (112, 140)
RATE = 25
X264 = {"preset": "ultrafast", "crf": "8", "flags": "+ilme+ildct"}
MPEG2 = {"flags": "+ilme+ildct", "q:v": "2"}
CLIPS = {
    "MPEG-2 in MPEG-TS": ("a.ts", "mpeg2video", MPEG2),
    "MPEG-2 in MPEG-PS": ("a.mpg", "mpeg2video", MPEG2),
    "H.264 in MP4": ("a.mp4", "libx264", X264),
    "H.264 in Matroska": ("a.mkv", "libx264", X264),
    "H.264 in MPEG-TS": ("a.ts", "libx264", X264),
    "FFV1": ("a.mkv", "ffv1", {}),
}


def moment(half):
    """A bar that moves by 3 pixels in every half of a frame's time, on a still texture."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    picture = np.repeat((40 + 30 * ((rows // 16 + columns // 16) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    picture[24:88, 8 + 3 * half % 100 : 28 + 3 * half % 100] = 220
    return picture


def woven(number, order):
    """A frame of two fields: of the moment at which it begins, and of half a frame later."""
    first = 0 if order == "tff" else 1
    picture = moment(2 * number)
    picture[1 - first :: 2] = moment(2 * number + 1)[1 - first :: 2]
    return picture


def write(path, codec, orders, options, matrix=None, aspect=None):
    """A clip with a frame for each of the orders: "tff", "bff", or "prog" (not interlaced, and flagged so)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        if matrix:
            stream.set_display_matrix(matrix)
        stream.codec_context.sample_aspect_ratio = aspect or 1
        for number, order in enumerate(orders):
            picture = moment(2 * number) if order == "prog" else woven(number, order)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame = flagged(frame, order)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def flagged(frame, order):
    graph = av.filter.Graph()
    source = graph.add_buffer(width=SIZE[1], height=SIZE[0], format="yuv420p", time_base=Fraction(1, RATE))
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return graph.pull()


def clip_of(folder, kind, order, count=8):
    name, codec, options = CLIPS[kind]
    more = {"x264-params": f"{order}=1"} if codec == "libx264" else {}
    return write(folder / name, codec, [order] * count, options | more)


def frames_of(path, count, since=0, counts=None):
    times = [Fraction(k, RATE) + Fraction(1, 100) for k in range(since, since + count)]
    return [picture for _, picture in read_frames(path, times, SIZE, counts=counts)]


def combing(picture):
    """How much neighbouring lines differ from those next to them, around the bar."""
    return np.abs(np.diff(picture[26:86, :, 1].astype(int), 2, axis=0)).mean()


def off(picture, expected):
    """Mean absolute difference, in levels."""
    return np.abs(picture.astype(int) - expected).mean()


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("kind", CLIPS)
def test_a_frame_of_two_fields_shows_the_moment_at_which_it_begins(tmp_path, kind, order):
    path, counts = clip_of(tmp_path, kind, order), PictureCounts()
    for number, picture in enumerate(frames_of(path, 8, counts=counts)):
        assert combing(picture) < combing(woven(number, order)) / 4
        assert off(picture, moment(2 * number)) < 2.5
        assert off(picture, moment(2 * number)) < off(picture, moment(2 * number + 1)) / 2
    assert counts.deinterlaced == 8


@pytest.mark.parametrize("kind", ["FFV1", "H.264 in MP4", "H.264 in MPEG-TS"])
def test_a_single_frame_is_filtered_alone(tmp_path, kind):
    (picture,) = frames_of(clip_of(tmp_path, kind, "tff", count=1), 1)
    assert combing(picture) < combing(woven(0, "tff")) / 4
    assert off(picture, moment(0)) < 3


def test_frames_that_are_not_flagged_stay_as_they_are(tmp_path):
    """Even if they show two moments: lines of text look alike."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(woven(number, "tff"), format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(flagged(frame, "prog")))
        container.mux(stream.encode())
    counts = PictureCounts()
    pictures = frames_of(tmp_path / "a.mkv", 3, counts=counts)
    with av.open(str(tmp_path / "a.mkv")) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(map(np.array_equal, pictures, stored))
    assert counts == PictureCounts()


@pytest.mark.parametrize("first", ["prog", "tff"])
def test_of_a_mixed_stream_only_the_flagged_frames_are_filtered(tmp_path, first):
    second = {"prog": "tff", "tff": "prog"}[first]
    orders = [first] * 6 + [second] * 6 + [first] * 6
    path = write(tmp_path / "a.mkv", "ffv1", orders, {})
    counts = PictureCounts()
    pictures = frames_of(path, len(orders), counts=counts)
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [np.array_equal(a, b) for a, b in zip(pictures, stored, strict=True)] == [o == "prog" for o in orders]
    assert all(combing(picture) < 20 for picture in pictures)
    assert counts.deinterlaced == orders.count("tff")


@pytest.mark.parametrize("kind", CLIPS)
def test_the_same_frame_comes_out_wherever_reading_begins(tmp_path, kind):
    path = clip_of(tmp_path, kind, "tff", count=60)
    whole = frames_of(path, 60)
    assert len(whole) == 60
    for number in (12, 13, 24, 25, 37, 59):
        (alone,) = frames_of(path, 1, since=number)
        assert np.array_equal(alone, whole[number]), number
    sparse = [picture for _, picture in read_frames(path, [Fraction(k, RATE) for k in range(0, 60, 12)], SIZE)]
    assert all(np.array_equal(picture, whole[12 * k]) for k, picture in enumerate(sparse))


def test_interlaced_frames_are_turned_and_have_their_pixels_made_square_too(tmp_path):
    path = write(tmp_path / "a.mp4", "libx264", ["tff"] * 5, X264 | {"x264-params": "tff=1"}, CLOCKWISE, Fraction(8, 5))
    clip = sample(path, ClipOptions(audio=False))
    assert (clip.info.video.height, clip.info.video.width) == (224, 112)
    assert clip.counts.deinterlaced == 1
    assert np.abs(np.diff(clip.frames[0][..., 1].astype(int), 2, axis=1)).mean() < 4
    bright = np.where(clip.frames[0][..., 1] > 150)
    assert np.ptp(bright[0]) < np.ptp(bright[1])  # the bar, upright as it is stored, lies


def test_the_clip_counts_the_frames(tmp_path):
    clip = sample(clip_of(tmp_path, "MPEG-2 in MPEG-TS", "bff", count=50), ClipOptions(audio=False))
    assert clip.counts == PictureCounts(deinterlaced=4)
    assert clip.warnings == ()
