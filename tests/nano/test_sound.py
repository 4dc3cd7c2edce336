"""Sounds are heard where the script says, and each kind sounds like itself."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from omniqa.nano.scenes import SOUNDS, Script, Sound, draw
from omniqa.nano.sound import RATE, waveform
from omniqa.nano.words import PEAK, TAKES, WORDS, compress, expand, spoken, spoken_seconds

SCRIPTS = [draw(seed, 8, 4) for seed in range(30)]
QUIET = 0.004  # more than any room's noise


def only(kind, pitch=1000.0, start=1.0, end=2.0, word="", take=0):
    return waveform(Script(0, 4.0, (), (Sound(kind, start, end, None, 0.3, pitch, word, take),), 0.001))


def of(samples, start, end):
    return samples[round(start * RATE) : round(end * RATE)]


def loud(samples):
    return float(np.sqrt(np.mean(samples**2)))


def peak_hertz(samples):
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples)


def flatness(samples):
    """1 for white noise, near 0 for a tone."""
    power = np.abs(np.fft.rfft(samples)) ** 2 + 1e-12
    return float(np.exp(np.log(power).mean()) / power.mean())


def test_the_same_script_gives_the_same_sound():
    np.testing.assert_array_equal(waveform(draw(3)), waveform(draw(3)))
    assert (waveform(draw(3)) != waveform(draw(4))).any()


def test_sound_is_as_long_as_the_clip():
    samples = waveform(draw(0, 16, 4))
    assert samples.shape == (16 * RATE,)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1


def test_sounds_are_heard_at_their_times_and_nothing_at_others():
    for script in SCRIPTS:
        samples = waveform(script)
        silent = np.ones(len(samples), bool)
        for sound in script.sounds:
            assert loud(of(samples, sound.start, sound.end)) > 3 * QUIET
            silent[round(sound.start * RATE) - 1 : round(sound.end * RATE) + 1] = False
        assert np.abs(samples[silent]).max() < 5 * QUIET
        assert loud(samples[silent]) < QUIET


def test_sounds_of_a_scene_lie_in_it_and_stray_ones_in_the_clip():
    scripts = [draw(seed, 8, 4) for seed in range(300)]
    crossing = 0
    for script in scripts:
        for sound in script.sounds:
            scene = script.scenes[sound.scene] if sound.scene is not None else None
            first, last = (scene.start, scene.end) if scene else (0.0, script.seconds)
            assert first <= sound.start < sound.end <= last
            crossing += scene is None and any(s.start < sound.start < s.end < sound.end for s in script.scenes)
    assert crossing > 10


def test_some_scenes_are_silent_and_some_sounds_overlap():
    scripts = [draw(seed, 8, 4) for seed in range(300)]
    silent = sum({s.scene for s in script.sounds if s.scene is not None} < set(range(4)) for script in scripts)
    overlapping = sum(any(b.start < a.end for a, b in pairwise(s.sounds)) for s in scripts)
    assert silent > 50
    assert overlapping > 50


@pytest.mark.parametrize("pitch", [120.0, 700.0, 1500.0])
def test_tones_have_their_pitch(pitch):
    assert abs(peak_hertz(of(only("beep", pitch), 1.1, 1.9)) - pitch) < 3
    assert abs(peak_hertz(of(only("hum", pitch), 1.1, 1.9)) - pitch) < 3


def test_a_chirp_rises():
    samples = only("chirp", 600.0)
    early, late = (peak_hertz(of(samples, start, start + 0.1)) for start in (1.0, 1.85))
    assert 600 < early < 900
    assert 2000 < late < 2400


def test_noise_is_flat_and_tones_are_not():
    assert flatness(of(only("noise"), 1.1, 1.9)) > 0.4
    assert flatness(of(only("beep"), 1.1, 1.9)) < 0.01


def test_clicks_are_counted():
    samples = only("clicks", pitch=8.0)
    steps = loud_steps(of(samples, 1, 2))
    assert np.count_nonzero(np.diff(steps.astype(int)) == 1) == 8


def loud_steps(samples):
    blocks = np.abs(samples).reshape(-1, 80).max(axis=1)
    return blocks > 0.1 * blocks.max()


def test_a_bell_dies_away():
    samples = only("bell")
    assert loud(of(samples, 1.0, 1.2)) > 4 * loud(of(samples, 1.7, 1.9))


def test_all_kinds_have_their_own_spectrum():
    pitches = {"hum": 150.0, "clicks": 9.0}
    made = {kind: only(kind, pitches.get(kind, 1100.0), word="tiger" if kind == "voice" else "") for kind in SOUNDS}
    for one, other in combinations(SOUNDS, 2):
        a, b = (spectrogram(of(made[kind], 1.0, 1.3)) for kind in (one, other))
        assert (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()) < 0.9, (one, other)


def spectrogram(samples):
    pieces = samples.reshape(-1, 400) * np.hanning(400)
    return np.abs(np.fft.rfft(pieces))


def test_the_bank_has_every_word_in_every_take():
    takes = [spoken(word, take) for word in WORDS for take in range(TAKES)]
    assert all(0.15 < len(samples) / RATE < 0.9 for samples in takes)
    assert all(abs(np.abs(samples).max() - PEAK) < 1e-6 for samples in takes)
    assert all(loud(samples) > 0.08 for samples in takes)
    assert len({samples.tobytes() for samples in takes}) == len(takes)


def test_a_word_is_heard_for_as_long_as_its_take():
    sound = next(s for script in SCRIPTS for s in script.sounds if s.kind == "voice")
    assert sound.end - sound.start == pytest.approx(spoken_seconds(sound.word, sound.take))


def test_one_byte_a_sample_is_enough():
    samples = np.linspace(-1, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(expand(compress(samples)), samples, atol=0.023)
    assert np.abs(expand(compress(samples / 100)) - samples / 100).max() < 0.0005
