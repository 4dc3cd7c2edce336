"""A circle stays one: pixels of any shape, turned or not, and frames that change their size on the way."""

from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from omniqa.media.clip import ClipOptions, sample
from omniqa.media.geometry import believed, fitted_size
from omniqa.media.probe import probe
from omniqa.media.video import read_frames
from tests.media.clips import CLOCKWISE

RATE = 25
GREY = 60  # of the background, to be told from black


def disc(height, width, aspect=Fraction(1), level=235):
    """A frame (H, W, 3) that shows a bright circle, if its pixels have that shape."""
    y, x = np.mgrid[:height, :width]
    across, down = (x - (width - 1) / 2) * float(aspect), y - (height - 1) / 2
    inside = np.hypot(across, down) < 0.4 * min(height, width * float(aspect))
    return np.repeat(np.where(inside, level, GREY).astype(np.uint8)[..., None], 3, axis=2)


def roundness(frame, video):
    """Width by height of what is bright, where the picture has the shape in which the file is shown.

    The model's frames differ from that a little: their sides are multiples of 28.
    """
    ys, xs = np.where(frame[..., 1] > 150)
    height, width = frame.shape[:2]
    return (np.ptp(xs) + 1) / width * video.width / ((np.ptp(ys) + 1) / height * video.height)


def encoder(codec, height, width, aspect, pix_fmt="yuv420p", **options):
    context = av.CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = height, width, pix_fmt
    context.time_base, context.framerate = Fraction(1, RATE), Fraction(RATE)
    context.sample_aspect_ratio, context.options = aspect, options
    return context


def encoded(context, pictures, first=0):
    for number, picture in enumerate(pictures, first):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=context.pix_fmt)
        frame.pts, frame.time_base = number, context.time_base
        yield from context.encode(frame)
    yield from context.encode()


def write(path: Path, codec, picture, aspect, *, matrix=None, pix_fmt="yuv420p", **options) -> Path:
    """Ten times the same picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = pix_fmt, aspect
        if matrix:
            stream.set_display_matrix(matrix)
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def joined(path: Path, codec, parts, count=RATE, pix_fmt="yuv420p", **options) -> Path:
    """A stream whose frames change: `count` of each (picture, pixel aspect)."""
    contexts = [encoder(codec, *picture.shape[:2], aspect, pix_fmt, **options) for picture, aspect in parts]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = contexts[0].height, contexts[0].width, pix_fmt
        stream.codec_context.sample_aspect_ratio = parts[0][1]
        packets = [
            list(encoded(context, [picture] * count, k * count))
            for k, (context, (picture, _)) in enumerate(zip(contexts, parts, strict=True))
        ]
        for packet in chain.from_iterable(packets):
            packet.stream = stream
            container.mux(packet)
    return path


DVD, HDV = (576, 720), (1080, 1440)
ANAMORPHIC = {
    "DVD, 16:9, H.264 in MP4": ("a.mp4", "libx264", DVD, "64/45", {"preset": "ultrafast"}),
    "DVD, 16:9, H.264 in Matroska": ("a.mkv", "libx264", DVD, "64/45", {"preset": "ultrafast"}),
    "DVD, 16:9, H.264 in MPEG-TS": ("a.ts", "libx264", DVD, "64/45", {"preset": "ultrafast"}),
    "DVD, 4:3, MPEG-2 in MPEG-PS": ("a.mpg", "mpeg2video", DVD, "16/15", {}),
    "DVD, 16:9, MPEG-2 in MPEG-TS": ("a.ts", "mpeg2video", (480, 720), "32/27", {}),
    "HDV, MPEG-2 in MPEG-TS": ("a.ts", "mpeg2video", HDV, "4/3", {}),
    "SVCD, MPEG-2": ("a.mpg", "mpeg2video", (576, 480), "8/5", {}),
    "DV": ("a.dv", "dvvideo", DVD, "64/45", {}),
    "DV in MOV": ("a.mov", "dvvideo", DVD, "16/15", {}),
    "tall pixels": ("a.mp4", "libx264", (480, 720), "8/9", {"preset": "ultrafast"}),
    "MOV alone knows": ("a.mov", "qtrle", (240, 352), "24/11", {"pix_fmt": "rgb24"}),
    "half side by side": ("a.mkv", "libx264", (360, 320), "2/1", {"preset": "ultrafast"}),
}


@pytest.mark.parametrize("name", ANAMORPHIC)
def test_a_circle_stays_one(tmp_path, name):
    file, codec, size, ratio, options = ANAMORPHIC[name]
    aspect = Fraction(ratio)
    path = write(tmp_path / file, codec, disc(*size, aspect), aspect, **options)
    clip = sample(path, ClipOptions(audio=False))
    assert roundness(clip.frames[0], clip.info.video) == pytest.approx(1, abs=0.015)
    video = clip.info.video
    assert video.pixel_aspect == pytest.approx(aspect, rel=0.01)  # of DV, FFmpeg has ratios of its own
    assert video.width / video.height == pytest.approx(size[1] / size[0] * aspect, rel=0.01)


def test_matroskas_display_size_holds(tmp_path):
    """It takes the place of the tags of colour, which make room for it."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 240, 352, "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        frame = av.VideoFrame.from_ndarray(disc(240, 352, Fraction(24, 11)), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="itu709")))
        container.mux(stream.encode())
    data = path.read_bytes().replace(b"\x54\xb2\x81\x04", b"\x54\xb2\x81\x00")  # the unit: pixels, not unknown
    at = data.index(b"\x55\xb0")
    length = 3 + (data[at + 2] & 0x7F)
    shown = b"\x54\xb0\x82\x03\x00" + b"\x54\xba\x82\x00\xf0"  # 768 by 240
    void = b"\xec" + bytes([0x80 | (length - len(shown) - 2)])
    path.write_bytes(data[:at] + (shown + void).ljust(length, b"\0") + data[at + length :])
    clip = sample(path, ClipOptions(audio=False))
    assert (clip.info.video.height, clip.info.video.width) == (240, 768)
    assert roundness(clip.frames[0], clip.info.video) == pytest.approx(1, abs=0.015)


def test_one_side_is_enlarged_and_none_shrunk(tmp_path):
    sizes = []
    for name, aspect in (("wide.mov", Fraction(2)), ("tall.mov", Fraction(1, 2))):
        video = probe(write(tmp_path / name, "qtrle", disc(100, 200, aspect), aspect, pix_fmt="rgb24")).video
        sizes.append((video.height, video.width))
    assert sizes == [(100, 400), (200, 200)]


@pytest.mark.parametrize("matrix", [CLOCKWISE, (-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30)])
def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path, matrix):
    aspect = Fraction(4, 3)
    picture = disc(240, 480, aspect)
    path = write(tmp_path / "a.mp4", "libx264", picture, aspect, matrix=matrix)
    clip = sample(path, ClipOptions(audio=False))
    assert roundness(clip.frames[0], clip.info.video) == pytest.approx(1, abs=0.015)
    shown = (clip.info.video.height, clip.info.video.width)
    assert shown == ((640, 240) if matrix == CLOCKWISE else (240, 640))


def test_hdr_has_its_pixels_made_square_and_is_turned_too(tmp_path):
    aspect = Fraction(4, 3)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx265", rate=RATE, options={"x265-params": "log-level=0"})
        stream.height, stream.width, stream.pix_fmt = 240, 480, "yuv420p10le"
        context = stream.codec_context
        context.sample_aspect_ratio = aspect
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        stream.set_display_matrix(CLOCKWISE)
        frame = av.VideoFrame.from_ndarray(disc(240, 480, aspect), format="rgb24").reformat(format="yuv420p10le")
        frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = 9, 16, 9, 1
        for frame.pts in range(3):  # a lone frame of libx265 can't be muxed one time in four
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = sample(tmp_path / "a.mp4", ClipOptions(audio=False))
    assert clip.info.video.hdr == "pq"
    assert clip.frames.shape[1] > 2 * clip.frames.shape[2]
    assert roundness(clip.frames[0], clip.info.video) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize(
    ("said", "meant"),
    [(None, 1), (Fraction(0), 1), (Fraction(1000), 1), (Fraction(1, 1000), 1), (Fraction(-4, 3), 1),
     (Fraction(64, 45), Fraction(64, 45)), (Fraction(1, 2), Fraction(1, 2))],
)  # fmt: skip
def test_what_no_camera_has_is_not_believed(said, meant):
    assert believed(said) == meant


@pytest.mark.parametrize("aspect", [Fraction(1000), Fraction(1, 1000)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_clip_with_an_absurd_pixel_aspect_is_shown_with_square_ones(tmp_path, name, aspect):
    path = write(tmp_path / name, "libx264", disc(120, 160), aspect)
    clip = sample(path, ClipOptions(audio=False))
    assert (clip.info.video.height, clip.info.video.width) == (120, 160)
    assert roundness(clip.frames[0], clip.info.video) == pytest.approx(1, abs=0.015)


ONE = Fraction(1)
CHANGING = {
    "H.264 in MPEG-TS": ("a.ts", "libx264", {"preset": "ultrafast"}),
    "MPEG-2 in MPEG-TS": ("a.ts", "mpeg2video", {}),
    "VP9 in Matroska": ("a.mkv", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "VP8 in WebM": ("a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "MJPEG in AVI": ("a.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "MJPEG in Matroska": ("a.mkv", "mjpeg", {"pix_fmt": "yuvj420p"}),
}
SECOND = {
    "larger": (480, 640), "smaller": (120, 160), "wider": (180, 320), "taller": (320, 180), "square": (240, 240),
}  # fmt: skip


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("kind", CHANGING)
def test_frames_that_change_their_size_are_fitted_in_and_never_distorted(tmp_path, kind, second):
    name, codec, options = CHANGING[kind]
    height, width = SECOND[second]
    path = joined(tmp_path / name, codec, [(disc(240, 320), ONE), (disc(height, width), ONE)], **options)
    clip = sample(path, ClipOptions(audio=False))
    assert len(clip.frames) == 4
    assert clip.frames.shape[1:3] == sample(path, ClipOptions(audio=False, end=1)).frames.shape[1:3]
    first, last = clip.frames[0], clip.frames[-1]
    assert roundness(first, clip.info.video) == pytest.approx(1, abs=0.02)
    assert roundness(last, clip.info.video) == pytest.approx(1, abs=0.02)
    share = min(240 / height, 320 / width)
    seen = last.shape[0] * height * share / 240, last.shape[1] * width * share / 320
    grey_rows, grey_columns = (last[..., 1] > GREY / 2).any(1).sum(), (last[..., 1] > GREY / 2).any(0).sum()
    assert (grey_rows, grey_columns) == (pytest.approx(seen[0], abs=3), pytest.approx(seen[1], abs=3))


def test_frames_fitted_in_stand_in_the_middle_of_black(tmp_path):
    parts = [(disc(240, 320), ONE), (disc(240, 240), ONE)]
    path = joined(tmp_path / "a.mkv", "mjpeg", parts, pix_fmt="yuvj420p")
    last = sample(path, ClipOptions(audio=False)).frames[-1]
    assert last[:, :30].max() == last[:, -30:].max() == 0
    assert np.abs(last[..., 1].astype(int) - last[:, ::-1, 1]).max() <= 24


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_a_broadcast_may_change_the_shape_of_its_pixels(tmp_path, codec):
    """From 4:3 to 16:9, as between programmes, the stored size the same."""
    narrow, wide = Fraction(16, 15), Fraction(64, 45)
    path = joined(tmp_path / "a.ts", codec, [(disc(*DVD, narrow), narrow), (disc(*DVD, wide), wide)])
    clip = sample(path, ClipOptions(audio=False, fps=5))
    assert (clip.info.video.height, clip.info.video.width) == (576, 768)
    for frame in (*clip.frames[:4], *clip.frames[-4:]):
        assert roundness(frame, clip.info.video) == pytest.approx(1, abs=0.02)
    assert clip.frames[-1][:20].max() == 0


def test_a_range_from_the_middle_has_the_size_of_the_whole(tmp_path):
    parts = [(disc(240, 320), ONE), (disc(120, 320), ONE)]
    path = joined(tmp_path / "a.mkv", "libvpx-vp9", parts, count=150, deadline="realtime", **{"cpu-used": "8"})
    whole, part = sample(path, ClipOptions(audio=False)), sample(path, ClipOptions(audio=False, start=11))
    assert part.frames.shape[1:] == whole.frames.shape[1:]
    assert np.array_equal(part.frames[0], whole.frames[22])


def test_a_file_that_was_not_probed_is_fitted_to_the_first_frame_taken(tmp_path):
    path = joined(tmp_path / "a.mkv", "mjpeg", [(disc(240, 320), ONE), (disc(240, 240), ONE)], pix_fmt="yuvj420p")
    (_, first), (_, last) = read_frames(path, [Fraction(0), Fraction(3, 2)], (240, 320))
    assert first.min() > 0
    assert last[:, :30].max() == 0


@pytest.mark.parametrize(
    ("shown", "takes"),
    [((360, 640), (280, 504)), ((720, 1280), (280, 504)), ((480, 854), (280, 504)), ((640, 360), (280, 159)),
     ((360, 1280), (140, 504)), ((1, 10_000), (1, 504))],
)  # fmt: skip
def test_the_part_of_the_picture_that_a_frame_takes(shown, takes):
    assert fitted_size(shown, (360, 640), (280, 504)) == takes
