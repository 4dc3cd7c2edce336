"""All that comes before the encoders: file or clip → PreparedClip, or the encoded clip where the cache has it.

Nothing here touches the device, so that another thread may do it meanwhile.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from omniqa.cache.encodings import EncodingCache, Found, clip_key, encoder_identity, file_key
from omniqa.encoded import EncodedVideo, PreparedClip
from omniqa.errors import MediaError
from omniqa.media.clip import SampledClip, sample_clip
from omniqa.media.mel import log_mel
from omniqa.media.sampling import CELL, Sampling
from omniqa.memory import memory_errors
from omniqa.model.audio import token_count
from omniqa.model.thinker import Thinker
from omniqa.sequence.layout import MediaShape
from omniqa.stats import StageClock

Video = str | Path | SampledClip | PreparedClip  # what is not encoded yet
Ready = PreparedClip | EncodedVideo  # what needs no decoding any more
Progress = Callable[[str, float], None]  # gets a stage's name, and the share of it that is done


def silent(stage: str, share: float) -> None:
    """The progress that nobody watches."""


class Preparer:
    """Decodes and looks up clips for one model.

    cache: where encoded clips are kept; None keeps none. settings: what changes encodings beside the weights.
    """

    def __init__(self, thinker: Thinker, cache: EncodingCache | None, settings: tuple[object, ...]) -> None:
        self.cache = cache
        self._thinker = thinker
        self._settings = settings

    def prepare(self, video: str | Path | SampledClip, sampling: Sampling, progress: Progress = silent) -> Ready:
        """The clip before the encoders; the encoded clip itself, on the CPU, where the cache has it."""
        clock = StageClock(torch.device("cpu"))
        with memory_errors():
            key, found = self.look_up(video, sampling, clock)
            if found.video is not None:
                return found.video.after(clock.seconds)
            with clock.stage("decode"):
                clip = video
                if not isinstance(clip, SampledClip):
                    clip = sample_clip(clip, sampling, lambda share: progress("decode", share))
            return prepared(_name(video), clip, clock, key, found.warning)

    def look_up(
        self, video: str | Path | SampledClip, sampling: Sampling, clock: StageClock
    ) -> tuple[str | None, Found]:
        """The video's key in the cache, and what is found there."""
        if self.cache is None:
            return None, Found()
        with clock.stage("cache"):
            key = self._key(video, sampling)
            return key, self.cache.find(key, _name(video)) if key else Found()

    @cached_property
    def _identity(self) -> str:
        """What tells this model's encodings from another's."""
        return encoder_identity((self._thinker.visual, self._thinker.audio_tower), *self._settings)

    def _key(self, video: str | Path | SampledClip, sampling: Sampling) -> str | None:
        """The cache's key; None for what is no file, or can't be read: decoding it tells why."""
        if isinstance(video, SampledClip):
            return clip_key(video, self._identity)
        if not Path(video).is_file():
            return None
        try:
            return file_key(video, sampling, self._identity)
        except OSError:
            return None


def prepared(name: str, clip: SampledClip, clock: StageClock, key: str | None, note: str | None) -> PreparedClip:
    """A clip that was decoded, with its log-mel. clock: what was done so far; the log-mel's time is added."""
    with clock.stage("preprocess"):
        mel = log_mel(clip.waveform) if len(clip.waveform) else None
    shape = _shape(clip, 0 if mel is None else token_count(mel.shape[1]))
    return PreparedClip(name, clip, mel if shape.audio_tokens else None, shape, clock.seconds, key, note)


def _name(video: str | Path | SampledClip) -> str:
    return video.info.path if isinstance(video, SampledClip) else str(video)


def _shape(clip: SampledClip, audio_tokens: int) -> MediaShape:
    if not clip.frame_times and not audio_tokens:
        raise MediaError("The clip is too short: it holds no frame, and less than 40 ms of sound.")
    rows, cols = clip.frames.shape[1] // CELL, clip.frames.shape[2] // CELL
    return MediaShape(grid_times=clip.grid_times, rows=rows, cols=cols, audio_tokens=audio_tokens)
