"""Media that is unusual but sound: it is taken for what it is."""

from fractions import Fraction

import numpy as np
import pytest

from omniqa.errors import MediaError, UsageError
from omniqa.media.access import Access
from omniqa.media.clip import ClipOptions, sample
from omniqa.media.probe import probe
from tests.media import cases
from tests.media.cases import FRAMES
from tests.media.clips import Video, index_of, write_clip

SMALL = {"min_pixels": 784, "max_pixels": 16 * 784}


def sampled(path, **options):
    return sample(path, ClipOptions(**SMALL | options))


def pitch(waveform):
    """The loudest frequency, in Hz."""
    return np.argmax(np.abs(np.fft.rfft(waveform))) * 16_000 / len(waveform)


def test_a_picture_of_one_pixel_is_enlarged(tmp_path):
    clip = sample(cases.TAKEN["1x1"](tmp_path / "a"))
    assert clip.frames.shape[1] == clip.frames.shape[2] >= 280


def test_an_8k_frame_is_shrunk(tmp_path):
    clip = sampled(cases.TAKEN["8K"](tmp_path / "a"))
    assert (clip.info.video.width, clip.info.video.height) == (7680, 4320)
    assert clip.frames.shape == (2, 84, 140, 3)
    assert np.abs(clip.frames.astype(int) - 99).max() <= 2


@pytest.mark.parametrize(("rate", "count"), [(1, 4), (240, 240)])
def test_any_frame_rate_shows_the_frame_of_each_moment(tmp_path, rate, count):
    path = write_clip(tmp_path / "a.mp4", Video([FRAMES[k % 40] for k in range(count)], rate=rate))
    clip = sampled(path, fps=10)
    assert clip.info.video.frame_rate == rate
    assert float(clip.seconds) == pytest.approx(count / rate, abs=0.01)
    shown = [int(time * rate) % 40 for time in clip.frame_times]
    assert [index_of(frame) for frame in clip.frames] == shown


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_interlaced_frames_come_whole(tmp_path, codec):
    options = {"x264-params": "tff=1"} if codec == "libx264" else {"flags": "+ilme+ildct", "b": "4M"}
    path = write_clip(tmp_path / "a.mkv", Video(FRAMES, codec=codec, tick=Fraction(1, 25), options=options))
    assert [index_of(frame) for frame in sampled(path).frames] == [0, 12, 25, 37]


@pytest.mark.parametrize("name", ["10 bits", "alpha", "GIF"])
def test_other_kinds_of_pixels_become_rgb(tmp_path, name):
    clip = sampled(cases.TAKEN[name](tmp_path / "a"), fps=5)
    assert [index_of(frame) for frame in clip.frames[:5]] == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_any_number_of_channels_and_rate_become_16_khz_mono(tmp_path, channels, rate):
    clip = sampled(cases.sound(tmp_path / "a", ".wav", rate, channels))
    assert (clip.info.audio.channels, clip.info.audio.sample_rate) == (channels, rate)
    assert float(clip.audio_seconds) == pytest.approx(0.5, abs=0.001)
    # Each channel's noise has 0.16; mixed by BS.775, 7.1's has the square root of 3 times that.
    assert 0.005 < clip.waveform.std() < 0.28


def test_a_track_is_chosen_by_its_number(tmp_path):
    path = cases.tracks(tmp_path / "a")
    for track, hertz in ((None, 300), (1, 300), (2, 500), (3, 900)):
        clip = sampled(path, audio_track=track)
        assert pitch(clip.waveform) == pytest.approx(hertz, abs=3)
        assert len(clip.frames) == 2


def test_a_track_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path):
    with pytest.raises(MediaError) as caught:
        probe(cases.tracks(tmp_path / "a"), Access(audio_track=4))
    message = str(caught.value)
    assert (
        "no audio track 4. It has 1 (pcm_s16le, 1 ch, 16000 Hz, eng); 2 (pcm_s16le, 1 ch, 16000 Hz, deu); 3 ("
        in message
    )
    assert message.isprintable(), "a title may not reach the terminal's controls"


def test_tracks_are_counted_from_one():
    with pytest.raises(UsageError, match="counted from 1"):
        ClipOptions(audio_track=0)


def test_a_track_of_a_silent_film_is_a_warning(tmp_path):
    clip = sampled(write_clip(tmp_path / "a.mp4", Video(FRAMES)), audio_track=2)
    assert clip.warnings == ("There is no audio stream.",)


def test_cover_art_with_sound_is_sound_alone(tmp_path):
    clip = sampled(cases.cover_art(tmp_path / "a"))
    assert len(clip.frames) == 0
    assert float(clip.audio_seconds) == pytest.approx(1, abs=0.05)
    assert clip.warnings == ("There is no video stream.",)


def test_the_end_of_eight_hours_is_reached_without_the_hours_before(tmp_path):
    path = cases.eight_hours(tmp_path / "a")
    clip = sampled(path, start=8 * 3600 - 90)
    assert float(clip.info.duration) == pytest.approx(8 * 3600, abs=31)
    assert float(clip.audio_seconds) == pytest.approx(90, abs=1)
    assert not clip.waveform.any()
    picture = sampled(path, audio=False, max_frames=16)
    assert len(picture.frames) == 16


def test_a_name_with_a_pattern_is_one_picture(tmp_path):
    from PIL import Image

    for name, level in (("1.png", 10), ("2.png", 20), ("%d.png", 30)):
        Image.fromarray(FRAMES[level]).save(tmp_path / name)
    assert index_of(sampled(tmp_path / "%d.png").frames[0]) == 30
