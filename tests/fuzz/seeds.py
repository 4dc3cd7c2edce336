"""One small clip in many containers: what is mutated."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.conftest import ROOT

_CLIP = ROOT / "sample_media" / "hello.mp4"
_SECONDS = 2
_SIZE = (168, 112)  # width, height
_FPS = 10
_DV = (720, 480)
_QCIF = (176, 144)
_QUICK = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}


@dataclass(frozen=True)
class Seed:
    """A container: the file's suffix, FFmpeg's muxer, its codecs, and its parser in `tests.fuzz.layouts`."""

    suffix: str
    layout: str
    video: str | None = None
    audio: str | None = None
    muxer: str | None = None
    rate: int = 44100
    fps: int = _FPS
    size: tuple[int, int] = _SIZE
    pix_fmt: str = "yuv420p"
    seconds: float = _SECONDS
    options: tuple[tuple[str, str], ...] = ()


SEEDS: dict[str, Seed] = {
    "mp4, index in front": Seed("mp4", "boxes", "libx264", "aac", options=(("movflags", "faststart"),)),
    "mp4, index at the end": Seed("mp4", "boxes", "libx264", "aac"),
    "mp4 in fragments": Seed("mp4", "boxes", "libx264", "aac", options=(("movflags", "frag_keyframe+empty_moov"),)),
    "mov": Seed("mov", "boxes", "mpeg4", "pcm_s16le"),
    "3gp": Seed("3gp", "boxes", "h263", "aac", size=_QCIF),
    "mkv": Seed("mkv", "ebml", "libx264", "flac"),
    "webm": Seed("webm", "ebml", "libvpx", "libopus", rate=48000),
    "avi": Seed("avi", "riff", "mpeg4", "libmp3lame"),
    "flv": Seed("flv", "flv", "flv", "libmp3lame"),
    "ts": Seed("ts", "ts", "libx264", "aac"),
    "m2ts": Seed("m2ts", "ts", "mpeg2video", "ac3", fps=25, options=(("mpegts_m2ts_mode", "1"),)),
    "mpeg-ps": Seed("mpg", "ps", "mpeg1video", "mp2", fps=25),
    "vob": Seed("vob", "ps", "mpeg2video", "ac3", muxer="vob", fps=25),
    "ogg flac": Seed("ogg", "ogg", None, "flac"),
    "ogv": Seed("ogv", "ogg", "libvpx", "flac"),
    "opus": Seed("opus", "ogg", None, "libopus", rate=48000),
    "wav": Seed("wav", "riff", None, "pcm_s16le"),
    "w64": Seed("w64", "w64", None, "pcm_s16le"),
    "aiff": Seed("aiff", "iff", None, "pcm_s16be"),
    "caf": Seed("caf", "caf", None, "pcm_s16be"),
    "au": Seed("au", "words", None, "pcm_s16be"),
    "mp3": Seed("mp3", "words", None, "libmp3lame"),
    "flac": Seed("flac", "flac", None, "flac"),
    "aac": Seed("aac", "adts", None, "aac", muxer="adts"),
    "amr": Seed("amr", "words", None, "libopencore_amrnb", rate=8000),
    "tta": Seed("tta", "words", None, "tta"),
    "ivf": Seed("ivf", "ivf", "libvpx"),
    "y4m": Seed("y4m", "text", "rawvideo", muxer="yuv4mpegpipe"),
    "nut": Seed("nut", "words", "mpeg4", "libmp3lame"),
    "asf": Seed("wmv", "asf", "wmv2", "libmp3lame", muxer="asf"),
    "gif": Seed("gif", "gif", "gif", pix_fmt="rgb8"),
    "apng": Seed("apng", "png", "apng", pix_fmt="rgb24"),
    "webp": Seed("webp", "riff"),
    "dv": Seed("dv", "dif", "dvvideo", fps=30, size=_DV, pix_fmt="yuv411p", seconds=0.4),
    "mxf": Seed("mxf", "klv", "mpeg2video", "pcm_s16le", rate=48000, fps=25),
    "rm": Seed("rm", "words", "rv10", "ac3", size=_QCIF),
}


def clip() -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures (uint8 RGB, 168 x 112, 10 a second) and sound (float32 at 44.1 kHz) of the seed, 2 s long."""
    with av.open(str(_CLIP)) as container:
        rate = container.streams.video[0].average_rate
        pictures = [
            frame.to_ndarray(width=_SIZE[0], height=_SIZE[1], format="rgb24") for frame in container.decode(video=0)
        ]
    with av.open(str(_CLIP)) as container:
        resampler = av.AudioResampler("flt", "mono", 44100)
        pieces = [piece.to_ndarray()[0] for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    chosen = [pictures[int(number * rate / _FPS) % len(pictures)] for number in range(_SECONDS * _FPS)]
    return chosen, np.concatenate(pieces)[: _SECONDS * 44100]


def make(name: str, folder: Path, pictures: list[np.ndarray], sound: np.ndarray) -> bytes:
    """The seed's bytes.

    Raises:
        av.error.FFmpegError, ValueError: this build of FFmpeg lacks the encoder or the muxer.
    """
    seed = SEEDS[name]
    path = folder / f"seed.{seed.suffix}"
    if seed.layout == "riff" and seed.suffix == "webp":
        Image.fromarray(pictures[0]).save(path)
        return path.read_bytes()
    with av.open(str(path), "w", format=seed.muxer, options=dict(seed.options)) as container:
        streams = []
        if seed.video:
            streams.append((_video(container, seed), _pictures(pictures, seed)))
        if seed.audio:
            streams.append((_audio(container, seed), _blocks(sound, seed)))
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path.read_bytes()


def _video(container, seed):
    stream = container.add_stream(seed.video, rate=seed.fps)
    stream.width, stream.height = seed.size
    stream.pix_fmt = seed.pix_fmt
    stream.codec_context.options = _QUICK.get(seed.video, {})
    return stream


def _pictures(pictures, seed):
    for number in range(int(seed.seconds * seed.fps)):
        frame = av.VideoFrame.from_ndarray(pictures[number * _FPS // seed.fps], format="rgb24")
        frame = frame.reformat(*seed.size, seed.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, seed.fps)
        yield frame


def _audio(container, seed):
    return container.add_stream(seed.audio, rate=seed.rate, layout="mono")


def _blocks(sound, seed):
    kinds = av.Codec(seed.audio, "w").audio_formats
    resampler = av.AudioResampler(kinds[0] if kinds else "s16", "mono", seed.rate)
    for first in range(0, len(sound), 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None, first : first + 1024]), "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, first, Fraction(1, 44100)
        yield from resampler.resample(frame)
