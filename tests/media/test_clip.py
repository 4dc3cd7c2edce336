from fractions import Fraction

import numpy as np
import pytest

from omniqa.errors import MediaError, UsageError
from omniqa.media.clip import Clip, ClipOptions, sample
from tests.media.clips import CLOCKWISE, LEVELS, Audio, Video, click, grey, index_of, real_clip, spoil, tone, write_clip

FRAMES = [grey(k) for k in range(75)]  # 3 s at 25 frames a second
SMALL = 16 * 28 * 28  # pixels, to keep tests quick


def sampling(**options):
    return ClipOptions(**{"min_pixels": 4 * 28 * 28, "max_pixels": SMALL} | options)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("talk") / "talk.mp4", Video(FRAMES), Audio(click(3, 2.5)))


def test_an_ordinary_clip(talk):
    clip = sample(talk)
    assert clip.frames.shape == (6, 280, 392, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.frame_times == tuple(Fraction(k, 2) for k in range(6))
    assert clip.grid_times == (0, 1, 2)
    assert [index_of(frame) for frame in clip.frames] == [int(12.5 * k) % LEVELS for k in range(6)]
    assert np.argmax(clip.waveform) == pytest.approx(40_000, abs=16)
    assert float(clip.audio_seconds) == pytest.approx(3, abs=0.05)
    assert clip.seconds == clip.info.duration
    assert clip.warnings == ()


def test_an_odd_number_of_frames_repeats_the_last(talk):
    clip = sample(talk, sampling(fps=1))
    assert clip.frame_times == (0, 1, 2, 3)
    assert np.array_equal(clip.frames[2], clip.frames[3])


def test_more_frames_than_allowed_are_spread_evenly(talk):
    clip = sample(talk, sampling(fps=25, max_frames=6))
    assert clip.frame_times == tuple(clip.info.video.end * k / 6 for k in range(6))


def test_frames_at_2_6_a_second_are_where_they_should_be(talk):
    assert sample(talk, sampling(fps=2.6)).frame_times == tuple(Fraction(5 * k, 13) for k in range(8))


def test_a_range_is_cut_from_both_streams_on_one_clock(talk):
    clip = sample(talk, sampling(start=2.2, end=2.8, fps=10))
    assert (clip.start, clip.end) == (Fraction("2.2"), Fraction("2.8"))
    assert clip.frame_times == tuple(Fraction(k, 10) for k in range(6))
    assert [index_of(frame) for frame in clip.frames] == [k % LEVELS for k in (55, 57, 60, 62, 65, 67)]
    assert clip.waveform.shape == (9600,)
    assert np.argmax(clip.waveform) == pytest.approx(0.3 * 16_000, abs=16)


def test_an_end_beyond_the_clip_is_the_end_of_the_clip(talk):
    assert sample(talk, sampling(end=1000)).end == sample(talk, sampling()).end


def test_a_start_beyond_the_end_says_how_long_the_clip_is(talk):
    with pytest.raises(MediaError, match=r"only 3(\.\d+)? s long"):
        sample(talk, sampling(start=20))


def test_a_late_picture_keeps_its_times(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES, start=1.5), Audio(tone(5)))
    clip = sample(path, sampling())
    assert clip.frame_times == (*(Fraction(k, 2) for k in range(3, 9)),)
    assert index_of(clip.frames[0]) == 0


def test_late_sound_keeps_its_time(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES), Audio(click(1.5, 0.5), start=1.2))
    assert np.argmax(sample(path, sampling()).waveform) == pytest.approx(1.7 * 16_000, abs=16)


def test_sound_goes_on_after_the_picture_and_the_picture_after_the_sound(tmp_path):
    longer_sound = sample(write_clip(tmp_path / "a.mp4", Video(FRAMES), Audio(tone(5))), sampling())
    assert longer_sound.frame_times[-1] < 3
    assert float(longer_sound.audio_seconds) == pytest.approx(5, abs=0.05)
    assert float(longer_sound.seconds) == pytest.approx(5, abs=0.05)
    longer_picture = sample(write_clip(tmp_path / "b.mp4", Video(FRAMES), Audio(tone(1))), sampling())
    assert len(longer_picture.frames) == 6
    assert float(longer_picture.audio_seconds) == pytest.approx(1, abs=0.05)
    assert longer_sound.warnings == longer_picture.warnings == ()


def test_a_turned_picture_has_its_size_turned(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video([grey(k, 120, 60) for k in range(25)], matrix=CLOCKWISE))
    assert sample(path, sampling(max_pixels=400_000, min_pixels=1)).frames.shape == (2, 56, 112, 3)


def test_a_clip_of_one_frame(tmp_path):
    clip = sample(write_clip(tmp_path / "a.mp4", Video(FRAMES[:1])), sampling())
    assert clip.frame_times == (0, Fraction(1, 2))


def test_no_sound_is_a_warning(tmp_path):
    clip = sample(write_clip(tmp_path / "a.mp4", Video(FRAMES)))
    assert clip.waveform.shape == (0,)
    assert clip.waveform.dtype == np.float32
    assert clip.warnings == ("There is no audio stream.",)


def test_no_picture_is_a_warning(tmp_path):
    clip = sample(write_clip(tmp_path / "a.mp3", audio=Audio(tone(2), codec="libmp3lame")))
    assert clip.frames.shape == (0, 0, 0, 3)
    assert clip.frame_times == clip.grid_times == ()
    assert float(clip.audio_seconds) == pytest.approx(2, abs=0.05)
    assert clip.warnings == ("There is no video stream.",)


def test_what_is_switched_off_is_left_out_without_a_word(talk):
    assert len(sample(talk, sampling(audio=False)).waveform) == 0
    assert len(sample(talk, sampling(video=False)).frames) == 0
    assert sample(talk, sampling(audio=False)).warnings == sample(talk, sampling(video=False)).warnings == ()


def test_switching_off_the_only_stream_leaves_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Video(FRAMES))
    with pytest.raises(MediaError, match="no audio stream"):
        sample(path, sampling(video=False))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fps": 0}, "frame rate"),
        ({"max_frames": 0}, "frame"),
        ({"start": -1}, "start"),
        ({"start": 2, "end": 2}, "end"),
        ({"end": "soon"}, "end"),
        ({"min_pixels": 10, "max_pixels": 5}, "[Pp]ixel"),
        ({"video": False, "audio": False}, "switched off"),
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused(options, word):
    with pytest.raises(UsageError, match=word):
        ClipOptions(**options)


@pytest.mark.parametrize(
    ("given", "pixels"),
    [
        ({}, (100, 200)),
        ({"min_pixels": 150}, (150, 200)),
        ({"min_pixels": 300}, (300, 300)),
        ({"max_pixels": 150}, (100, 150)),
        ({"max_pixels": 50}, (50, 50)),
        ({"max_pixels": 5000}, (100, 5000)),
        ({"min_pixels": 1, "max_pixels": 300}, (1, 300)),
    ],
)
def test_the_models_pixel_bounds_hold_where_none_are_given(given, pixels):
    within = ClipOptions(**given).within((100, 200))
    assert (within.min_pixels, within.max_pixels) == within.pixels((7, 8)) == pixels


def test_progress_rises_to_one(talk):
    seen = []
    sample(talk, sampling(), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_gives_what_it_holds_or_a_media_error(tmp_path, name, share):
    video = Video([grey(k) for k in range(250)], codec="mpeg4", tick=Fraction(1, 25), options={"bf": "0"})
    whole = write_clip(tmp_path / f"whole-{name}", video, Audio(tone(10), codec="libmp3lame"), movflags="faststart")
    path = tmp_path / name
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    clip = sample_or_none(path)
    if clip is None:
        assert share < 0.1  # not even the headers
        return
    assert 0 < len(clip.frames) <= 20 * share + 3
    if name == "a.mp4":
        assert any("although the file says" in warning for warning in clip.warnings)


def sample_or_none(path):
    try:
        return sample(path, sampling())
    except MediaError:
        return None


def test_a_damaged_sound_track_does_not_stop_the_picture(tmp_path):
    path = spoil(write_clip(tmp_path / "a.mkv", Video(FRAMES), Audio(tone(3), codec="flac")), "audio")
    clip = sample(path, sampling())
    assert len(clip.frames) == 6
    assert len(clip.waveform) == 0
    assert any("audio packets left out" in warning for warning in clip.warnings)


def test_a_damaged_picture_does_not_stop_the_sound(tmp_path):
    path = spoil(write_clip(tmp_path / "a.mkv", Video(FRAMES), Audio(tone(3), codec="flac")), "video")
    clip = sample(path, sampling())
    assert len(clip.frames) == 0
    assert float(clip.audio_seconds) == pytest.approx(3, abs=0.05)
    assert any("video" in warning for warning in clip.warnings)


def test_a_picture_that_is_all_damaged_is_an_error_where_there_is_no_sound(tmp_path):
    path = spoil(write_clip(tmp_path / "a.mkv", Video(FRAMES)), "video")
    with pytest.raises(MediaError, match=r"a\.mkv"):
        sample(path, sampling())


@pytest.mark.parametrize(
    ("name", "frames", "seconds"),
    [
        ("rabbit320.mp4", 16, 7.8),
        ("bbb_30s.webm", 62, 30.02),
        ("cockatoo.mp4", 28, 14),
        ("chaplin.mp4", 20, 9.64),
        ("no_duration.webm", 10, 4.94),
        ("bikes.mp4", 20, 10),
        ("viper.mp3", 0, 41.0),
        ("realshort.mp4", 4, 1.2),
    ],
)
def test_real_clips(name, frames, seconds):
    clip = sample(real_clip(name), sampling())
    assert len(clip.frames) == len(clip.frame_times) == frames
    assert float(clip.seconds) == pytest.approx(seconds, abs=0.05)
    assert len(clip.warnings) == (clip.info.video is None) + (clip.info.audio is None)
    if clip.info.audio:
        assert float(clip.audio_seconds) == pytest.approx(seconds, abs=0.15)


def test_arrays_make_a_clip():
    frames = np.random.default_rng(0).integers(0, 256, (3, 280, 392, 3), np.uint8)
    clip = Clip.from_arrays(frames, fps=1, waveform=tone(4, rate=8000), sample_rate=8000)
    assert np.array_equal(clip.frames[:3], frames)
    assert np.array_equal(clip.frames[3], frames[2])
    assert clip.frame_times == (0, 1, 2, 3)
    assert clip.waveform.shape == (64_000,)
    assert clip.end == clip.info.duration == 4


def test_arrays_keep_their_own_times_and_get_the_models_size():
    clip = Clip.from_arrays(np.zeros((2, 100, 200, 3), np.uint8), [0.2, 5])
    assert clip.frame_times == (Fraction(1, 5), 5)
    assert clip.frames.shape == (2, 224, 448, 3)
    assert len(clip.waveform) == 0


def test_a_waveform_alone_makes_a_clip():
    clip = Clip.from_arrays(waveform=np.zeros((2, 16_000), np.int16))
    assert clip.frame_times == ()
    assert clip.seconds == clip.audio_seconds == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"frames": np.zeros((0, 28, 28, 3), np.uint8)},
        {"frames": np.zeros((2, 280, 280, 3), np.float32)},
        {"frames": np.zeros((2, 3, 280, 280), np.uint8)},
        {"frames": np.zeros((2, 280, 280, 3), np.uint8), "frame_times": [0]},
        {"frames": np.zeros((2, 280, 280, 3), np.uint8), "frame_times": [1, 1]},
        {"frames": np.zeros((2, 280, 280, 3), np.uint8), "frame_times": [-1, 1]},
        {"frames": np.zeros((2, 280, 280, 3), np.uint8), "fps": 0},
        {"waveform": np.zeros(10, np.float32), "frame_times": [0]},
    ],
)
def test_arrays_that_make_no_clip_are_refused(arguments):
    with pytest.raises(UsageError):
        Clip.from_arrays(**arguments)
