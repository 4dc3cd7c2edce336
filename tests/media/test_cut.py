"""Spans are cut out of files, copied where keyframes allow it; what is seen and heard is the same."""

import os
import shutil
from contextlib import closing
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from omniqa.errors import MediaError, OmniqaError, UsageError
from omniqa.media import cut_copy
from omniqa.media.audio import read_audio
from omniqa.media.container import Damage, timed_frames
from omniqa.media.cut import cut
from omniqa.media.probe import probe
from omniqa.media.video import read_frames
from tests.conftest import ROOT
from tests.media.clips import CLOCKWISE, Audio, Video, grey, index_of, real_clip, spoil, write_clip

CLOSED = {"g": "25", "keyint_min": "25", "sc_threshold": "0"}
LONG = {"g": "250", "keyint_min": "250", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}


def sweep(seconds, rate=44100):
    """A tone that rises, so that every moment sounds different."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 * t + 200 * t**2))).astype(np.float32)


def clip(path, seconds=4.0, sound=True, **made):
    frames = [grey(k) for k in range(round(25 * seconds))]
    return write_clip(path, Video(frames, **made), Audio(sweep(seconds)) if sound else None)


def payloads(path, kind):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def is_copy(path, source, kind="video"):
    return set(payloads(path, kind)) <= set(payloads(source, kind))


def seen(path, times):
    size = (48, 64)
    return [(time, index_of(frame)) for time, frame in read_frames(probe(path), times, size)]


def assert_same_picture(source, path, start, end, step=0.04):
    """At moments off the frames' edges, the cut shows what the file shows."""
    inner = np.arange(0.013, end - start - 0.02, step)
    times = [Fraction(time).limit_denominator(1000) for time in inner]
    expected = seen(source, [Fraction(start).limit_denominator(1000) + time for time in times])
    assert [index for _, index in seen(path, times)] == [index for _, index in expected]
    assert len(expected) == len(times)


def lag_s(source, path, start, end):
    """Seconds by which the cut's sound is later than the file's, and how much of it is missing at its end."""
    theirs = read_audio(probe(source), Fraction(start), Fraction(end))
    mine = read_audio(probe(path), Fraction(0), Fraction(end) - Fraction(start))
    n = min(len(theirs), len(mine))
    spectrum = np.fft.rfft(mine[:n], 2 * n) * np.conj(np.fft.rfft(theirs[:n], 2 * n))
    at = int(np.argmax(np.fft.irfft(spectrum)))
    return (at if at < n else at - 2 * n) / 16000, (len(theirs) - len(mine)) / 16000


def assert_same_sound(source, path, start, end, lag=0.004):
    """lag: of sound alone, half a packet."""
    late, missing = lag_s(source, path, start, end)
    assert abs(late) < lag
    assert missing < 0.06 + lag


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_span_that_keyframes_bound_is_copied(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("omniqa.media.cut.encode_span", None)
    source = clip(tmp_path / f"clip{suffix}", options=CLOSED | {"bf": "2", "b_strategy": "0"})
    (path,) = cut(source, [(1.0, 3.0)], tmp_path / "cuts")
    assert suffix != ".mp4" or is_copy(path, source)  # others are framed anew in MP4
    with closing(timed_frames(path, "video", Fraction(0), Damage())) as frames:
        assert [index_of(one.frame.to_ndarray(format="rgb24")) for one in frames] == [k % 40 for k in range(25, 75)]
    # If neither frame nor packet begins with the span, the cut begins with the first that comes.
    assert_same_sound(source, path, 1, 3, lag=0.004 if suffix == ".mp4" else 0.03)
    assert float(probe(path).duration) == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("span", [(0.0, 1.48), (0.52, 2.0), (2.0, 4.0)])
@pytest.mark.parametrize(
    "made", [{"options": LONG}, {"options": {"g": "25", "bf": "3", "flags": "-cgop", "x264-params": "open-gop=1"}}]
)
def test_a_span_that_begins_or_ends_between_keyframes_is_encoded_again(tmp_path, span, made):
    source = clip(tmp_path / "clip.mp4", **made)
    (path,) = cut(source, [span], tmp_path / "cuts")
    assert_same_picture(source, path, *span)
    assert_same_sound(source, path, *span)
    assert float(probe(path).duration) == pytest.approx(span[1] - span[0], abs=0.05)


def test_frames_of_varying_length_are_shown_as_long_as_before(tmp_path):
    times = [0, 0.04, 0.1, 0.5, 1.7, 1.74, 2.9, 2.95, 3.6]
    source = write_clip(tmp_path / "clip.mp4", Video([grey(k) for k in range(len(times))], times=times))
    for span in [(0.3, 2.0), (1.0, 1.5), (2.0, 3.2)]:
        (path,) = cut(source, [span], tmp_path / "cuts")
        assert_same_picture(source, path, *span)
        assert float(probe(path).video.end) == pytest.approx(span[1] - span[0], abs=0.01)


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [
        ("a.m4a", "aac", ".m4a"),
        ("a.mp3", "libmp3lame", ".mp3"),
        ("a.flac", "flac", ".flac"),
        ("a.wav", "pcm_s16le", ".wav"),
        ("a.opus", "libopus", ".ogg"),
        ("a.mka", "ac3", ".mka"),
    ],
)
@pytest.mark.parametrize("span", [(0.0, 1.0), (6.0, 8.0), (8.5, 10.0)])
def test_sound_alone_is_cut_in_its_own_form(tmp_path, name, codec, suffix, span):
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg has no {codec} here")
    rate = 48000 if codec == "libopus" else 44100
    source = write_clip(tmp_path / name, audio=Audio(sweep(10.0, rate), rate, codec=codec))
    (path,) = cut(source, [span], tmp_path / "cuts")
    assert path.suffix == suffix
    assert_same_sound(source, path, *span, lag=0.06 if codec == "flac" else 0.03)
    assert probe(path).video is None


def test_a_silent_picture_and_sound_that_ends_early_are_cut(tmp_path):
    silent = clip(tmp_path / "silent.mp4", sound=False, options=LONG)
    (path,) = cut(silent, [(1.0, 2.0)], tmp_path / "cuts")
    assert_same_picture(silent, path, 1, 2)
    assert probe(path).audio is None
    short = write_clip(tmp_path / "short.mp4", Video([grey(k) for k in range(75)]), Audio(sweep(1.5)))
    first, second = cut(short, [(1.0, 2.0), (2.0, 3.0)], tmp_path / "cuts")
    assert float(probe(first).audio.end) == pytest.approx(0.5, abs=0.06)
    assert probe(second).audio is None


@pytest.mark.parametrize("options", [CLOSED, LONG])
def test_a_turned_picture_stays_upright(tmp_path, options):
    frame = grey(3)
    frame[:10, :10] = 255  # in one corner
    source = write_clip(tmp_path / "clip.mp4", Video([frame] * 75, matrix=CLOCKWISE, options=options))
    (path,) = cut(source, [(1.0, 2.0)], tmp_path / "cuts")
    (_, before), (_, after) = (next(read_frames(probe(one), [Fraction(1, 2)], (64, 48))) for one in (source, path))
    assert np.abs(before.astype(int) - after).mean() < 3
    assert (probe(path).video.width, probe(path).video.height) == (48, 64)


def test_a_picture_too_large_to_encode_is_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("omniqa.media.cut_encode.LARGEST_PICTURE", 64 * 48 // 4)
    source = clip(tmp_path / "clip.mp4", seconds=1, sound=False, options=LONG)
    (path,) = cut(source, [(0.52, 1.0)], tmp_path / "cuts")
    assert (probe(path).video.width, probe(path).video.height) == (32, 24)
    assert_same_picture(source, path, 0.52, 1.0)


@pytest.mark.parametrize("height", [48, 720])
def test_colours_stay_what_they_are(tmp_path, height):
    picture = np.full((height, 64, 3), (220, 60, 30), np.uint8)
    source = write_clip(tmp_path / "clip.mp4", Video([picture] * 25, options=LONG))
    (path,) = cut(source, [(0.52, 1.0)], tmp_path / "cuts")
    (_, before), (_, after) = (next(read_frames(probe(one), [Fraction(1, 4)], (48, 64))) for one in (source, path))
    assert np.abs(before.astype(int) - after).max() <= 4


def test_a_recording_whose_clock_starts_late_is_cut_on_the_files_clock(tmp_path):
    source = clip(tmp_path / "clip.mkv", start=7.0, options=LONG, sound=False)
    (path,) = cut(source, [(1.0, 2.0)], tmp_path / "cuts")
    assert_same_picture(source, path, 1, 2)


def test_a_copy_that_does_not_decode_to_the_same_frames_is_encoded_instead(tmp_path, monkeypatch):
    source = clip(tmp_path / "clip.mp4", options=CLOSED)
    write = cut_copy._write

    def damaged(tracks, file):
        suffix = write(tracks, file)
        spoil(file, "video", slice(3, 9))
        return suffix

    monkeypatch.setattr(cut_copy, "_write", damaged)
    (path,) = cut(source, [(1.0, 2.0)], tmp_path / "cuts")
    assert not is_copy(path, source)
    assert_same_picture(source, path, 1, 2)


def test_damage_in_a_span_is_left_out_and_a_span_of_nothing_else_is_an_error(tmp_path):
    source = spoil(clip(tmp_path / "clip.mp4", sound=False, options={**CLOSED, "bf": "0"}), "video", slice(30, 60))
    (path,) = cut(source, [(0.0, 2.0)], tmp_path / "cuts")
    times = [Fraction(4 * k + 1, 100) for k in range(49)]
    before, after = seen(source, times), seen(path, times)
    assert [time for time, _ in after] == [time for time, _ in before] != []
    assert all(abs(a - b) <= 1 for (_, a), (_, b) in zip(after, before, strict=True))
    gone = spoil(clip(tmp_path / "gone.mp4", sound=False, options=LONG), "video", slice(1, None))
    with pytest.raises(MediaError, match="can be decoded"):
        cut(gone, [(2.0, 3.0)], tmp_path / "cuts")
    assert not list((tmp_path / "cuts").glob(".new-*"))


@pytest.mark.parametrize("name", ["hello.mp4", "river.mp4"])
def test_sample_media_are_cut(tmp_path, name):
    source = ROOT / "sample_media" / name
    (path,) = cut(source, [(1.0, 2.5)], tmp_path)
    times = [Fraction(k, 10) for k in range(1, 15, 4)]
    before = [frame for _, frame in read_frames(probe(source), [time + 1 for time in times], (112, 112))]
    after = [frame for _, frame in read_frames(probe(path), times, (112, 112))]
    assert np.abs(np.stack(before).astype(int) - np.stack(after)).mean() < 4
    assert_same_sound(source, path, 1.0, 2.5)


@pytest.mark.parametrize("name", ["viper.mp3", "no_duration.webm"])
def test_real_clips_are_cut(tmp_path, name):
    source = real_clip(name)
    for span in [(0.0, 1.0), (2.0, 4.0)]:
        (path,) = cut(source, [span], tmp_path)
        assert_same_sound(source, path, *span, lag=0.03)


# Names and files


def test_every_span_of_every_file_has_a_name_of_its_own_and_the_file_is_not_touched(tmp_path):
    first = clip(tmp_path / "clip.mp4", seconds=2, options=LONG)
    (tmp_path / "other").mkdir()
    second = clip(tmp_path / "other/clip.mp4", seconds=2, options=CLOSED)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (first, second)]
    spans = [(0.0, 1.0), (0.5, 1.0), (1.0, 2.0)]
    paths = [path for source in (first, second) for path in cut(source, spans, tmp_path / "cuts")]
    assert len(set(paths)) == 6
    assert cut(first, spans, tmp_path / "cuts") == paths[:3]
    assert sorted((tmp_path / "cuts").iterdir()) == sorted(paths)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in (first, second)] == before


@pytest.mark.parametrize(
    "name", ["-rf.mp4", "..mp4", "a b;$(x)\n`y`.mp4", "é" * 120 + ".mp4", "%d-%s.mp4", "\udcff.mp4", "CON:?*|.mp4"]
)
def test_hostile_names_give_plain_ones(tmp_path, name):
    source = tmp_path / name
    try:
        shutil.copy(clip(tmp_path / "plain.mp4", seconds=1, sound=False), source)
    except (OSError, UnicodeError):
        pytest.skip("no file can have such a name here")
    (path,) = cut(source, [(0.0, 0.5)], tmp_path / "cuts")
    assert path.parent == tmp_path / "cuts"
    assert not path.name.startswith((".", "-"))
    assert not set(path.name) & set(" ;$()`\n%:?*|/\\")
    assert len(os.fsencode(path.name)) < 150


def test_what_came_from_stdin_is_named_so(tmp_path):
    source = clip(tmp_path / "tmpabc.mp4", seconds=1, sound=False)
    (path,) = cut(source, [(0.0, 0.5)], tmp_path / "cuts", name="-")
    assert path.name.startswith("stdin-")


def test_the_file_itself_is_never_replaced(tmp_path):
    source = clip(tmp_path / "clip.mp4", seconds=2, sound=False, options=LONG)
    (path,) = cut(source, [(0.0, 1.0)], tmp_path)
    path.unlink()
    os.link(source, path)  # as if the file itself had the name
    before = source.read_bytes()
    with pytest.raises(UsageError, match="is the file itself"):
        cut(source, [(0.0, 1.0)], tmp_path)
    assert source.read_bytes() == before


def test_spans_are_clipped_to_the_file_and_one_outside_is_an_error(tmp_path):
    source = clip(tmp_path / "clip.mp4", seconds=2, sound=False)
    (path,) = cut(source, [(-1.0, 99.0)], tmp_path / "cuts")
    assert float(probe(path).duration) == pytest.approx(2, abs=0.01)
    for span in [(2.5, 3.0), (1.0, 1.0), (1.5, 1.0)]:
        with pytest.raises(MediaError, match="there is nothing"):
            cut(source, [span], tmp_path / "cuts")


def test_a_folder_that_can_not_be_is_a_usage_error(tmp_path):
    source = clip(tmp_path / "clip.mp4", seconds=1, sound=False)
    with pytest.raises(UsageError, match="can't be made"):
        cut(source, [(0.0, 0.5)], source)
    (path,) = cut(source, [(0.0, 0.5)], tmp_path / "cuts")
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="can't be written"):
        cut(source, [(0.0, 0.5)], tmp_path / "cuts")
    assert [one.name for one in (tmp_path / "cuts").iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"no media at all", b"\0" * 4096, b"#EXTM3U\n/etc/passwd\n"])
def test_what_is_no_media_is_one_of_the_known_errors(tmp_path, content):
    source = tmp_path / "clip.mp4"
    source.write_bytes(content)
    with pytest.raises(OmniqaError) as caught:
        cut(source, [(0.0, 1.0)], tmp_path / "cuts")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_container_gives_a_cut_or_a_known_error_and_leaves_nothing_else(tmp_path, seed):
    source = clip(tmp_path / "clip.mp4", seconds=2, options=LONG if seed % 2 else CLOSED)
    rng, data = np.random.default_rng(seed), bytearray(source.read_bytes())
    for at in rng.integers(0, len(data), 40):
        data[at] = rng.integers(256)
    source.write_bytes(data)
    try:
        paths = cut(source, [(0.5, 1.5), (1.0, 2.0)], tmp_path / "cuts")
    except MediaError:
        paths = []
    left = sorted((tmp_path / "cuts").iterdir()) if (tmp_path / "cuts").exists() else []
    assert set(paths) <= set(left)
    assert not [one for one in left if one.name.startswith(".new-")]


def test_times_in_a_cut_rise(tmp_path):
    source = clip(tmp_path / "clip.mp4", options=LONG)
    (path,) = cut(source, [(0.3, 2.1)], tmp_path / "cuts")
    with closing(timed_frames(path, "video", Fraction(0), Damage())) as frames:
        times = [(one.start, one.end) for one in frames]
    assert times[0][0] == 0
    assert all(before[0] < after[0] for before, after in pairwise(times))
