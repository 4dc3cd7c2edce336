"""A clip as the model takes it in: frames at known times and 16 kHz sound, both on the file's clock."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np

from omniqa.errors import MediaError, StorageError, UsageError
from omniqa.media.access import CLIP_SECONDS, SOUND_SECONDS
from omniqa.media.audio import SAMPLE_RATE, mixed_audio, resample_array
from omniqa.media.clock import Clock
from omniqa.media.container import Damage, Kind, reading_errors
from omniqa.media.download import held
from omniqa.media.downmix import CANCELLED_NOTE
from omniqa.media.probe import AudioStream, MediaInfo, VideoStream
from omniqa.media.resize import resize
from omniqa.media.sampling import ClipOptions, selected_range, smart_resize
from omniqa.media.source import Source, open_source, path_of
from omniqa.media.timeline import Number, exact, frame_spacing, sample_times
from omniqa.media.video import PictureCounts, read_frames
from omniqa.media.watchdog import Progress, run_watched, streamed
from omniqa.models.base import STANDARD, Geometry

T = TypeVar("T")

NO_VIDEO, NO_AUDIO = "There is no video stream.", "There is no audio stream."
_NO_FRAMES, _NO_SOUND = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32)

_VIDEO_SHARE = 0.9  # of the work, where there is sound, too
_FIRST_FRAMES = 128  # for which there is room at first; beyond, it grows with the frames that come
_EARLY_END = Fraction(1, 2)  # sound that ends this much before the header says so is worth a word


_DEFAULT = ClipOptions()


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and sound of a range of a clip.

    Attributes:
        info: the file.
        start: of the range, in seconds on the file's clock.
        end: of the range, likewise.
        frames: uint8 RGB, shape (F, H, W, 3), F even; (0, 0, 0, 3) where there is no picture, and (0, H, W, 3) where
            the frames were handed on as they came (`stream_clip`).
        frame_times: F times in seconds from `start`; a last frame repeated to make F even is one step later.
        waveform: float32, shape (n,), 16 kHz mono, sample 0 at `start`; may be empty, may end before the picture.
        warnings: what the user should know, in plain sentences.
        counts: what was done to the frames.
    """

    info: MediaInfo
    start: Fraction
    end: Fraction
    frames: np.ndarray
    frame_times: tuple[Fraction, ...]
    waveform: np.ndarray
    warnings: tuple[str, ...] = ()
    counts: PictureCounts = field(default_factory=PictureCounts)

    @property
    def undisturbed(self) -> bool:
        """Whether nothing went wrong while it was read: another reading gives the same."""
        return {NO_VIDEO, NO_AUDIO}.issuperset(self.warnings)

    @property
    def grid_times(self) -> tuple[Fraction, ...]:
        """Of every two frames, which become one temporal grid, the first one's time."""
        return self.frame_times[::2]

    @property
    def seconds(self) -> Fraction:
        """Length of the range."""
        return self.end - self.start

    @property
    def audio_seconds(self) -> Fraction:
        """Length of the sound."""
        return Fraction(len(self.waveform), SAMPLE_RATE)

    @classmethod
    def from_arrays(
        cls,
        frames: np.ndarray | None = None,
        frame_times: Iterable[Number] | None = None,
        *,
        fps: Number = 2.0,
        waveform: np.ndarray | None = None,
        sample_rate: int = SAMPLE_RATE,
        geometry: Geometry = STANDARD,
    ) -> "Clip":
        """A clip from frames and sound at hand.

        Args:
            frames: uint8 RGB, shape (F, H, W, 3); resized only where the model could not take them as they are.
            frame_times: F rising times in seconds, 0 or later; without them, `fps` tells.
            fps: frames per second, where there are no times.
            waveform: shape (n,) or (channels, n), starting at 0 s.
            sample_rate: of the waveform, in Hz.
            geometry: of the model that will look at it.

        Raises:
            UsageError: shapes, types or times do not fit.
            MediaError: the frames are too long and thin.
        """
        sound = _NO_SOUND if waveform is None else resample_array(np.asarray(waveform), sample_rate)
        pictures = _NO_FRAMES if frames is None else np.asarray(frames)
        if not len(pictures) and not len(sound):
            raise UsageError("A clip needs frames or a waveform; both are missing or empty.")
        step, count = frame_spacing(fps), len(pictures)
        times = tuple(k * step for k in range(count)) if frame_times is None else tuple(map(exact, frame_times))
        if len(times) > 1:
            step = times[-1] - times[-2]
        end = times[-1] + step if times else Fraction(0)
        if end > CLIP_SECONDS:
            raise UsageError(f"Frames at {float(times[-1]):.6g} s can't be used: a clip lasts 30 days at most.")
        own_size = pictures.shape[1:3]
        if count or times:
            pictures, times = _even(_at_model_size(pictures, times, geometry), times, step)
        info = _array_info(own_size, times, end, sound)
        return cls(info, Fraction(0), info.duration, pictures, times, sound)


def sample(
    video: str | Path | Source,
    options: ClipOptions = _DEFAULT,
    progress: Progress | None = None,
    geometry: Geometry = STANDARD,
) -> Clip:
    """Take frames and sound from a file, decoding it once and holding only what is taken.

    What is wrong with one of the two streams is told in the clip's `warnings`, as long as the other can be used.

    Args:
        video: the media file; one that has been probed is not probed again.
        options: what to take.
        progress: called with the fraction done, 0 to 1.
        geometry: of the model that will look at it.

    Raises:
        MediaError: the file can't be used, holds nothing to see or hear in the range, or can't be read on for a minute.
    """
    with held(path_of(video), options.access):
        source = open_source(video, options.access)
        work = partial(_sample, source.info, options, geometry)
        return run_watched(work, source.path, progress or (lambda done: None))


def stream_clip(
    video: str | Path | Source,
    options: ClipOptions = _DEFAULT,
    progress: Progress | None = None,
    geometry: Geometry = STANDARD,
    room: int = 4,
) -> Generator[np.ndarray, None, tuple[Clip, float]]:
    """Like `sample`, but frames are handed on two by two, as they come, and not held.

    Args:
        video: as for `sample`.
        options: what to take.
        progress: called with the fraction done, 0 to 1.
        geometry: of the model that will look at it.
        room: how many pairs of frames may wait; decoding waits then.

    Yields:
        uint8 RGB, shape (2, H, W, 3).

    Returns:
        The clip without its frames, and the seconds that probing and decoding took. It may say that there is no
        picture although some was handed on: what broke off with an error does not count.

    Raises:
        MediaError: as `sample` does.
    """

    def work(hand_on: Callable[[np.ndarray], None], report: Progress) -> Clip:
        return _sample(source.info, options, geometry, report, hand_on)

    with held(path_of(video), options.access):
        source = open_source(video, options.access)
        clip, seconds = yield from streamed(work, source.path, progress or (lambda done: None), room)
    return clip, source.seconds + seconds


def _sample(
    info: MediaInfo,
    sampling: ClipOptions,
    geometry: Geometry,
    report: Progress,
    hand_on: Callable[[np.ndarray], None] | None = None,
) -> Clip:
    start, end = selected_range(info, sampling)
    share = (_VIDEO_SHARE if sampling.audio and info.audio else 1.0) if sampling.video and info.video else 0.0
    reading = _Reading(info, sampling, geometry, start, end, hand_on, list(_jump_notes(info.clock)))
    frames, times, waveform = _NO_FRAMES, tuple[Fraction, ...](), _NO_SOUND
    if sampling.video:
        take_frames = partial(reading.frames, report=lambda done: report(done * share))
        frames, times = reading.attempt("video", take_frames, (frames, times))
    if sampling.audio:
        take_sound = partial(reading.waveform, report=lambda done: report(share + done * (1 - share)))
        waveform = reading.attempt("audio", take_sound, waveform)
    report(1.0)
    if not times and not len(waveform):
        raise MediaError(f"{info.path}: there is nothing from {_s(start)} to {_s(end)}. {' '.join(reading.warnings)}")
    return Clip(info, start, end, frames, times, waveform, tuple(reading.warnings), reading.counts)


@dataclass
class _Reading:
    """A range of a file being read; what is wrong with one stream is noted, and the other goes on.

    Attributes:
        hand_on: takes the frames two by two; where there is none, they are held.
    """

    info: MediaInfo
    sampling: ClipOptions
    geometry: Geometry
    start: Fraction
    end: Fraction
    hand_on: Callable[[np.ndarray], None] | None = None
    warnings: list[str] = field(default_factory=list)
    counts: PictureCounts = field(default_factory=PictureCounts)

    def attempt(self, kind: Kind, take: Callable[[Damage], T], nothing: T) -> T:
        """What `take` returns; where the media does not allow it, a warning instead, and `nothing`."""
        damage = Damage()
        try:
            with reading_errors(self.info.path):
                taken = take(damage)
        except StorageError:
            raise
        except MediaError as error:
            self.warnings.append(str(error))
            taken = nothing
        if damage.packets:
            self.warnings.append(f"Damaged {kind} packets left out: {damage.packets}.")
        if damage.gaps_closed:
            gaps = _s(damage.gaps_closed)
            self.warnings.append(
                f"The sound's timestamps leave gaps with nothing in them; {gaps} of these are left out."
            )
        if damage.broken_off:
            self.warnings.append(f"The {kind} stream could not be read to its end: {damage.broken_off}.")
        return taken

    def frames(self, damage: Damage, report: Progress) -> tuple[np.ndarray, tuple[Fraction, ...]]:
        video, sampling = self.info.video, self.sampling
        if video is None:
            raise MediaError(NO_VIDEO)
        end = min(self.end, video.end)
        if max(self.start, video.start) >= end:
            raise MediaError(f"The video stream lasts from {_s(video.start)} to {_s(video.end)} only.")
        wanted = sample_times(self.start, end, sampling.fps, sampling.max_frames)
        size = sampling.frame_size(video.height, video.width, self.geometry, len(wanted))
        frames, taken = _Frames(len(wanted), size, self.hand_on), list[Fraction]()
        for time, frame in read_frames(self.info, wanted, size, damage, self.counts):
            frames.add(frame)
            taken.append(time)
            report(float((time - self.start) / (end - self.start)))
        self._note_missing_frames(wanted, taken, video)
        step = wanted[1] - wanted[0] if len(wanted) > 1 else frame_spacing(sampling.fps)
        if not taken:
            return _NO_FRAMES, ()
        return frames.end(), _even_times(tuple(time - self.start for time in taken), step)

    def _note_missing_frames(self, wanted: Sequence[Fraction], taken: Sequence[Fraction], video: VideoStream) -> None:
        if not taken and wanted[-1] < video.start:
            self.warnings.append(f"The picture begins at {_s(video.start)}, after the last frame looked for.")
        elif not taken:
            self.warnings.append("None of the video stream could be decoded.")
        elif taken[-1] < wanted[-1]:
            missing = wanted[wanted.index(taken[-1]) + 1]
            self.warnings.append(f"The picture ends before {_s(missing)}, although the file says {_s(video.end)}.")

    def waveform(self, damage: Damage, report: Progress) -> np.ndarray:
        audio = self.info.audio
        if audio is None:
            raise MediaError(NO_AUDIO)
        most = ceil(min(self.end - self.start, Fraction(SOUND_SECONDS)) * SAMPLE_RATE) + 1
        waveform, cancelled = mixed_audio(self.info, self.start, self.end, damage, lambda done: report(done / most))
        heard = self.start + Fraction(len(waveform), SAMPLE_RATE) + damage.gaps_closed
        said = min(audio.end, self.end)
        if not len(waveform):
            raise MediaError(f"There is no sound from {_s(self.start)} to {_s(self.end)}.")
        if cancelled:
            self.warnings.append(CANCELLED_NOTE)
        if heard < said - _EARLY_END:
            self.warnings.append(f"The sound ends at {_s(heard)}, although the file says {_s(said)}.")
        return waveform


class _Frames:
    """Frames as they are taken: held, at most `most` of them, or handed on two by two. Their number is made even."""

    def __init__(self, most: int, size: tuple[int, int], hand_on: Callable[[np.ndarray], None] | None) -> None:
        self._most = 2 if hand_on else most + most % 2  # what a header promises
        self._hand_on, self._size = hand_on, size
        self._frames, self._count = self._room(), 0

    def add(self, frame: np.ndarray) -> None:
        if self._count == len(self._frames):
            self._frames.resize((min(self._most, 2 * self._count), *self._frames.shape[1:]), refcheck=False)
        self._frames[self._count] = frame
        self._count += 1
        if self._hand_on and self._count == 2:
            self._hand_on(self._frames)
            self._frames, self._count = self._room(), 0

    def _room(self) -> np.ndarray:
        return np.empty((min(self._most, _FIRST_FRAMES), *self._size, 3), np.uint8)

    def end(self) -> np.ndarray:
        """Those that are held; the last one is repeated where their number is odd."""
        if self._count % 2:
            self.add(self._frames[self._count - 1])
        return self._frames[: self._count]


def _jump_notes(clock: Clock) -> Iterator[str]:
    """A sentence that the file's timestamps jump, if they do."""
    if clock.jumps:
        first, count = clock.jumps[0], len(clock.jumps)
        often = "once" if count == 1 else f"{count} times, first"
        yield (
            f"The file's clock jumps {often} by {float(first.by):+.6g} s at {_s(first.at)}; "
            "all times given here are on one clock without jumps."
        )


def _s(time: Fraction) -> str:
    return f"{float(time):.6g} s"


def _even_times(times: tuple[Fraction, ...], step: Fraction) -> tuple[Fraction, ...]:
    return (*times, times[-1] + step) if len(times) % 2 else times


def _even(frames: np.ndarray, times: tuple[Fraction, ...], step: Fraction) -> tuple[np.ndarray, tuple[Fraction, ...]]:
    """As many frames as there are times, the last one repeated where that is odd. `frames` has room for it."""
    if not times:
        return _NO_FRAMES, ()
    if len(times) % 2:
        frames[len(times)] = frames[len(times) - 1]
    times = _even_times(times, step)
    return frames[: len(times)], times


def _at_model_size(frames: np.ndarray, times: tuple[Fraction, ...], geometry: Geometry) -> np.ndarray:
    """The frames at the model's size, with room to make their number even."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise UsageError(f"Frames are uint8 of shape (F, H, W, 3), not {frames.dtype} {frames.shape}.")
    if len(times) != len(frames) or times[0] < 0 or any(b <= a for a, b in pairwise(times)):
        raise UsageError(f"{len(frames)} frames need as many rising times from 0 s on.")
    height, width = frames.shape[1:3]
    size = smart_resize(height, width, *geometry.pixel_bounds, geometry.token_pixels)
    sized = np.empty((len(frames) + len(frames) % 2, *size, 3), np.uint8)
    for k, frame in enumerate(frames):
        sized[k] = resize(frame, size)
    return sized


def _array_info(size: tuple[int, ...], times: tuple[Fraction, ...], end: Fraction, sound: np.ndarray) -> MediaInfo:
    """What a file of these frames and this sound would hold."""
    zero, seconds = Fraction(0), Fraction(len(sound), SAMPLE_RATE)
    height, width = size
    video = VideoStream(times[0], end, width, height, 0, None, "rawvideo") if times else None
    audio = AudioStream(zero, seconds, SAMPLE_RATE, 1, "pcm_f32le") if len(sound) else None
    return MediaInfo("arrays", "arrays", max(end, seconds), video, audio)
