from fractions import Fraction
from math import ceil

import av
import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniqa.errors import MediaError, UsageError
from omniqa.media.audio import SAMPLE_RATE, _placed, _Silence, read_audio, resample_array, stream_audio
from omniqa.media.clip import sample
from omniqa.media.container import Damage, Timed
from omniqa.media.downmix import Downmix
from tests.media.clips import Audio, Video, click, grey, real_clip, spoil, tone, write_clip

HOUR = Fraction(3600)
MS = SAMPLE_RATE // 1000
FRAMES = [grey(k) for k in range(75)]


def noise(seconds, rate, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def stored(path):
    """All samples of a file as they are stored: float32 (channels, n)."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_streamed_resampling_is_librosas_of_the_whole(tmp_path, rate):
    samples = noise(3.3, rate)
    path = write_clip(tmp_path / "a.wav", audio=Audio(samples, rate, codec="pcm_f32le"))
    ours = read_audio(path, Fraction(0), HOUR)
    theirs = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    assert ours.dtype == np.float32
    assert abs(len(ours) - len(theirs)) <= 1
    n = min(len(ours), len(theirs))
    assert np.abs(ours[:n] - theirs[:n]).max() <= 1e-4


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_every_sample_format_gives_the_same_sound(tmp_path, codec):
    samples = noise(1, 16000)
    path = write_clip(tmp_path / ("a.flac" if codec == "flac" else "a.wav"), audio=Audio(samples, 16000, codec=codec))
    ours = read_audio(path, Fraction(0), HOUR)
    assert ours.shape == (16000,)
    assert np.abs(ours - samples).max() <= (0.01 if codec == "pcm_u8" else 1e-4)


def test_channels_are_averaged(tmp_path):
    left, right = noise(1, 16000), noise(1, 16000, seed=1)
    path = write_clip(tmp_path / "a.wav", audio=Audio(np.stack([left, right]), 16000, codec="pcm_f32le"))
    assert np.allclose(read_audio(path, Fraction(0), HOUR), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "start"),
    [
        ("a.mp4", "aac", 0),
        ("a.mp4", "aac", 1.2),
        ("a.mkv", "flac", 1.2),
        ("a.mkv", "libopus", 0.5),
        ("a.ts", "aac", 1.2),
        ("a.mov", "pcm_s16le", 0.7),
        ("a.avi", "pcm_s16le", 0),
    ],
)
def test_a_click_stays_within_a_millisecond_of_its_moment(tmp_path, name, codec, start):
    rate = 48000
    video = Video(FRAMES, codec="mpeg4", tick=Fraction(1, 25), options={"bf": "0"})
    path = write_clip(tmp_path / name, video, Audio(click(2, 0.5, rate), rate, start, codec))
    ours = read_audio(path, Fraction(0), HOUR)
    assert np.argmax(ours) == pytest.approx((start + 0.5) * SAMPLE_RATE, abs=MS)
    assert np.abs(ours[: max(0, int((start - 0.01) * SAMPLE_RATE))]).max(initial=0) == 0


@settings(max_examples=25, deadline=None)
@given(st.fractions(0, 4, max_denominator=1000), st.fractions(Fraction(1, 1000), 4, max_denominator=1000))
def test_a_range_is_a_slice_of_the_whole(wav, start, length):
    path, samples = wav
    begin, count = ceil(start * SAMPLE_RATE), ceil(length * SAMPLE_RATE)
    ours = read_audio(path, start, start + length)
    wanted = samples[round(start * SAMPLE_RATE) :][:count]
    assert len(ours) == len(wanted), (begin, count)
    assert np.array_equal(ours, wanted)


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    samples = noise(3, SAMPLE_RATE)
    audio = Audio(samples, SAMPLE_RATE, codec="pcm_f32le")
    return write_clip(tmp_path_factory.mktemp("wav") / "a.wav", audio=audio), samples


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.aac", "aac"), ("a.mka", "libopus"), ("a.ts", "aac")],
)
def test_starting_far_in_gives_what_reading_from_the_start_gives(tmp_path, name, codec):
    samples = np.concatenate([click(1, 0.05 + k / 50, 48000) for k in range(40)])  # one a second, each at its own place
    path = write_clip(tmp_path / name, audio=Audio(samples, 48000, codec=codec))
    whole = read_audio(path, Fraction(0), HOUR)
    ours = read_audio(path, Fraction(30), HOUR)
    for k in range(9):
        here = slice(k * SAMPLE_RATE, (k + 1) * SAMPLE_RATE)
        assert np.argmax(ours[here]) == pytest.approx(np.argmax(whole[30 * SAMPLE_RATE :][here]), abs=MS)


def placed(frames, damage=None, picture=0):
    """Frames at 16 kHz on one line, beside so many seconds of picture."""
    silence = _Silence(16000, lambda enough: min(enough, Fraction(picture)))
    pieces = _placed(frames, 16000, (Fraction(0), 3 * HOUR), silence, damage or Damage(), Downmix())
    return np.concatenate(list(pieces))


def test_a_gap_is_filled_with_silence():
    first, second = noise(1, 16000), noise(1, 16000, seed=1)
    ours = placed([*timed(first, 0), *timed(second, Fraction(5, 2))])
    assert np.array_equal(ours, np.concatenate([first, np.zeros(24_000), second]))


@pytest.mark.parametrize(("gap", "picture", "filled"), [(10, 0, 10), (15, 0, 0), (15, 4, 15), (900, 899, 900)])
def test_a_gap_is_silence_as_far_as_sound_and_picture_go_beside_it(gap, picture, filled):
    first, second, damage = noise(1, 16000), noise(1, 16000, seed=1), Damage()
    ours = placed([*timed(first, 0), *timed(second, Fraction(1 + gap))], damage, picture)
    assert np.array_equal(ours, np.concatenate([first, np.zeros(filled * 16_000), second]))
    assert damage.gaps_closed == gap - filled


def test_many_gaps_are_silence_as_far_as_all_of_them_may_be():
    damage, pieces = Damage(), [timed(noise(1, 16000, seed=k), Fraction(8 * k)) for k in range(10)]
    ours = placed([frame for piece in pieces for frame in piece], damage)
    assert 10 * 16_000 < len(ours) <= (10 + 10 + 2 * 10) * 16_000
    assert len(ours) == (10 + 9 * 7 - damage.gaps_closed) * 16_000
    assert np.array_equal(ours[-16_000:], noise(1, 16000, seed=9)), "all of the sound is heard"


def test_beyond_an_hour_of_silence_the_sound_breaks_off():
    first, second, damage = noise(1, 16000), noise(1, 16000, seed=1), Damage()
    ours = placed([*timed(first, 0), *timed(second, Fraction(3700))], damage, picture=4000)
    assert np.array_equal(ours, first)
    assert "gaps of more than 3600 s" in damage.broken_off


def test_sound_that_begins_late_keeps_its_time_beside_a_picture_and_follows_at_once_without_one(tmp_path):
    pictures = Video([grey(k) for k in range(60)], rate=1, codec="mpeg4", tick=Fraction(1, 25), options={"bf": "0"})
    late = Audio(tone(1), start=40, codec="flac")
    clip = sample(write_clip(tmp_path / "a.mkv", pictures, late))
    assert float(clip.audio_seconds) == pytest.approx(41, abs=0.01)
    assert clip.warnings == ()
    few = Video(pictures.frames[:2], times=[0, 55], codec="mpeg4", tick=Fraction(1, 25), options={"bf": "0"})
    clip = sample(write_clip(tmp_path / "b.mkv", few, late))
    assert float(clip.audio_seconds) == pytest.approx(1, abs=0.01)
    assert "leave gaps with nothing in them; 40 s of these are left out" in clip.warnings[0]


def test_rounded_timestamps_are_no_gaps(tmp_path):
    """Matroska's milliseconds put frames of 1024 samples up to half a millisecond off."""
    samples = noise(5, 44100)
    path = write_clip(tmp_path / "a.mka", audio=Audio(samples, 44100, codec="pcm_f32le"))
    ours = read_audio(path, Fraction(0), HOUR)
    theirs = librosa.resample(samples, orig_sr=44100, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    assert np.abs(ours[:79000] - theirs[:79000]).max() <= 1e-4


def test_an_overlap_is_dropped():
    first, second = noise(1, 16000), noise(1, 16000, seed=1)
    ours = placed([*timed(first, 0), *timed(second, Fraction(1, 2))])
    assert np.array_equal(ours, np.concatenate([first, second[8000:]]))


def timed(samples, start):
    """Decoded frames of 1000 samples at 16 kHz from a moment on."""
    for first in range(0, len(samples), 1000):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1000].copy(), "flt", "mono")
        frame.sample_rate = 16000
        time = start + Fraction(first, 16000)
        yield Timed(time, time + Fraction(frame.samples, 16000), frame)


def test_nothing_is_added_after_the_end_and_nothing_before_a_start_that_is_out_of_range(tmp_path):
    path = write_clip(tmp_path / "a.mkv", Video(FRAMES), Audio(tone(1), start=2, codec="flac"))
    assert len(read_audio(path, Fraction(0), Fraction(1))) == 0
    assert len(read_audio(path, Fraction(0), HOUR)) == pytest.approx(3 * SAMPLE_RATE, abs=MS)
    assert len(read_audio(path, Fraction(7, 2), HOUR)) == 0


def test_a_rate_that_changes_on_the_way_keeps_its_times(tmp_path):
    parts = [write_clip(tmp_path / f"{r}.aac", audio=Audio(click(2, 1, r), r)) for r in (44100, 48000)]
    path = tmp_path / "both.aac"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    ours = read_audio(path, Fraction(0), HOUR)
    loudest = [np.argmax(ours[:32000]), 32000 + np.argmax(ours[32000:])]
    assert loudest[1] - loudest[0] == pytest.approx(2 * SAMPLE_RATE, abs=60 * MS)


def test_damaged_packets_are_left_out_counted_and_heard_as_silence(tmp_path):
    samples = noise(5, 16000)
    path = spoil(write_clip(tmp_path / "a.mka", audio=Audio(samples, 16000, codec="flac")), "audio", slice(10, 13))
    damage = Damage()
    ours = read_audio(path, Fraction(0), HOUR, damage)
    assert damage.packets == 3
    assert len(ours) == pytest.approx(len(samples), abs=MS)
    same = np.abs(ours[: len(samples)] - samples[: len(ours)]) < 1e-3
    assert same[:10_000].all()
    assert same[20_000:].mean() > 0.7


def test_sound_comes_in_small_pieces():
    blocks = stream_audio(real_clip("viper.mp3"), Fraction(0), HOUR)
    assert max(map(len, blocks)) <= SAMPLE_RATE


def test_a_silent_film_has_no_sound_to_read():
    with pytest.raises(MediaError, match="no audio stream"):
        read_audio(real_clip("bikes.mp4"), Fraction(0), HOUR)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1), (np.float64, 1), (np.int16, 32768), (np.int32, 2**31)])
def test_a_waveform_from_python_is_mixed_and_resampled(dtype, scale):
    left, right = noise(1, 44100), noise(1, 44100, seed=1)
    ours = resample_array((np.stack([left, right]).astype(np.float64) * scale).astype(dtype), 44100)
    theirs = librosa.resample((left + right) / 2, orig_sr=44100, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    assert ours.shape == (16000,)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize(("waveform", "rate"), [(np.zeros((1, 2, 3)), 16000), (np.zeros(5), 0)])
def test_a_waveform_that_makes_no_sense_is_refused(waveform, rate):
    with pytest.raises(UsageError, match="waveform"):
        resample_array(waveform, rate)
