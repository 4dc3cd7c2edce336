"""Both encoders: file or clip → EncodedClip. A file's frames are encoded while the next ones are decoded."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omniqa.cache.encodings import EncodingCache
from omniqa.errors import UsageError
from omniqa.media.clip import Clip, stream_clip
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source, path_of
from omniqa.media.summary import ClockJump, MediaSummary
from omniqa.memory import memory_errors
from omniqa.models.base import AttendedSink, GridSink, Model
from omniqa.pipeline.encoded_clip import EncodedClip, PreprocessedClip
from omniqa.pipeline.preprocess import Preparer, Progress, Ready, silent
from omniqa.pipeline.stats import OVERLAPPED, StageClock, reset_device_peak
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.attention import Attention


class _Video:
    """A clip's grids on their way through the vision encoder.

    Args:
        rule: the tokens that it does not keep are freed as they come; None keeps all.
        attended: work out what video tokens receive in the encoder's last block, too.
    """

    def __init__(
        self, model: Model, encoder: Any, reuse_static: float | None, rule: VisionRule | None, attended: bool
    ) -> None:
        self.grids: GridSink
        self.attended: AttendedSink | None = None
        if attended:
            if reuse_static is not None or rule is not None:
                raise UsageError("The method needs every video token to be encoded: it can't reuse static ones.")
            self.grids = self.attended = model.attended_stream(encoder)
        else:
            self.grids = model.vision_stream(encoder, reuse_static, rule, self._take)
        self.rule = rule
        self._keep: list[Tensor] = []
        self._kept: list[Tensor] = []

    @torch.inference_mode()
    def finish(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The tokens that are kept, at least one grid having come.

        Returns:
            Embeddings (m, d), grid after grid; with a rule which tokens (n_V,) bool they are; and what the family adds
            to them in the decoder (k, m, d), if it does.
        """
        rest, added = self.grids.finish(), self.grids.added
        if self.rule is None:
            return rest.flatten(0, 1), None, added
        if len(rest):
            self._take(rest)
        keep = torch.cat(self._keep)
        return torch.cat(self._kept), keep, None if added is None else added[:, keep]

    def attention(self) -> Tensor | None:
        """(n_V,) what the video's tokens receive, once all are encoded; None if it was not asked for."""
        if self.attended is None:
            return None
        received = self.attended.attention
        return torch.zeros(0) if received is None else received  # None: no grid came

    def _take(self, tokens: Tensor, keep: Tensor | None = None) -> None:
        if keep is None:
            assert self.rule is not None
            keep = self.rule.keep(tokens)
            tokens = tokens[keep]
        self._keep.append(keep.flatten())
        self._kept.append(tokens)


class ClipEncoder:
    """Takes clips through the encoders of one model.

    Args:
        reuse_static: tokens whose pixels differ from an earlier grid's by at most so much, in levels of 255, are taken
            from there; None computes them all.
        cache: where encoded clips are kept; None keeps none.
        offload: keep the encoders' weights in the machine's memory but while a clip is encoded.
    """

    def __init__(
        self,
        model: Model,
        attention: Attention,
        reuse_static: float | None,
        cache: EncodingCache | None,
        offload: bool = False,
    ) -> None:
        self.vision = model.vision_encoder(attention)
        self.audio = model.audio_encoder(attention)
        self.reuse_static = reuse_static
        self.preparer = Preparer(model, cache, (model.device.type, attention.name, reuse_static))
        self._model = model
        self._offload = offload
        if offload:
            self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for part in self._model.encoders:
            part.to(device)

    @contextmanager
    def _encoders(self) -> Iterator[None]:
        """A block that runs the encoders."""
        if not self._offload:
            yield
            return
        try:
            self._move(self._model.device)
            yield
        finally:
            self._move(torch.device("cpu"))

    def encode(
        self, ready: Ready, progress: Progress = silent, rule: VisionRule | None = None, attended: bool = False
    ) -> EncodedClip:
        """Encode a clip that is at hand; one that the cache had is brought to the device.

        Args:
            rule: the video tokens that it does not keep are freed as they come.
            attended: work out what video tokens receive in the vision encoder's last block, too.
        """
        device = self._model.device
        reset_device_peak([device])
        if isinstance(ready, EncodedClip):
            return ready.on(device)
        clock, video, frames = StageClock(device), self._video(rule, attended), ready.clip.frames
        if (rule is not None or attended) and ready.key is not None:
            found = self.preparer.find(ready.key, rule, clock, attended)
            if found.media is not None:
                encoded = EncodedClip.of(found.media, ready.name, ready.sampling)
                return encoded.after(ready.timing_s).after(clock.seconds).on(device)
            ready = replace(ready, note=found.warning or ready.note)
        with memory_errors(), self._encoders():
            with clock.stage("vision_encoder"):
                for number, grid in enumerate(_grids(frames, self._model.geometry.temporal_patch)):
                    video.grids.push(grid)
                    progress("vision_encoder", number * len(grid) / len(frames))
            return self._finish(ready, video, clock, progress)

    def encode_file(
        self,
        video: str | Path | Source,
        sampling: ClipOptions,
        progress: Progress = silent,
        rule: VisionRule | None = None,
        attended: bool = False,
    ) -> EncodedClip:
        """Encode a file, its frames as they come, so that few of them are held.

        Args:
            rule, attended: see `encode`.
        """
        looked_up = StageClock(torch.device("cpu"))
        name = str(path_of(video))
        key, found = self.preparer.look_up(video, sampling, looked_up, rule, attended)
        if found.media is not None:
            return self.encode(EncodedClip.of(found.media, name, sampling).after(looked_up.seconds), progress)
        reset_device_peak([self._model.device])
        clock, pictures = StageClock(self._model.device), self._video(rule, attended)
        with memory_errors(), self._encoders():
            clip, seconds = self._stream(video, sampling, pictures.grids, clock, progress)
            looked_up.seconds |= seconds
            if len(clip.grid_times) != pictures.grids.grids:  # what broke off does not count
                pictures = self._video(attended=attended)
            ready = self.preparer.prepared(name, clip, looked_up, key, found.warning)
            return self._finish(replace(ready, sampling=sampling), pictures, clock, progress)

    def _video(self, rule: VisionRule | None = None, attended: bool = False) -> _Video:
        return _Video(self._model, self.vision, self.reuse_static, rule, attended)

    def _stream(
        self,
        video: str | Path | Source,
        sampling: ClipOptions,
        grids: GridSink,
        clock: StageClock,
        progress: Progress,
    ) -> tuple[Clip, dict[str, float]]:
        """Decode a file, its frames going to `grids` as they come: the clip without them, and the seconds of that."""
        begun = time.perf_counter()
        with closing(
            stream_clip(video, sampling, lambda share: progress("decode", share), self._model.geometry)
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

    def _finish(self, ready: PreprocessedClip, video: _Video, clock: StageClock, progress: Progress) -> EncodedClip:
        """What comes once all frames are pushed: the last of them, the sound, and the cache."""
        model, sound, keep, added = self._model, None, None, None
        tokens = torch.empty(0, model.width, device=model.device, dtype=model.dtype)
        with clock.stage("vision_encoder"):
            if video.grids.grids:
                tokens, keep, added = video.finish()
            progress("vision_encoder", 1.0)
        if ready.mel is not None:
            with clock.stage("audio_encoder"):
                sound = self.audio.encode(ready.mel, lambda share: progress("audio_encoder", share))
        encoded = EncodedClip(
            name=ready.name,
            start_s=float(ready.clip.start),
            shape=ready.shape,
            video=tokens,
            audio=sound,
            summary=_summary(ready.clip, video.grids),
            timing_s={},
            rule=None if keep is None else video.rule,
            keep=keep,
            added=added,
            video_attention=video.attention(),
            sampling=ready.sampling,
        )
        return self._kept(encoded, ready, clock)

    def _kept(self, encoded: EncodedClip, ready: PreprocessedClip, clock: StageClock) -> EncodedClip:
        """The clip with its times, and what the cache had to say; written to the cache first.

        A clip that was read with damage, or under any other warning, is not: it would be answered from for ever. Nor is
        one with embeddings that are added in the decoder: an entry has no place for them.
        """
        trouble, cache = None, self.preparer.cache
        if cache is not None and ready.key is not None and ready.clip.undisturbed and encoded.added is None:
            with clock.stage("cache"):
                trouble = cache.add(ready.key, encoded.name, encoded)
        return encoded.warned(ready.note, trouble).after(ready.timing_s).after(clock.seconds)


def _grids(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The frames of one temporal grid after the other."""
    return (frames[number : number + size] for number in range(0, len(frames), size))


def _summary(clip: Clip, grids: GridSink) -> MediaSummary:
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
        tokens_reused=grids.tokens_reused,
        jumps=tuple(ClockJump(float(jump.at), float(jump.by)) for jump in clip.info.clock.jumps),
        hdr=picture.hdr if picture else None,
        pixel_aspect="{}:{}".format(*picture.pixel_aspect.as_integer_ratio()) if picture else None,
        deinterlaced=clip.counts.deinterlaced,
        padded=clip.counts.padded,
        picture_width=picture.width if picture else 0,
        picture_height=picture.height if picture else 0,
    )
