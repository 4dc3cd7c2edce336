"""All that comes before the encoders: file or clip → PreprocessedClip, or the encoded clip where the cache has it.

Nothing here touches the device, so that another thread may do it meanwhile.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from omniqa.cache.encodings import DTYPES, EncodingCache, Found, clip_key, encoder_identity, file_key
from omniqa.cache.entry import Form
from omniqa.errors import MediaError, UsageError
from omniqa.file_state import FileState, file_state
from omniqa.media.clip import Clip, sample
from omniqa.media.mel import log_mel
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source, path_of
from omniqa.memory import is_out_of_memory, memory_errors
from omniqa.models.base import Geometry, MediaShape, Model
from omniqa.pipeline.encoded_clip import EncodedClip, PreprocessedClip
from omniqa.pipeline.stats import StageClock
from omniqa.pruning.vision_rule import VisionRule

Video = str | Path | Source | Clip | PreprocessedClip  # what is not encoded yet
Ready = PreprocessedClip | EncodedClip  # what needs no decoding any more
Progress = Callable[[str, float], None]  # gets a stage's name, and the share of it that is done


def silent(stage: str, share: float) -> None:
    """The progress that nobody watches."""


class Key(NamedTuple):
    """What a clip is kept under in the cache.

    Attributes:
        path, file: the file that it was made of, and how that was before; None for arrays.
    """

    text: str
    path: str | Path | None = None
    file: FileState | None = None

    @property
    def holds(self) -> bool:
        """Whether the file has not changed since: what is decoded of it is what the key was made of."""
        return self.path is None or file_state(self.path) == self.file


class Preparer:
    """Decodes and looks up clips for one model.

    Args:
        cache: where encoded clips are kept; None keeps none.
        settings: what changes encodings beside the weights.
    """

    def __init__(self, model: Model, cache: EncodingCache | None, settings: tuple[object, ...]) -> None:
        self.cache = cache
        self._model = model
        self._settings = settings

    def prepare(
        self,
        video: str | Path | Source | Clip,
        sampling: ClipOptions,
        progress: Progress = silent,
        attended: bool = False,
        decode: bool = False,
    ) -> Ready:
        """The clip before the encoders; the encoded clip itself, on the CPU, where the cache has it.

        Args:
            attended: only if that has the attention which its video tokens receive.
            decode: decode it even then.
        """
        clock = StageClock(torch.device("cpu"))
        with memory_errors():
            key, found = self.look_up(video, sampling, clock, attended=attended)
            if found.media is not None and not decode:
                taken = None if isinstance(video, Clip) else sampling
                return EncodedClip.of(found.media, _name(video), taken).after(clock.seconds)
            with clock.stage("decode"):
                clip = video
                if not isinstance(clip, Clip):
                    clip = sample(clip, sampling, lambda share: progress("decode", share), self._model.geometry)
            if isinstance(video, Source):
                clock.seconds["decode"] += video.seconds
            prepared = self.prepared(_name(video), clip, clock, key, found.warning)
            return prepared if isinstance(video, Clip) else replace(prepared, sampling=sampling)

    def look_up(
        self,
        video: str | Path | Source | Clip,
        sampling: ClipOptions,
        clock: StageClock,
        rule: VisionRule | None = None,
        attended: bool = False,
    ) -> tuple[Key | None, Found]:
        """The video's key in the cache, and what is found there; see `find`. Raises OutOfMemoryError."""
        if self.cache is None:
            return None, Found()
        with clock.stage("cache"), memory_errors():
            key = self._key(video, sampling)
        return key, self.find(key.text, rule, clock, attended) if key else Found()

    def find(self, key: str, rule: VisionRule | None, clock: StageClock, attended: bool = False) -> Found:
        """What the cache has under this key, pruned by `rule`, with the video's attention if `attended`.

        Raises:
            OutOfMemoryError: there is no memory for it.
        """
        if self.cache is None:
            return Found()
        with clock.stage("cache"), memory_errors():
            return self.cache.find(key, self._form, rule, attended)

    def prepared(self, name: str, clip: Clip, clock: StageClock, key: Key | None, note: str | None) -> PreprocessedClip:
        """A clip that was decoded, with its log-mel. clock: what was done so far; the log-mel's time is added."""
        with clock.stage("preprocess"):
            mel = log_mel(clip.waveform) if len(clip.waveform) else None
        audio_tokens = 0 if mel is None else self._model.count_audio_tokens(mel.shape[1])
        shape = _shape(clip, audio_tokens, self._model.geometry)
        kept_as = key.text if key and key.holds else None
        return PreprocessedClip(name, clip, mel if audio_tokens else None, shape, clock.seconds, kept_as, note)

    @cached_property
    def _identity(self) -> str:
        """What tells this model's encodings from another's."""
        return encoder_identity(self._model.encoders, *self._settings)

    @cached_property
    def _form(self) -> Form:
        """What this model's encodings look like."""
        return Form(DTYPES[self._model.dtype], self._model.width, *self._model.audio_form)

    def _key(self, video: str | Path | Source | Clip, sampling: ClipOptions) -> Key | None:
        """The cache's key; None for what is no file, or can't be read: decoding it tells why."""
        if isinstance(video, Clip):
            return Key(clip_key(video, self._identity))
        path = path_of(video)
        file = file_state(path)
        if file is None:
            return None
        try:
            return Key(file_key(path, sampling, self._identity), path, file)
        except OSError as error:
            if is_out_of_memory(error):
                raise
            return None


def _name(video: str | Path | Source | Clip) -> str:
    return video.info.path if isinstance(video, Clip | Source) else str(video)


def _shape(clip: Clip, audio_tokens: int, geometry: Geometry) -> MediaShape:
    token_pixels = geometry.token_pixels
    if not clip.frame_times and not audio_tokens:
        least = 1000 // geometry.audio_tokens_per_second
        raise MediaError(f"The clip is too short: it holds no frame, and less than {least} ms of sound.")
    height, width = clip.frames.shape[1:3]
    if height % token_pixels or width % token_pixels:
        raise UsageError(
            f"Frames of {width}x{height} pixels were sampled for another model: sides are multiples of {token_pixels} "
            "here. Sample the clip with this model's geometry."
        )
    rows, cols = height // token_pixels, width // token_pixels
    return MediaShape(grid_times=clip.grid_times, rows=rows, cols=cols, audio_tokens=audio_tokens)
