from fractions import Fraction

import av
import numpy as np
import pytest

from omniqa.errors import MediaError
from omniqa.media.probe import probe
from tests.media.clips import CLOCKWISE, Audio, Video, grey, real_clip, tone, write_clip

FRAMES = [grey(k) for k in range(75)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_streams_sizes_and_times_of_an_ordinary_clip(tmp_path, name):
    info = probe(write_clip(tmp_path / name, Video(FRAMES), Audio(tone(3))))
    assert (info.video.width, info.video.height, info.video.rotation) == (64, 48, 0)
    assert info.video.frame_rate == 25
    assert info.audio.sample_rate == 44100
    assert info.audio.channels == 1
    assert float(info.video.end - info.video.start) == pytest.approx(3, abs=0.002)
    assert float(info.audio.end) == pytest.approx(3, abs=0.06)
    assert info.duration == max(info.video.end, info.audio.end)


def test_width_and_height_are_those_of_the_turned_picture(tmp_path):
    info = probe(write_clip(tmp_path / "phone.mp4", Video(FRAMES, matrix=CLOCKWISE)))
    assert (info.video.width, info.video.height, info.video.rotation) == (48, 64, 90)


@pytest.mark.parametrize("start", [3, 100, 3600])
@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_a_recording_that_starts_late_is_shown_from_zero(tmp_path, name, start):
    info = probe(write_clip(tmp_path / name, Video(FRAMES, start=start)))
    assert info.video.start == 0
    assert float(info.video.end) == pytest.approx(3, abs=0.002)


def test_what_lies_before_zero_is_not_part_of_the_clip(tmp_path):
    info = probe(write_clip(tmp_path / "a.mp4", Video(FRAMES, start=-1), Audio(tone(3), start=-1)))
    assert float(info.video.end) == pytest.approx(2, abs=0.002)


def test_a_varying_frame_rate_does_not_shorten_the_clip(tmp_path):
    times = [0, 0.3, 0.35, 1.1, 1.9, 2.6]
    info = probe(write_clip(tmp_path / "a.mp4", Video(FRAMES[:6], times=times)))
    assert info.video.end > Fraction("2.6")


def test_a_long_matroska_file_gets_its_ends_from_its_last_packets(tmp_path):
    video, audio = Video(FRAMES, rate=1, codec="mpeg4"), Audio(tone(20, rate=16000), rate=16000, codec="pcm_s16le")
    info = probe(write_clip(tmp_path / "a.mkv", video, audio))
    assert float(info.video.end) == pytest.approx(75, abs=0.01)
    assert float(info.audio.end) == pytest.approx(20, abs=0.1)


def test_a_container_without_a_duration_is_read_to_its_end():
    info = probe(real_clip("no_duration.webm"))
    assert float(info.video.end) == pytest.approx(4.94, abs=0.01)
    assert info.audio.start == Fraction(15, 1000)
    assert float(info.audio.end) == pytest.approx(4.874, abs=0.001)


def test_an_elementary_stream_has_the_length_of_its_frames(tmp_path):
    info = probe(write_clip(tmp_path / "a.h264", Video(FRAMES)))
    assert info.video.end == 3


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1)[None], format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(3), format="rgb24")))
        container.mux(cover.encode())
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    info = probe(path)
    assert info.video is None
    assert info.audio is not None


def test_a_video_stream_in_an_unknown_codec_is_none(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES), Audio(tone(3)))
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"zzzz\0\0\0\0"))
    info = probe(path)
    assert info.video is None
    assert info.audio is not None


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", Video(FRAMES)).rename(tmp_path / "concat:12:30.mp4")
    assert probe("concat:12:30.mp4").video is not None


def test_tags_in_no_known_encoding_do_no_harm(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf@"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
    path.write_bytes(path.read_bytes().replace(b"caf@", b"caf\xe9"))
    assert probe(path).audio.end == 1


@pytest.fixture
def unusable(tmp_path):
    (tmp_path / "text.mp4").write_text("This is not a video. " * 100)
    (tmp_path / "notes.txt").write_text("Nor is this.\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    whole = write_clip(tmp_path / "whole.mp4", Video(FRAMES)).read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[: len(whole) // 2])  # the index was at the end
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.mp4", "not a media file"),
        ("notes.txt", "text file"),
        ("empty.mp4", "empty"),
        ("words.srt", "neither a picture nor sound"),
        ("noise.mp4", "not a media file"),
        ("head.mp4", "not a media file, or too damaged"),
        ("folder.mp4", "folder"),
        ("missing.mp4", "not found"),
    ],
)
def test_what_is_no_media_is_refused_in_one_sentence_that_names_it(unusable, name, reason):
    with pytest.raises(MediaError, match=reason) as caught:
        probe(unusable / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
