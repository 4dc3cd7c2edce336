"""Both encoders: file or clip → EncodedClip. A file's frames are encoded while the next ones are decoded."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omniqa.cache.encodings import EncodingCache
from omniqa.media.clip import Clip, stream_clip
from omniqa.media.sampling import ClipOptions
from omniqa.media.summary import ClockJump, MediaSummary
from omniqa.memory import memory_errors
from omniqa.models.base import Model
from omniqa.models.qwen2_5_omni.passing import PassingGrids
from omniqa.models.qwen2_5_omni.vision import GridStream, VisionEncoder
from omniqa.pipeline.encoded_clip import EncodedClip, PreprocessedClip
from omniqa.pipeline.preprocess import Preparer, Progress, Ready, silent
from omniqa.pipeline.stats import OVERLAPPED, StageClock, reset_device_peak
from omniqa.pruning.contract import ChosenVideo, VideoChoice
from omniqa.runtime.attention import Attention


class _Picture:
    """A clip's grids on their way through the vision encoder.

    choice: of the tokens, those that it does not keep are let go of as they come; None holds all.
    """

    def __init__(self, encoder: VisionEncoder, reuse_static: float | None, choice: VideoChoice | None) -> None:
        self.grids = (
            PassingGrids(encoder, choice.window, self._thin) if choice else GridStream(encoder, still=reuse_static)
        )
        self._choice = choice
        self._keep: list[Tensor] = []
        self._kept: list[Tensor] = []

    @torch.inference_mode()
    def finish(self) -> tuple[Tensor, ChosenVideo | None]:
        """Embeddings (m, d), grid after grid, and which tokens they are, where some were let go of.

        At least one grid came.
        """
        rest = self.grids.finish()
        if self._choice is None:
            return rest.flatten(0, 1), None
        self._thin(rest)
        return torch.cat(self._kept), ChosenVideo(self._choice, torch.cat(self._keep))

    def _thin(self, grids: Tensor) -> None:
        assert self._choice is not None
        keep = self._choice.keep(grids)
        self._keep.append(keep.flatten())
        self._kept.append(grids[keep])


class ClipEncoder:
    """Takes clips through the encoders of one model.

    reuse_static: windows of a frame that differ by at most so much, in levels of 255, are taken from the grid before;
    None computes them all.
    cache: where encoded clips are kept; None keeps none.
    """

    def __init__(
        self, model: Model, attention: Attention, reuse_static: float | None, cache: EncodingCache | None
    ) -> None:
        self.vision = model.vision_encoder(attention)
        self.audio = model.audio_encoder(attention)
        self.reuse_static = reuse_static
        self.preparer = Preparer(model, cache, (model.device.type, attention.name, reuse_static))
        self._model = model

    def encode(self, ready: Ready, progress: Progress = silent) -> EncodedClip:
        """Encode a clip that is at hand; one that the cache had is brought to the device."""
        reset_device_peak(self._model.device)
        if isinstance(ready, EncodedClip):
            return ready.on(self._model.device)
        clock, picture, frames = StageClock(self._model.device), self._picture(), ready.clip.frames
        with memory_errors():
            with clock.stage("vision_encoder"):
                for number, grid in enumerate(_grids(frames, self._model.geometry.temporal_patch)):
                    picture.grids.push(grid)
                    progress("vision_encoder", number * len(grid) / len(frames))
            return self._finish(ready, picture, clock, progress)

    @property
    def may_let_go(self) -> bool:
        """Whether a file's tokens may be let go of while it is encoded: the cache and reuse_static need them all."""
        return self.preparer.cache is None and self.reuse_static is None

    def encode_file(
        self, path: str | Path, sampling: ClipOptions, progress: Progress = silent, choice: VideoChoice | None = None
    ) -> EncodedClip:
        """Encode a file, its frames as they come, so that few of them are held.

        choice: the video tokens that it does not keep are let go of as they come; only where `may_let_go`.
        """
        looked_up = StageClock(torch.device("cpu"))
        key, found = self.preparer.look_up(path, sampling, looked_up)
        if found.media is not None:
            return self.encode(EncodedClip.of(found.media, str(path)).after(looked_up.seconds), progress)
        reset_device_peak(self._model.device)
        clock, picture = StageClock(self._model.device), self._picture(choice)
        with memory_errors():
            clip, seconds = self._stream(path, sampling, picture.grids, clock, progress)
            looked_up.seconds |= seconds
            if len(clip.grid_times) != picture.grids.grids:  # what broke off does not count
                picture = self._picture()
            return self._finish(
                self.preparer.prepared(str(path), clip, looked_up, key, found.warning), picture, clock, progress
            )

    def _picture(self, choice: VideoChoice | None = None) -> _Picture:
        return _Picture(self.vision, self.reuse_static, choice)

    def _stream(
        self, path: str | Path, sampling: ClipOptions, grids: GridStream, clock: StageClock, progress: Progress
    ) -> tuple[Clip, dict[str, float]]:
        """Decode a file, its frames going to `grids` as they come: the clip without them, and the seconds of that."""
        begun = time.perf_counter()
        with closing(
            stream_clip(path, sampling, lambda share: progress("decode", share), self._model.geometry)
        ) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    clip, decoding = end.value
                    break
                with clock.stage("vision_encoder"):
                    grids.push(piece)
        beside = decoding + sum(clock.seconds.values()) - (time.perf_counter() - begun)
        return clip, {"decode": decoding, OVERLAPPED: max(0.0, beside)}

    def _finish(self, ready: PreprocessedClip, picture: _Picture, clock: StageClock, progress: Progress) -> EncodedClip:
        """What comes once all frames are pushed: the last of them, the sound, and the cache."""
        sound, video, chosen = (
            None,
            torch.empty(0, self._model.width, device=self._model.device, dtype=self._model.dtype),
            None,
        )
        with clock.stage("vision_encoder"):
            if picture.grids.grids:
                video, chosen = picture.finish()
            progress("vision_encoder", 1.0)
        if ready.mel is not None:
            with clock.stage("audio_encoder"):
                sound = self.audio.encode(ready.mel, lambda share: progress("audio_encoder", share))
        encoded = EncodedClip(
            name=ready.name,
            start_s=float(ready.clip.start),
            shape=ready.shape,
            video=video,
            audio=sound,
            summary=_summary(ready.clip, picture.grids),
            timing_s={},
            chosen=chosen,
        )
        return self._kept(encoded, ready, clock)

    def _kept(self, encoded: EncodedClip, ready: PreprocessedClip, clock: StageClock) -> EncodedClip:
        """The clip with its times, and what the cache had to say; written to the cache first.

        A clip that was read with damage, or under any other warning, is not: it would be answered from for ever.
        """
        trouble, cache = None, self.preparer.cache
        if cache is not None and ready.key is not None and ready.clip.undisturbed:
            with clock.stage("cache"):
                trouble = cache.add(ready.key, encoded.name, encoded)
        return encoded.warned(ready.note, trouble).after(ready.timing_s).after(clock.seconds)


def _grids(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The frames of one temporal grid after the other."""
    return (frames[number : number + size] for number in range(0, len(frames), size))


def _summary(clip: Clip, grids: GridStream) -> MediaSummary:
    times = clip.frame_times
    picture = clip.info.video if times else None
    return MediaSummary(
        duration_s=float(clip.end - clip.start),
        frames=len(times),
        fps=float(1 / (times[1] - times[0])) if len(times) > 1 else None,
        width=clip.frames.shape[2],
        height=clip.frames.shape[1],
        audio_s=len(clip.waveform) / 16_000,
        warnings=clip.warnings,
        grids=grids.grids,
        grids_reused=grids.grids_reused,
        windows_reused=grids.windows_reused,
        jumps=tuple(ClockJump(float(jump.at), float(jump.by)) for jump in clip.info.clock.jumps),
        hdr=picture.hdr if picture else None,
        pixel_aspect="{}:{}".format(*picture.pixel_aspect.as_integer_ratio()) if picture else None,
        deinterlaced=clip.counts.deinterlaced,
        padded=clip.counts.padded,
    )
