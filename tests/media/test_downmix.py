"""Many channels become one as ITU-R BS.775 says, and two that cancel are not lost."""

import av
import numpy as np
import pytest

from omniqa.media.clip import ClipOptions, sample
from omniqa.media.downmix import CANCELLED_NOTE

RATE = 48_000
SECONDS = 3
TIME = np.arange(SECONDS * RATE) / RATE


def sine(hertz, height=0.5):
    return (height * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)


def sound(path, channels, layout):
    """A WAV of 32-bit floats; channels in the layout's order."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=RATE, layout=layout)
        samples = np.stack(channels, axis=1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def heard(path):
    return sample(path, ClipOptions(video=False))


def level(waveform, hertz):
    """Height of a sine in the middle second."""
    middle = waveform[16_000:32_000]
    return 2 * abs(np.dot(middle, np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / 16_000))) / len(middle)


SURROUND = ["2.1", "3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1"]
GAINS = {"FL": 0.5**0.5, "FR": 0.5**0.5, "FC": 1, "LFE": 0} | dict.fromkeys(["BL", "BR", "SL", "SR", "BC"], 0.5)


@pytest.mark.parametrize("layout", SURROUND)
def test_each_channel_counts_as_bs775_says(tmp_path, layout):
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    pitches = [200 * (k + 1) for k in range(len(names))]
    clip = heard(sound(tmp_path / "a.wav", [sine(hertz, 0.1) for hertz in pitches], layout))
    assert [level(clip.waveform, hertz) for hertz in pitches] == pytest.approx(
        [0.1 * GAINS[name] for name in names], abs=0.002
    )


def test_full_scale_on_all_channels_does_not_clip(tmp_path):
    path = sound(tmp_path / "a.wav", [sine(300, 1.0)] * 6, "5.1")
    waveform = heard(path).waveform
    assert np.abs(waveform).max() <= 1
    assert level(waveform, 300) == pytest.approx(1, abs=0.01)
    assert level(waveform, 900) < 0.001


def test_stereo_is_the_mean(tmp_path):
    clip = heard(sound(tmp_path / "a.wav", [sine(300), sine(700, 0.3)], "stereo"))
    assert (level(clip.waveform, 300), level(clip.waveform, 700)) == pytest.approx((0.25, 0.15), abs=0.002)
    assert CANCELLED_NOTE not in clip.warnings


@pytest.mark.parametrize("right", [-1.0, -0.8, -1.2])
def test_of_channels_that_cancel_one_is_taken(tmp_path, right):
    clip = heard(sound(tmp_path / "a.wav", [sine(300), right * sine(300)], "stereo"))
    assert level(clip.waveform, 300) == pytest.approx(0.5 * max(1, -right), abs=0.005)
    assert CANCELLED_NOTE in clip.warnings


def test_channels_that_cancel_for_a_part_of_the_time_lose_nothing(tmp_path):
    turned = np.where(TIME < 2, -1, 1).astype(np.float32)
    clip = heard(sound(tmp_path / "a.wav", [sine(300), turned * sine(300)], "stereo"))
    assert level(clip.waveform, 300) == pytest.approx(0.5, abs=0.005)


def test_stereo_of_which_one_second_cancels_stays_the_mean(tmp_path):
    turned = np.where(TIME < 1, -1, 1).astype(np.float32)
    clip = heard(sound(tmp_path / "a.wav", [sine(300), 0.6 * turned * sine(300)], "stereo"))
    assert level(clip.waveform, 300) == pytest.approx(0.4, abs=0.005)
    assert CANCELLED_NOTE not in clip.warnings


@pytest.mark.parametrize("other", [np.zeros(len(TIME), np.float32), sine(301, 0.4), sine(300, 1e-4)])
def test_channels_that_differ_do_not_cancel(tmp_path, other):
    clip = heard(sound(tmp_path / "a.wav", [sine(300), other], "stereo"))
    assert CANCELLED_NOTE not in clip.warnings
    assert level(clip.waveform, 300) == pytest.approx(0.25, abs=0.25)


def test_the_low_frequency_channel_beside_one_other_is_left_out(tmp_path):
    clip = heard(sound(tmp_path / "a.wav", [sine(300), sine(60)], "FC+LFE"))
    assert level(clip.waveform, 300) == pytest.approx(0.5, abs=0.005)
    assert level(clip.waveform, 60) < 0.005
