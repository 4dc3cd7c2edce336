"""Files whose timestamps restart, leap, wrap or lie absurdly far away are read on one continuous clock."""

import re
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from omniqa.errors import MediaError
from omniqa.media import clock as clock_module
from omniqa.media import container as container_module
from omniqa.media.clip import ClipOptions, sample
from omniqa.media.clock import STEADY, ClockScan
from omniqa.media.probe import probe
from tests.media.clips import Audio, Video, tone, write_clip

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
TICK = Fraction(1, 90_000)
TURN = Fraction(2**33, 90_000)
SECONDS = 4
X264 = {"bf": "2", "g": "25", "preset": "ultrafast"}
CODECS = {
    ".ts": ("libx264", "aac", X264),
    ".mpg": ("mpeg2video", "mp2", {"bf": "2"}),
    ".flv": ("libx264", "aac", X264),
}
FORMATS = {".ts": "mpegts", ".mpg": "mpeg", ".flv": "flv"}


def part(path, colour, hertz, start=0.0, seen=SECONDS, heard=SECONDS):
    """A recording of one colour and one tone, whose clock begins at `start` seconds. Its bytes."""
    video_codec, audio_codec, options = CODECS[path.suffix]
    picture = np.full((64, 96, 3), colour, np.uint8)
    tick = Fraction(1, 25) if video_codec == "mpeg2video" else TICK
    video = Video([picture] * (25 * seen), start=start, codec=video_codec, tick=tick, options=options) if seen else None
    audio = Audio(tone(heard, hertz), start=start, codec=audio_codec) if heard else None
    return write_clip(path, video, audio, muxdelay="0").read_bytes()


def joined(path, *parts, **lengths):
    """Recordings joined byte by byte; each is a colour, a tone and where its clock begins."""
    pieces = [
        part(path.with_stem(f"part{k}"), colour, hertz, start, **lengths)
        for k, (colour, hertz, start) in enumerate(parts)
    ]
    if path.suffix == ".flv":  # a second file header would end the reading
        pieces[1:] = [piece[13:] for piece in pieces[1:]]
    path.write_bytes(b"".join(pieces))
    return path


def colours(clip):
    return "".join("rgb"[int(np.argmax(frame[9, 9]))] for frame in clip.frames)


def pitch(samples):
    """The strongest frequency, in hertz."""
    return np.argmax(np.abs(np.fft.rfft(samples))) * 16_000 / len(samples)


def seconds_of(clip, start, end):
    return clip.waveform[16_000 * start : 16_000 * end]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.ts", 0),
        ("a.ts", 2),
        ("a.ts", 24),
        ("a.ts", 7204),
        ("a.mpg", 0),
        ("a.mpg", 500),
        ("a.flv", 0),
        ("a.flv", 900),
    ],
)
def test_two_recordings_joined_byte_by_byte_follow_each_other(tmp_path, name, start):
    path = joined(tmp_path / name, (RED, 500, 0), (BLUE, 900, start))
    clip = sample(path)
    assert float(clip.info.duration) == pytest.approx(2 * SECONDS, abs=0.15)
    seen = colours(clip)
    assert seen == "r" * seen.count("r") + "b" * seen.count("b")
    assert abs(seen.count("r") - seen.count("b")) <= 1
    assert float(clip.audio_seconds) == pytest.approx(2 * SECONDS, abs=0.15)
    assert pitch(seconds_of(clip, 1, 3)) == pytest.approx(500, abs=2)
    assert pitch(seconds_of(clip, 5, 7)) == pytest.approx(900, abs=2)
    (jump,) = clip.info.clock.jumps
    assert float(jump.at) == pytest.approx(SECONDS, abs=0.1)
    assert float(jump.by) == pytest.approx(start - SECONDS, abs=0.6)
    assert sum("clock jumps once" in warning for warning in clip.warnings) == 1


def test_a_range_beyond_a_jump_is_taken_on_the_continuous_clock(tmp_path):
    path = joined(tmp_path / "a.ts", (RED, 500, 0), (BLUE, 900, 0), (GREEN, 700, 3000))
    clip = sample(path, ClipOptions(start=9, end=11))
    assert colours(clip) == "gggg"
    assert clip.frame_times[0] == 0
    assert pitch(clip.waveform) == pytest.approx(700, abs=2)
    assert pitch(sample(path, ClipOptions(start=5, end=7)).waveform) == pytest.approx(900, abs=2)
    across = sample(path, ClipOptions(start=2.5, end=6, fps=1))
    assert colours(across) == "rrbb"


def test_many_jumps_are_all_listed_in_order(tmp_path):
    starts = (50, 0, 3600, 10, 0)
    parts = [((RED, BLUE)[k % 2], 500 + 100 * k, start) for k, start in enumerate(starts)]
    clip = sample(joined(tmp_path / "a.ts", *parts), ClipOptions(fps=1, start=0.5))
    assert colours(clip)[:20] == "rrrrbbbbrrrrbbbbrrrr"
    assert [float(jump.by) for jump in clip.info.clock.jumps] == pytest.approx(
        [after - before - SECONDS for before, after in pairwise(starts)], abs=0.2
    )
    assert any("jumps 4 times" in warning for warning in clip.warnings)


@pytest.mark.parametrize("lengths", [{"seen": 0}, {"heard": 0}], ids=["sound alone", "picture alone"])
def test_a_single_stream_goes_on_as_well(tmp_path, lengths):
    clip = sample(joined(tmp_path / "a.ts", (RED, 500, 0), (BLUE, 900, 60), **lengths))
    assert float(clip.info.duration) == pytest.approx(2 * SECONDS, abs=0.15)
    assert len(clip.info.clock.jumps) == 1
    if clip.info.video:
        assert colours(clip) == "r" * 8 + "b" * 8


@pytest.mark.parametrize(("suffix", "codec"), [(".opus", "libopus"), (".oga", "flac")])
def test_chained_ogg_is_heard_to_its_end(tmp_path, suffix, codec):
    links = [
        write_clip((tmp_path / f"{hertz}").with_suffix(suffix), None, Audio(tone(3, hertz, 48000), 48000, codec=codec))
        for hertz in (500, 900)
    ]
    path = tmp_path / f"chain{suffix}"
    path.write_bytes(b"".join(link.read_bytes() for link in links))
    clip = sample(path)
    assert float(clip.audio_seconds) == pytest.approx(6, abs=0.1)
    assert pitch(seconds_of(clip, 1, 2)) == pytest.approx(500, abs=2)
    assert pitch(seconds_of(clip, 4, 5)) == pytest.approx(900, abs=2)
    assert any("clock jumps" in warning for warning in clip.warnings)


@pytest.mark.parametrize("before", [0.5, 2, 30, 59, 61, 90])
def test_a_wrap_of_the_clock_changes_nothing(tmp_path, before):
    """MPEG's clock begins anew every 26.5 hours: soon after the file's start, or in its middle."""
    path = tmp_path / "a.ts"
    part(path, RED, 500, float(TURN) - before)
    clip, plain = (
        sample(path),
        probe(write_clip(tmp_path / "b.ts", Video([np.zeros((64, 96, 3), np.uint8)] * 100))),
    )
    assert float(plain.duration) == float(clip.info.video.end - clip.info.video.start) == SECONDS
    assert 0 <= clip.info.video.start < Fraction(1, 10)
    assert float(clip.audio_seconds) == pytest.approx(SECONDS, abs=0.1)
    assert np.abs(clip.waveform[:1600]).max() > 0.3, "it is heard from its first moment on"
    assert clip.warnings == ()
    assert clip.info.clock.jumps == ()


def test_a_wrap_after_a_jump_is_no_jump(tmp_path):
    path = joined(tmp_path / "a.ts", (RED, 500, 0), (BLUE, 900, float(TURN) - 2))
    clip = sample(path)
    assert float(clip.info.duration) == pytest.approx(2 * SECONDS, abs=0.15)
    assert len(clip.info.clock.jumps) == 1


def test_what_lies_before_zero_is_content_in_a_transport_stream_and_cut_in_mp4(tmp_path):
    part(tmp_path / "a.ts", RED, 500, float(TURN) - 20)
    assert probe(tmp_path / "a.ts").duration > 3.9
    cut = write_clip(tmp_path / "a.mp4", Video([np.zeros((64, 96, 3), np.uint8)] * 100, start=-1))
    assert probe(cut).duration == 3


def rewritten(source, target, moved, duration=lambda packet: packet.duration):
    """The packets of a file with other timestamps: `moved` tells by how many seconds, for each number."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        streams = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for number, packet in enumerate(p for p in read.demux() if p.size):
            by = round(moved(number) / packet.time_base)
            packet.pts, packet.dts, packet.duration = packet.pts + by, packet.dts + by, duration(packet)
            packet.stream = streams[packet.stream_index]
            written.mux(packet)
    return target


@pytest.fixture(scope="module")
def intra(tmp_path_factory):
    """3 s of frames that need no other, at 4 a second, each in a colour of its own."""
    frames = [np.full((64, 96, 3), (RED, GREEN, BLUE)[k // 4], np.uint8) for k in range(12)]
    path = tmp_path_factory.mktemp("intra") / "a.mkv"
    return write_clip(path, Video(frames, rate=4, codec="mpeg4", tick=Fraction(1, 4), options={"g": "1", "bf": "0"}))


@pytest.mark.parametrize(("name", "years"), [("a.mkv", 0.01), ("a.mkv", 60), ("a.nut", 1), ("a.mp4", 0.004)])
def test_a_half_that_lies_years_later_follows_the_first(tmp_path, intra, name, years):
    path = rewritten(intra, tmp_path / name, lambda number: years * 365 * 86_400 if number >= 4 else 0)
    clip = sample(path, ClipOptions(fps=4))
    assert 2.9 <= clip.info.duration <= 4, "the frame before the gap may stand for a second at most"
    assert re.fullmatch("r{4,8}g{4}b{4,5}", colours(clip))
    assert any("clock jumps once" in warning for warning in clip.warnings)


def test_a_gap_of_minutes_in_everything_is_cut_and_a_shorter_one_kept(tmp_path):
    source = write_clip(tmp_path / "a.mkv", None, Audio(tone(2, 500, 16_000), 16_000, codec="pcm_s16le"))
    kept = probe(rewritten(source, tmp_path / "kept.mkv", lambda number: 200 if number >= 16 else 0))
    assert float(kept.duration) == pytest.approx(202, abs=0.1)
    cut = sample(rewritten(source, tmp_path / "cut.mkv", lambda number: 2100 if number >= 16 else 0))
    assert float(cut.audio_seconds) == pytest.approx(2, abs=0.1)


def ivf(path, ticks, rate=1, scale=1):
    """VP8 in IVF, whose header and frames say any time."""
    frames = [np.full((64, 96, 3), 40 * k, np.uint8) for k in range(5)]
    data = bytearray(write_clip(path, Video(frames, codec="libvpx", options={"deadline": "realtime"})).read_bytes())
    data[16:20], data[20:24] = rate.to_bytes(4, "little"), scale.to_bytes(4, "little")
    at = 32
    for tick in ticks:
        data[at + 4 : at + 12] = tick.to_bytes(8, "little")
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("gap", [2**20, 2**40, 2**58])
def test_absurd_timestamps_cost_what_the_frames_cost(tmp_path, gap):
    clip = sample(ivf(tmp_path / "a.ivf", [gap * k for k in range(5)]))
    assert clip.info.duration <= 60
    assert any("clock jumps 4 times" in warning for warning in clip.warnings)


def test_one_frame_with_a_timestamp_far_away_moves_nothing_else(tmp_path):
    info = probe(ivf(tmp_path / "a.ivf", [0, 1, 2**20, 3, 4]))
    assert info.duration == 5
    assert info.clock.jumps


def test_an_absurd_unit_of_time_is_refused(tmp_path):
    with pytest.raises(MediaError, match="make no sense"):
        probe(ivf(tmp_path / "a.ivf", [2**25 * k for k in range(5)], scale=2**31 - 1))


def test_a_clock_that_jumps_at_every_packet_is_refused(monkeypatch):
    monkeypatch.setattr(clock_module, "CLOCK_JUMPS", 10)
    scan = ClockScan([(0, True, TICK, Fraction(1, 25))], may_jump=True)

    def add_all():
        for number in range(20):
            scan.add(0, number * number * 10**7, number * number * 10**7, 3600, counts=True)

    with pytest.raises(MediaError, match="more than 10 times"):
        add_all()


def test_a_stream_that_starts_late_is_no_jump(tmp_path):
    path = write_clip(
        tmp_path / "a.ts", Video([np.zeros((64, 96, 3), np.uint8)] * 400), Audio(tone(3), start=12), muxdelay="0"
    )
    info = probe(path)
    assert info.clock is STEADY or info.clock.steady
    assert float(info.audio.start) == pytest.approx(12, abs=0.1)


def test_streams_that_are_not_interleaved_are_no_restart():
    scan = ClockScan([(0, True, TICK, Fraction(1, 25)), (1, False, TICK, Fraction(0))], may_jump=True)
    for stream in (0, 1):
        for k in range(2000):
            scan.add(stream, 3600 * k, 3600 * k, 3600, counts=True)
    assert scan.clock(trims=False).steady


def test_both_streams_of_a_part_are_moved_alike_wherever_they_are_interleaved():
    """The last picture of a part may come after the first sound of the next."""
    scan = ClockScan([(0, True, TICK, Fraction(1, 25)), (1, False, TICK, Fraction(0))], may_jump=True)
    packets = [(kind, base + 3600 * k) for base in (0, 10_000_000, 0) for k in range(100) for kind in (0, 1)]
    for first in (200, 400):
        picture, sound, next_picture, next_sound = packets[first - 2 : first + 2]
        packets[first - 2 : first + 2] = [sound, next_sound, picture, next_picture]
    for stream, time in packets:
        scan.add(stream, time, time, 3600, counts=True)
    clock = scan.clock(trims=False)
    assert len(clock.jumps) == 2
    assert scan.span(0) == scan.span(1) == (0, 12)


def test_without_jumps_the_file_is_sought_in_as_ever(tmp_path):
    path = tmp_path / "a.ts"
    part(path, RED, 500)
    assert probe(path).clock == STEADY


@pytest.mark.parametrize(
    ("name", "times", "end"),
    [
        ("a.mp4", (0, 10, 50), 60),
        ("a.mkv", (0, 10, 50), 60),
        ("a.mp4", (0, 60), 60.5),
        ("a.mkv", (0, 60), 60.5),
        ("a.mp4", (0, 1, 2, 3, 200), 200.25),
        ("a.mp4", (0, 2000, 5000), 5004),
        ("a.mov", (0, 7), 100),
    ],
)
def test_the_last_frame_lasts_as_long_as_the_file_says(tmp_path, name, times, end):
    path = sparse(tmp_path / name, times, end)
    clip = sample(path, ClipOptions(fps=1, max_frames=10_000) if end < 300 else ClipOptions())
    assert float(clip.info.duration) == end
    assert all(time < end for time in clip.frame_times[:-1])
    assert clip.warnings == ("There is no audio stream.",)


def sparse(path, times, end):
    """A frame at each of the times, the last one up to `end`."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for k, time in enumerate(times):
            picture = np.full((64, 96, 3), 60 * (k % 4), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = 1000 * time, stream.time_base
            packets += stream.encode(frame)
        for packet, time, then in zip(packets + stream.encode(None), times, [*times[1:], end], strict=True):
            packet.duration = int(1000 * (then - time))
            out.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.w64", "a.aiff", "a.au", "a.caf"])
def test_a_format_that_counts_samples_is_not_read_through(tmp_path, monkeypatch, name):
    codec = "pcm_s16be" if name in ("a.aiff", "a.au") else "pcm_s16le"
    path = write_clip(tmp_path / name, None, Audio(tone(60, rate=16_000), 16_000, codec=codec))
    read, demuxed = [], container_module.demuxed

    def counted(*given):
        for packet in demuxed(*given):
            read.append(packet.size)
            yield packet

    monkeypatch.setattr(container_module, "demuxed", counted)
    assert probe(path).duration == 60
    assert sum(read) < 100_000


def test_an_animated_webp_is_read_by_pyav_19_and_refused_by_name_before(tmp_path):
    path = tmp_path / "a.webp"
    pictures = [Image.new("RGB", (64, 48), (50 * number, 200, 10)) for number in range(5)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=200)
    if "webp_anim" in av.format.formats_available:
        assert probe(path).duration == pytest.approx(1, abs=0.2)
        assert len(sample(path, ClipOptions(fps=4, min_pixels=784, max_pixels=3136)).frames) == 4
    else:
        with pytest.raises(MediaError, match="animated WebP"):
            probe(path)


def test_a_stream_that_ends_is_told_by_its_own_number_though_its_last_packet_has_none(tmp_path):
    """An FLV whose picture has a codec that nobody knows: the sound, which is the second stream, is read through."""
    path = joined(tmp_path / "a.flv", (RED, 440, 0))
    data = bytearray(path.read_bytes())
    at = 13
    while at < len(data):
        if data[at] == 9:  # a tag of the picture
            data[at + 11] |= 15
        at += 15 + int.from_bytes(data[at + 1 : at + 4])
    path.write_bytes(data)
    clip = sample(path)
    assert not len(clip.frames)
    assert float(clip.audio_seconds) == pytest.approx(SECONDS, abs=0.1)
