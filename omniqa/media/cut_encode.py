"""A span of a file, decoded and encoded again: H.264 (MPEG-4 where FFmpeg lacks it) and AAC in MP4."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from omniqa.media.access import CHANNELS, SAMPLE_RATES
from omniqa.media.container import Damage, Timed, timed_frames
from omniqa.media.probe import MediaInfo
from omniqa.media.video import shown_frames
from omniqa.media.watchdog import heartbeat

LARGEST_PICTURE = 2**23  # a larger picture is made smaller: encoders hold dozens of frames
_TICK = Fraction(1, 90_000)
_FASTEST = Fraction(1, 240)  # frames that are shown for less are left out
_GAP = Fraction(1, 10)  # of sound, below which timestamps are rounded or drift
_PIECE = 1024  # samples
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}

Picture = tuple[Fraction, Fraction, np.ndarray]


def encode_span(info: MediaInfo, start: Fraction, end: Fraction, file: Path) -> str | None:
    """Decode a span of picture and sound, and encode it again.

    The picture is upright, with square pixels, at its own size made even, and LARGEST_PICTURE large at most.

    Args:
        info: the media file.
        start: of the span, in seconds on the file's clock.
        end: likewise.
        file: written to.

    Returns:
        The suffix that the container goes by; None if nothing of the span can be decoded.
    """
    pictures = _begun(_pictures(info, start, end)) if info.video else None
    sound = _begun(_sound(info, start, end)) if info.audio else None
    if pictures is None and sound is None:
        return None
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        writers: list[Callable[[], None]] = []
        if pictures is not None:
            video, shown = _video_stream(out, pictures[0][2]), chain(*_whole(pictures))
            writers.append(lambda: _write_pictures(out, video, shown, start))
        if sound is not None:
            audio, heard = _audio_stream(out, sound[0]), chain(*_whole(sound))
            writers.append(lambda: _write_sound(out, audio, heard))
        for write in writers:
            write()
    return ".mp4" if pictures is not None else ".m4a"


def _begun(items: Iterator) -> tuple | None:
    """The first item, and the rest; None if there is none."""
    first = next(items, None)
    return None if first is None else (first, items)


def _whole(begun: tuple) -> tuple:
    return [begun[0]], begun[1]


def _pictures(info: MediaInfo, start: Fraction, end: Fraction) -> Iterator[Picture]:
    """Pictures with their times, none shown for less than _FASTEST."""
    assert info.video is not None
    scale = min(1.0, sqrt(LARGEST_PICTURE / (info.video.height * info.video.width)))
    size = _even(info.video.height * scale), _even(info.video.width * scale)
    last = start - 1
    for since, until, picture in shown_frames(info, start, end, size):
        if since - last >= _FASTEST:
            last = since
            yield since, until, picture


def _even(side: float) -> int:
    return max(2, int(side) // 2 * 2)


def _video_stream(out: OutputContainer, picture: np.ndarray) -> VideoStream:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # MP4 keeps what is shown how long in the order of decoding: without B-frames that is the order of showing.
    options = {"crf": "18", "preset": "veryfast", "bf": "0"} if codec == "libx264" else {"qscale": "3"}
    stream: Any = out.add_stream(codec, rate=25, options=options)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    # What FFmpeg makes of RGB; untagged, players take large pictures for BT.709.
    stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
    stream.codec_context.time_base = _TICK
    return stream


def _write_pictures(out: OutputContainer, stream: VideoStream, pictures: Iterable[Picture], start: Fraction) -> None:
    lasting: dict[int, int] = {}
    for since, until, picture in pictures:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = round((since - start) / _TICK), _TICK
        lasting[frame.pts] = max(1, round((until - since) / _TICK))
        _mux(out, stream.encode(frame), lasting)
    _mux(out, stream.encode(), lasting)


def _mux(out: OutputContainer, packets: list[av.Packet], lasting: dict[int, int]) -> None:
    """Write packets with the time for which they are shown, which the encoder does not know."""
    heartbeat()
    for packet in packets:
        if packet.pts in lasting:
            packet.duration = lasting.pop(packet.pts)
        out.mux(packet)


def _sound(info: MediaInfo, start: Fraction, end: Fraction) -> Iterator[av.AudioFrame]:
    """The span's sound as frames of one form, gaps filled with silence; mono, or stereo of more channels."""
    with closing(timed_frames(info.path, "audio", start, Damage(), info.access, info.clock)) as frames:
        form, written = None, 0
        for timed in _usable(frames):
            if timed.start >= end:
                return
            form = form or _Form(timed.frame)
            samples = form.converted(timed.frame)
            at = round((timed.start - start) * form.rate)
            if abs(at - written) <= _GAP * form.rate and written:
                at = written
            limit = round((end - start) * form.rate)
            if at > written:
                samples = np.pad(samples, ((0, 0), (min(at, limit) - written, 0)))
                at = written
            samples = samples[:, written - at : limit - at]
            if samples.shape[1]:
                yield form.frame(samples, written)
                written += samples.shape[1]


def _usable(frames: Iterable[Timed]) -> Iterator[Timed]:
    return (
        timed
        for timed in frames
        if timed.frame.sample_rate in SAMPLE_RATES and timed.frame.layout.nb_channels <= CHANNELS
    )


class _Form:
    """What all sound of a span is converted to: the first frame's rate if AAC has it, floats, mono or stereo."""

    def __init__(self, first: av.AudioFrame) -> None:
        self.rate = first.sample_rate if first.sample_rate in _AAC_RATES else 48_000
        self.layout = "mono" if first.layout.nb_channels == 1 else "stereo"
        self._from: tuple[str, str, int] | None = None
        self._resampler = self._new()

    def _new(self) -> av.AudioResampler:
        return av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)

    def converted(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 (channels, n) of a frame; what a filter holds back comes with the next."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._from:
            self._from, self._resampler = form, self._new()
        frame.pts = None  # the place of each frame is known; the resampler would fill gaps itself
        pieces = [piece.to_ndarray() for piece in self._resampler.resample(frame)]
        channels = 1 if self.layout == "mono" else 2
        return np.concatenate(pieces, axis=1) if pieces else np.zeros((channels, 0), np.float32)

    def frame(self, samples: np.ndarray, at: int) -> av.AudioFrame:
        """Samples as a frame that begins at sample `at`."""
        made = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
        made.sample_rate, made.pts, made.time_base = self.rate, at, Fraction(1, self.rate)
        return made


def _audio_stream(out: OutputContainer, first: av.AudioFrame) -> AudioStream:
    return out.add_stream("aac", rate=first.sample_rate, layout=first.layout.name)


def _write_sound(out: OutputContainer, stream: AudioStream, frames: Iterable[av.AudioFrame]) -> None:
    for frame in frames:
        heartbeat()
        out.mux(stream.encode(frame))
    out.mux(stream.encode())
