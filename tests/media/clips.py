"""Clips made in the tests: every frame's grey level tells its index, sound is what the test asks for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

SHARED = Path(__file__).parents[2].parent / "shared/media"
LEVELS = 40  # frame k is grey level 6 k + 8, so that coding noise can not turn it into its neighbour
CLOCKWISE = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # display matrix of a phone held upright
MIRRORED = (-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def real_clip(name: str) -> Path:
    """A real clip; the test is skipped where it is not at hand."""
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not in {SHARED}")
    return SHARED / name


def grey(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 6 * (index % LEVELS) + 8, np.uint8)


def index_of(frame: np.ndarray) -> int:
    """Which frame (modulo LEVELS) a grey picture is."""
    return round((float(frame.mean()) - 8) / 6)


def click(seconds: float, at: float, rate: int = 44100) -> np.ndarray:
    """Silence with a single bump of 2 ms around `at`."""
    t = np.arange(round(seconds * rate)) / rate - at
    return (0.8 * np.exp(-((t / 0.0005) ** 2))).astype(np.float32)


def tone(seconds: float, hertz: float = 440.0, rate: int = 44100) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@dataclass
class Video:
    """The picture of a clip to write: frames, shown at `times` (seconds; by default at a steady `rate`)."""

    frames: Sequence[np.ndarray]
    rate: int = 25
    times: Sequence[float] | None = None
    start: float = 0
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    tick: Fraction = Fraction(1, 12000)
    matrix: tuple[int, ...] | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Audio:
    """The sound of a clip to write: mono (n,) or (channels, n)."""

    samples: np.ndarray
    rate: int = 44100
    start: float = 0
    codec: str = "aac"
    bit_rate: int | None = None


def write_clip(path: Path, video: Video | None = None, audio: Audio | None = None, **options: str) -> Path:
    """Write a clip; `options` go to the muxer."""
    with av.open(str(path), "w", options=options) as container:
        streams = [_add_video(container, video)] if video else []
        streams += [_add_audio(container, audio)] if audio else []
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def spoil(path: Path, kind: str, which: slice = slice(None)) -> Path:
    """Overwrite packets of a stream, by default all of them; the container stays whole."""
    with av.open(str(path)) as container:
        payloads = [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]
    data = path.read_bytes()
    for payload in payloads[which]:
        data = data.replace(payload, b"\xff" * len(payload), 1)
    path.write_bytes(data)
    return path


def _add_video(container, video):
    stream = container.add_stream(video.codec, rate=video.rate, options=video.options)
    stream.height, stream.width = video.frames[0].shape[:2]
    stream.pix_fmt = video.pix_fmt
    stream.codec_context.time_base = video.tick
    if video.matrix:
        stream.set_display_matrix(video.matrix)
    return stream, _video_frames(video)


def _video_frames(video):
    times = video.times or [k / video.rate for k in range(len(video.frames))]
    for time, picture in zip(times, video.frames, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = round((time + video.start) / video.tick), video.tick
        yield frame


def _add_audio(container, audio):
    samples = np.atleast_2d(audio.samples)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    stream = container.add_stream(audio.codec, rate=audio.rate, layout=layout)
    if audio.bit_rate:
        stream.bit_rate = audio.bit_rate
    return stream, _audio_frames(samples, audio, layout)


def _audio_frames(samples, audio, layout):
    for first in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, first : first + 1024], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = audio.rate, Fraction(1, audio.rate)
        frame.pts = first + round(audio.start * audio.rate)
        yield frame
