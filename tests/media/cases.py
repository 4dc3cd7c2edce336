"""Hostile and odd media, each made in a moment: what the suite tests, and what benchmarks/hostile.py measures.

Each maker gets a path without suffix and returns the file it wrote.
"""

import struct
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from tests.media.clips import CLOCKWISE, Audio, Video, grey, spoil, tone, write_clip

FRAMES = [grey(k) for k in range(50)]  # 2 s at 25 frames a second
MPEG4 = {"codec": "mpeg4", "tick": Fraction(1, 25), "options": {"bf": "0"}}

Maker = Callable[[Path], Path]


def made_once(make: Maker) -> Maker:
    """The same file wherever it is asked for, encoded the first time."""
    made: list[tuple[str, bytes]] = []

    def copied(stem: Path) -> Path:
        if not made:
            path = make(stem)
            made.append((path.suffix, path.read_bytes()))
        suffix, data = made[0]
        path = stem.with_suffix(suffix)
        path.write_bytes(data)
        return path

    return copied


def encoded(stem: Path, suffix: str) -> Path:
    audio = Audio(tone(2), codec="libmp3lame" if suffix == ".avi" else "aac")
    return write_clip(stem.with_suffix(suffix), Video(FRAMES, **MPEG4), audio, movflags="faststart")


_ORDINARY = {suffix: made_once(partial(encoded, suffix=suffix)) for suffix in (".mp4", ".mkv", ".ts", ".avi")}


def ordinary(stem: Path, suffix: str = ".mp4") -> Path:
    return _ORDINARY[suffix](stem)


def truncated(stem: Path, tenths: int, suffix: str = ".mp4") -> Path:
    path = ordinary(stem, suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * tenths // 10])
    return path


def patched(stem: Path, changes: dict[bytes, tuple[int, bytes]], suffix: str = ".mp4") -> Path:
    """An ordinary clip with bytes overwritten: {mark: (offset from each place of the mark, bytes)}."""
    path = ordinary(stem, suffix)
    data = bytearray(path.read_bytes())
    for mark, (offset, value) in changes.items():
        at = data.find(mark)
        while at >= 0:
            data[at + offset : at + offset + len(value)] = value
            at = data.find(mark, at + 4)
    path.write_bytes(data)
    return path


def text(stem: Path, words: str, suffix: str = ".mp4") -> Path:
    path = stem.with_suffix(suffix)
    path.write_text(words)
    return path


def picture(stem: Path, suffix: str, **video) -> Path:
    return write_clip(stem.with_suffix(suffix), Video(**video))


def sound(stem: Path, suffix: str, rate: int = 48000, channels: int = 1, codec: str = "pcm_s16le") -> Path:
    """Half a second of noise in every channel."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    path = stem.with_suffix(suffix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        noise = np.random.default_rng(0).integers(-9000, 9000, (1, rate // 2 * channels), np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tracks(stem: Path, suffix: str = ".mkv") -> Path:
    """A picture and three sounds: 1 s of 300 Hz, of 500 Hz, and of 900 Hz."""
    path = stem.with_suffix(suffix)
    with av.open(str(path), "w") as container:
        seen = container.add_stream("mpeg4", rate=25)
        seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
        heard = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(3)]
        for stream, language in zip(heard, ("eng", "deu", "fra"), strict=True):
            stream.metadata["language"] = language
        heard[2].metadata["title"] = "Com\x1b[31mment"
        for k in range(25):
            container.mux(seen.encode(av.VideoFrame.from_ndarray(grey(k), format="rgb24")))
        for stream, hertz in zip(heard, (300, 500, 900), strict=True):
            samples = (tone(1, hertz, 16000) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(seen.encode())
    return path


def cover_art(stem: Path, with_sound: bool = True) -> Path:
    path = stem.with_suffix(".m4a")
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        heard = container.add_stream("aac", rate=44100, layout="mono") if with_sound else None
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(3), format="rgb24")))
        container.mux(cover.encode())
        if heard is not None:
            frame = av.AudioFrame.from_ndarray(tone(1)[None], format="fltp", layout="mono")
            frame.sample_rate = 44100
            container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return path


def eight_hours(stem: Path, step: int = 30) -> Path:
    """A frame every `step` seconds, and silence: one encoded packet of it, stored over and over."""
    path = stem.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        seen = container.add_stream("mpeg4", rate=25)
        seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
        heard = container.add_stream("flac", rate=8000, layout="mono", options={"frame_size": "4096"})
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        payload = bytes((heard.encode(silence) + heard.encode())[0])
        shown = seen.encode(av.VideoFrame.from_ndarray(grey(3), format="rgb24")) + seen.encode()
        container.start_encoding()
        payloads = [(seen, bytes(shown[0]), second) for second in range(0, 8 * 3600, step)]
        payloads += [(heard, payload, Fraction(4096 * k, 8000)) for k in range(8 * 3600 * 8000 // 4096)]
        for stream, data, second in sorted(payloads, key=lambda entry: entry[2]):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 8000), True
            packet.pts = packet.dts = int(second * 8000)
            container.mux(packet)
    return path


def leap(stem: Path, seconds: int) -> Path:
    """Sound whose second half claims to be heard `seconds` later."""
    audio = Audio(tone(1, rate=16000), 16000, codec="pcm_s16le")
    path = stem.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(audio.codec, rate=audio.rate, layout="mono")
        for k in range(10):
            samples = (audio.samples[1600 * k : 1600 * (k + 1)] * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = 1600 * k + (seconds * 16000 if k >= 5 else 0)
            container.mux(stream.encode(frame))
    return path


def many_streams(stem: Path, count: int) -> Path:
    path = stem.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 80), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
    return path


def damaged(stem: Path) -> Path:
    """Sixteen packets in the middle of the picture, and four of the sound, are overwritten."""
    path = write_clip(stem.with_suffix(".mkv"), Video(FRAMES), Audio(tone(2), codec="flac"))
    return spoil(spoil(path, "video", slice(20, 36)), "audio", slice(8, 12))


def wav_at(stem: Path, rate: int) -> Path:
    """A wave file whose header claims any sample rate."""
    path = sound(stem, ".wav", 8000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 24, rate)
    path.write_bytes(data)
    return path


WORDS = "This is not a video.\n" * 200
CONCAT = "ffconcat version 1.0\nfile secret.mp4\n"
EIGHT_K = [np.full((4320, 7680, 3), 99, np.uint8)]
HUGE = [np.full((9000, 7500, 3), 99, np.uint8)]
MAX = b"\x7f\xff\xff\xf0"

REFUSED: dict[str, Maker] = {
    "empty": partial(text, words=""),
    "text named .mp4": partial(text, words=WORDS),
    "text named .txt": partial(text, words=WORDS, suffix=".txt"),
    "playlist (concat) named .mp4": partial(text, words=CONCAT),
    "index cut off at 1/10": partial(truncated, tenths=1),
    "index damaged": partial(patched, changes={b"stsd": (0, b"xxxx")}),
    "68 million pixels": made_once(partial(picture, suffix=".mkv", frames=HUGE, codec="mjpeg", pix_fmt="yuvj420p")),
    "sound at 1 Hz": partial(wav_at, rate=1),
    "sound at 4 GHz": partial(wav_at, rate=4_000_000_000),
    "cover art and nothing else": partial(cover_art, with_sound=False),
}
TAKEN: dict[str, Maker] = {
    "ordinary": ordinary,
    **{f"cut at {k}/10": partial(truncated, tenths=k) for k in range(4, 10)},
    "damaged packets in the middle": damaged,
    "header claims 12 days": partial(patched, changes={b"mvhd": (20, MAX), b"mdhd": (20, MAX), b"tkhd": (24, MAX)}),
    "header claims 2 billion frames": partial(patched, changes={b"stts": (12, MAX)}),
    "header claims a picture of 1 billion pixels": partial(patched, changes={b"mp4v": (28, b"\x7f\xff\x7f\xff")}),
    "300 streams of 10 ms": made_once(partial(many_streams, count=300)),
    "timestamps leap by 2 hours": partial(leap, seconds=7200),
    "timestamps leap by a year": partial(leap, seconds=31_536_000),
    "1x1": partial(picture, suffix=".avi", frames=[grey(k, 1, 1) for k in range(9)], codec="ffv1", pix_fmt="yuv444p",
                   tick=Fraction(1, 25)),
    "8K": partial(picture, suffix=".mp4", frames=EIGHT_K, options={"preset": "ultrafast"}),
    "1 frame a second": partial(picture, suffix=".mp4", frames=FRAMES[:4], rate=1),
    "240 frames a second": partial(picture, suffix=".mp4", frames=FRAMES * 5, rate=240),
    "varying rate": partial(picture, suffix=".mkv", frames=FRAMES[:4], times=[0, 0.3, 0.35, 1.9]),
    "starts at 100 s": partial(picture, suffix=".ts", frames=FRAMES, start=100),
    "starts at -1 s": partial(picture, suffix=".mp4", frames=FRAMES, start=-1),
    "turned": partial(picture, suffix=".mp4", frames=[grey(k, 48, 96) for k in range(25)], matrix=CLOCKWISE),
    "interlaced": partial(picture, suffix=".mp4", frames=FRAMES, options={"x264-params": "tff=1"}),
    "10 bits": partial(picture, suffix=".mkv", frames=FRAMES, codec="ffv1", pix_fmt="yuv420p10le"),
    "alpha": partial(picture, suffix=".mov", frames=FRAMES[:25], codec="png", pix_fmt="rgba"),
    "GIF": partial(picture, suffix=".gif", frames=FRAMES[:25], codec="gif", pix_fmt="rgb8", tick=Fraction(1, 100)),
    "three audio tracks": tracks,
    "cover art as the only picture": cover_art,
    **{f"{n} channels": partial(sound, suffix=".wav", channels=n) for n in (1, 2, 6, 8)},
    **{f"{rate // 1000} kHz": partial(sound, suffix=".wav", rate=rate) for rate in (8000, 96000, 192000)},
}  # fmt: skip
