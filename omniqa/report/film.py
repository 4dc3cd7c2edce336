"""What a report shows of a clip: its sampled frames and its log-mel, decoded once more."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniqa.errors import MediaError, UsageError
from omniqa.file_state import file_state
from omniqa.media.clip import Clip, stream_clip
from omniqa.media.mel import log_mel
from omniqa.media.source import Source, path_of
from omniqa.pipeline.answer import Asked
from omniqa.report.pictures import jpeg_within, mel_picture

FRAME_BYTES = 1_300_000  # of all frames together
_MOST_FRAME_BYTES = 24_000

Filmed = str | Path | Source | Clip
_last: dict[tuple[Any, ...], "Film"] = {}


@dataclass(frozen=True)
class Film:
    """Pictures of a clip, each a JPEG.

    Attributes:
        frames: the sampled frames in order, as the model saw them; two for each temporal grid.
        mel: the log-mel of the sound; None without sound.
    """

    frames: tuple[bytes, ...]
    mel: bytes | None


def film(video: Filmed, asked: Asked) -> Film:
    """The frames and the sound that an answer is about. Those of the last file are kept: it may have more questions.

    Args:
        video: the file, which is decoded again, or the `Clip` that was asked about.
        asked: how the clip was taken.

    Raises:
        MediaError: the file can't be used, or holds something else than when it was asked about.
        UsageError: the answer is about a clip that was sampled before, and `video` is a file.
    """
    state = None if isinstance(video, Clip) else file_state(path_of(video))
    if isinstance(video, Clip) or state is None:
        return _film(video, asked)
    key = path_of(video), state, asked.shape, asked.geometry, asked.sampling
    if (kept := _last.get(key)) is None:
        kept = _film(video, asked)
        _last.clear()
        _last[key] = kept
    return kept


def _film(video: Filmed, asked: Asked) -> Film:
    shape = asked.shape
    most = min(_MOST_FRAME_BYTES, FRAME_BYTES // max(1, len(shape.grid_times) * asked.geometry.temporal_patch))
    clip, frames = (video, _small(video.frames, most)) if isinstance(video, Clip) else _decoded(video, asked, most)
    size = tuple(side // asked.geometry.token_pixels for side in clip.frames.shape[1:3])
    if clip.grid_times != shape.grid_times or (shape.grids and size != (shape.rows, shape.cols)):
        raise MediaError(f"{clip.info.path} has changed since it was asked about; ask again for a report.")
    mel = mel_picture(log_mel(clip.waveform)) if shape.audio_tokens and len(clip.waveform) else None
    return Film(tuple(frames) if shape.grids else (), mel)


def _small(frames: Iterable[NDArray[np.uint8]], most: int) -> list[bytes]:
    return [jpeg_within(frame, most) for frame in frames]


def _decoded(video: str | Path | Source, asked: Asked, most: int) -> tuple[Clip, list[bytes]]:
    """The clip without its frames, and these as pictures; two of them are in memory at a time."""
    if asked.sampling is None:
        raise UsageError("This answer is about a clip that was sampled before: give that clip for its report.")
    frames: list[bytes] = []
    with closing(stream_clip(video, asked.sampling, geometry=asked.geometry)) as pieces:
        while True:
            try:
                frames += _small(next(pieces), most)
            except StopIteration as end:
                clip, _ = end.value
                return clip, frames
