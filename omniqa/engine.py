"""The one place where the steps are joined: media → sequence → encoders → pruning → decoder → answer."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omniqa.answer import Answer, MediaSummary, Stats, Trace, count_tokens, find_evidence, measure_retention
from omniqa.cache.encodings import EncodingCache, Found, clip_key, encoder_identity, file_key
from omniqa.cache.folder import CACHE_BYTES, CacheFolder
from omniqa.encoded import SHARED_BYTES, EncodedVideo, PreparedClip, Start
from omniqa.errors import MediaError, OutOfMemoryError, UsageError
from omniqa.media.clip import SampledClip, sample_clip, stream_clip
from omniqa.media.mel import log_mel
from omniqa.media.probe import MediaInfo, probe
from omniqa.media.sampling import CELL, PIXELS, Sampling, smart_resize
from omniqa.media.timeline import exact, sample_times
from omniqa.model.attention import select_attention
from omniqa.model.audio import AudioEncoder, token_count
from omniqa.model.cache import KVCache
from omniqa.model.checkpoint import default_model, find_checkpoint, pixel_bounds
from omniqa.model.decoder import Decoder, Prefill, Prompt
from omniqa.model.decoding import Decoding
from omniqa.model.generate import TextStream, generate
from omniqa.model.learned import load_learned
from omniqa.model.thinker import Thinker, load_thinker
from omniqa.model.vision import GridStream, VisionEncoder
from omniqa.pruning import registry
from omniqa.pruning.base import AnyPruner, InputSelection, LearnedPart, MediaTokens
from omniqa.pruning.schedule import ClipTokens
from omniqa.sequence.layout import MediaShape, TokenLayout, build_layout
from omniqa.sequence.units import AUDIO, POSITIONS_PER_SECOND, VIDEO
from omniqa.stats import OVERLAPPED, StageClock, elapsed, peak_device_bytes, peak_rss_bytes, reset_device_peak

DTYPES = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}
STAGES = (
    "load", "cache", "decode", "preprocess", "vision_encoder", "audio_encoder", "input_pruning", "prefill", "generate",
    OVERLAPPED,
)  # fmt: skip

Progress = Callable[[str, float], None]


def _silent(stage: str, share: float) -> None:
    """The progress that nobody watches."""


Video = str | Path | SampledClip | PreparedClip  # what is not encoded yet
Ready = PreparedClip | EncodedVideo  # what needs no decoding any more


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A question after its prefill, ready for its first token."""

    layout: TokenLayout
    result: Prefill
    cache: KVCache


class OmniQA:
    """A loaded model that answers questions about videos. Made by `load`.

    pixels: fewest and most of a frame, where the sampling says nothing else.
    cache: where encoded clips are kept; None keeps none.
    reuse_static: windows of a frame that differ by at most so much, in levels of 255, are taken from the grid before
    (omniqa.model.still); None computes them all.
    """

    def __init__(
        self,
        name: str,
        thinker: Thinker,
        attention: str = "auto",
        load_s: float = 0.0,
        pixels: tuple[int, int] = PIXELS,
        cache: EncodingCache | None = None,
        reuse_static: float | None = None,
    ) -> None:
        if reuse_static is not None and not 0 <= reuse_static <= 255:
            raise UsageError(f"A difference between frames is 0 to 255 levels, not {reuse_static:g}.")
        self.name = name
        self.thinker = thinker
        self.pixels = pixels
        self.cache = cache
        self.reuse_static = reuse_static
        self.attention = select_attention(attention, thinker.device, thinker.dtype)
        self.vision_encoder = VisionEncoder(thinker.visual, self.attention)
        self.audio_encoder = AudioEncoder(thinker.audio_tower, self.attention)
        self.decoder = Decoder(thinker, self.attention)
        self._load_s = load_s  # reported once, with the first answer
        self._learned: dict[LearnedPart, nn.Module] = {}

    def ask(
        self,
        video: Video | EncodedVideo,
        question: str,
        method: str = "omnidrop",
        retention: float = 0.3,
        *,
        options: dict[str, Any] | None = None,
        sampling: Sampling | None = None,
        decoding: Decoding | None = None,
    ) -> Answer:
        """Answer one question about a file, a sampled clip, or a video encoded earlier.

        method, retention, options: how tokens are dropped, see `omniqa.pruning`. sampling: which frames and what
        sound are taken; not allowed for what is sampled already. Raises the errors of omniqa.errors.
        """
        pruner = registry.create(method, retention, **options or {})
        return next(self.ask_all(video, [question], pruner, sampling=sampling, decoding=decoding))

    def ask_all(
        self,
        video: Video | EncodedVideo,
        questions: Sequence[str],
        pruner: AnyPruner,
        *,
        sampling: Sampling | None = None,
        decoding: Decoding | None = None,
        on_text: Callable[[str], None] = lambda text: None,
        progress: Progress = _silent,
        count_encoding: bool = False,
        share: bool = True,
    ) -> Iterator[Answer]:
        """Answer several questions, encoding the video once; the first answer's timing includes that.

        on_text gets every piece of text as it is generated; progress the stage's name and the share that is done.
        count_encoding: the first answer's timing includes that of a video encoded earlier, too.
        share: what the decoder computes before it comes to the question is kept for the next one (up to 1 GiB); False
        asks each afresh.
        """
        if isinstance(video, EncodedVideo):
            if sampling is not None:
                raise UsageError("This video is encoded already: sampling can't change any more.")
            encoded, spent = video, video.timing_s if count_encoding else {}
        else:
            encoded = self._encode_for(pruner, video, sampling, progress)
            spent = encoded.timing_s
        share = share and (encoded is video or len(questions) > 1)
        for question in questions:
            yield self._answer(encoded, question, pruner, decoding or Decoding(), spent, on_text, progress, share)
            spent = {}

    def encode(
        self, video: Video | EncodedVideo, sampling: Sampling | None = None, *, progress: Progress = _silent
    ) -> EncodedVideo:
        """Decode and encode a video once, to ask about it often. Frames of a file are encoded as they come."""
        if not isinstance(video, str | Path):
            return self._encode(self.prepare(video, sampling, progress=progress), progress)
        sampling = (sampling or Sampling()).within(self.pixels)
        clock = StageClock(torch.device("cpu"))
        key, found = self._looked_up(video, sampling, clock)
        if found.video is not None:
            return self._encode(replace(found.video, timing_s=clock.seconds), progress)
        return self._encode_stream(video, sampling, clock, key, found.warning, progress)

    def prepare(
        self, video: Video | EncodedVideo, sampling: Sampling | None = None, *, progress: Progress = _silent
    ) -> Ready:
        """All that comes before the encoders; the encoded clip itself where the cache has it.

        It leaves the device alone: another thread may do it meanwhile.
        """
        if not isinstance(video, str | Path) and sampling is not None:
            raise UsageError("This clip is sampled already: sampling can't change any more.")
        if isinstance(video, Ready):
            return video
        sampling = (sampling or Sampling()).within(self.pixels)
        name = str(video) if isinstance(video, str | Path) else video.info.path
        clock = StageClock(torch.device("cpu"))
        with _memory_errors():
            key, found = self._looked_up(video, sampling, clock)
            if found.video is not None:
                return replace(found.video, timing_s=clock.seconds)
            with clock.stage("decode"):
                clip = self._sampled_clip(video, sampling, lambda share: progress("decode", share))
            with clock.stage("preprocess"):
                mel = log_mel(clip.waveform) if len(clip.waveform) else None
        shape = _shape(clip, 0 if mel is None else token_count(mel.shape[1]))
        return PreparedClip(name, clip, mel if shape.audio_tokens else None, shape, clock.seconds, key, found.warning)

    def _looked_up(
        self, video: str | Path | SampledClip, sampling: Sampling, clock: StageClock
    ) -> tuple[str | None, Found]:
        """The video's key in the cache, and what is found there."""
        if self.cache is None:
            return None, Found()
        with clock.stage("cache"):
            key = self._key(video, sampling)
            name = str(video) if isinstance(video, str | Path) else video.info.path
            return key, self.cache.find(key, name) if key else Found()

    def _encode_for(
        self, pruner: AnyPruner, video: Video, sampling: Sampling | None, progress: Progress
    ) -> EncodedVideo:
        if isinstance(video, str | Path) and self._will_serve(pruner, video, sampling or Sampling()):
            return self.encode(video, sampling, progress=progress)
        prepared = self.prepare(video, sampling, progress=progress)
        shape = prepared.shape
        # What the method refuses, it refuses before the long part.
        pruner.plan(ClipTokens(shape.audio_tokens, shape.grids, shape.hw), self.thinker.layers)
        self._learned_part(pruner)
        return self._encode(prepared, progress)

    def _will_serve(self, pruner: AnyPruner, video: str | Path, sampling: Sampling) -> bool:
        """Whether the method can serve what the file says that it holds. Where not, what it really holds decides."""
        info = probe(video, sampling.access)
        try:
            pruner.plan(expected_tokens(info, sampling.within(self.pixels)), self.thinker.layers)
        except UsageError:
            return False
        self._learned_part(pruner)
        return True

    def _sampled_clip(
        self, video: str | Path | SampledClip, sampling: Sampling, progress: Callable[[float], None]
    ) -> SampledClip:
        return video if isinstance(video, SampledClip) else sample_clip(video, sampling, progress)

    @cached_property
    def _identity(self) -> str:
        """What tells this model's encodings from another's."""
        thinker = self.thinker
        settings = (thinker.device.type, self.attention.name, self.reuse_static)
        return encoder_identity((thinker.visual, thinker.audio_tower), *settings)

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

    def _encode(self, prepared: Ready, progress: Progress) -> EncodedVideo:
        device = self.thinker.device
        reset_device_peak(device)
        if isinstance(prepared, EncodedVideo):
            return prepared.on(device)
        clip, clock, sound = prepared.clip, StageClock(device), None
        grids = GridStream(self.vision_encoder, self.reuse_static)
        with _memory_errors():
            with clock.stage("vision_encoder"):
                for number in range(0, len(clip.frames), 2):
                    grids.push(clip.frames[number : number + 2])
                    progress("vision_encoder", number / len(clip.frames))
                frames = self._finished(grids)
                progress("vision_encoder", 1.0)
            if prepared.mel is not None:
                with clock.stage("audio_encoder"):
                    sound = self.audio_encoder.encode(prepared.mel, lambda share: progress("audio_encoder", share))
        encoded = EncodedVideo(
            name=prepared.name,
            start_s=float(clip.start),
            shape=prepared.shape,
            video=frames,
            audio=sound,
            summary=_summary(clip, grids),
            timing_s={},
        )
        return self._kept(encoded, prepared.key, prepared.note, prepared.timing_s, clock)

    def _encode_stream(
        self,
        video: str | Path,
        sampling: Sampling,
        looked_up: StageClock,
        key: str | None,
        note: str | None,
        progress: Progress,
    ) -> EncodedVideo:
        """Encode a file's frames while the next ones are decoded, so that few of them are held."""
        device = self.thinker.device
        reset_device_peak(device)
        clock, sound, begun = StageClock(device), None, time.perf_counter()
        grids = GridStream(self.vision_encoder, self.reuse_static)
        with _memory_errors():
            pieces = stream_clip(video, sampling, lambda share: progress("decode", share))
            with closing(pieces):
                while True:
                    try:
                        piece = next(pieces)
                    except StopIteration as end:
                        clip, decoding = end.value
                        break
                    with clock.stage("vision_encoder"):
                        grids.push(piece)
            if len(clip.grid_times) != grids.grids:  # what broke off does not count
                grids = GridStream(self.vision_encoder)
            with clock.stage("vision_encoder"):
                frames = self._finished(grids)
            with clock.stage("preprocess"):
                mel = log_mel(clip.waveform) if len(clip.waveform) else None
            shape = _shape(clip, 0 if mel is None else token_count(mel.shape[1]))
            if mel is not None and shape.audio_tokens:
                with clock.stage("audio_encoder"):
                    sound = self.audio_encoder.encode(mel, lambda share: progress("audio_encoder", share))
        encoded = EncodedVideo(str(video), float(clip.start), shape, frames, sound, _summary(clip, grids), {})
        busy = looked_up.seconds | {"decode": decoding}
        beside = decoding + sum(clock.seconds.values()) - (time.perf_counter() - begun)
        return self._kept(encoded, key, note, busy | {OVERLAPPED: max(0.0, beside)}, clock)

    def _finished(self, grids: GridStream) -> Tensor:
        """Embeddings (n_V, d) of all grids."""
        if not grids.grids:
            weight = self.thinker.lm_head.weight
            return weight.new_empty(0, weight.shape[1])
        return grids.finish().flatten(0, 1)

    def _kept(
        self, encoded: EncodedVideo, key: str | None, note: str | None, seconds: dict[str, float], clock: StageClock
    ) -> EncodedVideo:
        """The clip with its times, and what the cache had to say; written to the cache first."""
        trouble = None
        if self.cache is not None and key is not None:
            with clock.stage("cache"):
                trouble = self.cache.add(key, encoded)
        warnings = [*encoded.summary.warnings, *(warning for warning in (note, trouble) if warning is not None)]
        total = {stage: seconds.get(stage, 0.0) + clock.seconds.get(stage, 0.0) for stage in seconds | clock.seconds}
        return replace(encoded, summary=replace(encoded.summary, warnings=tuple(warnings)), timing_s=total)

    def prefill(
        self,
        video: EncodedVideo,
        question: str,
        pruner: AnyPruner,
        room: int = 0,
        clock: StageClock | None = None,
        progress: Progress = _silent,
        share: bool = False,
    ) -> Prefilled:
        """Run the prompt through the decoder, pruning as it goes; leave room for `room` more tokens.

        share: start from what an earlier question about this video left, and leave as much for the next.

        Raises UsageError for an empty question, and where the method can't serve this clip, model or retention.
        """
        if not question.strip():
            raise UsageError("The question is empty.")
        clock = clock or StageClock(self.thinker.device)
        with _memory_errors(), torch.inference_mode():
            layout = build_layout(self.thinker.template, video.shape, question)
            with clock.stage("input_pruning"):
                tokens = self._media_tokens(video, layout, pruner)
                start = video.shared.of(pruner) if share else None
                plan = start.plan if start else pruner.plan(tokens.counts, self.thinker.layers)
                selection = start.selection if start else pruner.select_input(tokens, plan)
            cache = KVCache(self.thinker.layers, room)
            with clock.stage("prefill"):
                result = self.decoder.prefill(
                    self._prompt(layout, tokens, selection),
                    pruner,
                    plan,
                    cache,
                    lambda done: progress("prefill", done),
                    start.rows if start else None,
                    SHARED_BYTES if share else 0,
                )
            if share:
                video.shared.keep(pruner, Start(plan, selection, result.shared))
        return Prefilled(layout, result, cache)

    def _answer(
        self,
        video: EncodedVideo,
        question: str,
        pruner: AnyPruner,
        decoding: Decoding,
        spent: dict[str, float],
        on_text: Callable[[str], None],
        progress: Progress,
        share: bool,
    ) -> Answer:
        device = self.thinker.device
        if not spent:
            reset_device_peak(device)
        clock = StageClock(device)
        asked = time.perf_counter()
        prefilled = self.prefill(video, question, pruner, decoding.max_new_tokens, clock, progress, share)
        with _memory_errors(), clock.stage("generate"):
            ids, text, first = self._generate(prefilled, decoding, on_text)
        ended = time.perf_counter()

        encoding, load = elapsed(spent), self._load_s
        self._load_s = 0.0
        timing = {stage: (spent | clock.seconds).get(stage, 0.0) for stage in STAGES} | {"load": load}
        timing["time_to_first_token"] = encoding + first - asked
        timing["total"] = load + encoding + ended - asked
        trace = _trace(prefilled)
        return Answer(
            video=video.name,
            question=question,
            text=text,
            model=self.name,
            method=pruner.name,
            token_ids=tuple(ids),
            retention=measure_retention(pruner.target, trace),
            evidence=find_evidence(trace, prefilled.result.attended.cpu().numpy(), video.start_s, video.summary),
            stats=Stats(
                tokens=count_tokens(trace, text=len(prefilled.layout.ids) - len(trace.modality), generated=len(ids)),
                timing_s=timing,
                device=str(device),
                peak_rss_bytes=peak_rss_bytes(),
                peak_device_bytes=peak_device_bytes(device),
                media=video.summary,
            ),
            trace=trace,
        )

    def _media_tokens(self, video: EncodedVideo, layout: TokenLayout, pruner: AnyPruner) -> MediaTokens:
        device, media = self.thinker.device, layout.media
        return MediaTokens(
            modality=torch.from_numpy(layout.modality[media]).to(device),
            chunk=torch.from_numpy(layout.chunk[media]).to(device),
            hw=video.shape.hw,
            video=video.video,
            audio=video.audio.embeddings if video.audio else video.video.new_empty(0, video.video.shape[1]),
            audio_importance=video.audio_importance(pruner.audio_importance),
            time_s=torch.from_numpy(layout.time_s[media]),
            learned=self._learned_part(pruner),
        )

    def _learned_part(self, pruner: AnyPruner) -> nn.Module | None:
        """The method's own network, read when it is first needed. Raises ModelError where there is none that fits."""
        part = pruner.learned
        if part is None:
            return None
        if part not in self._learned:
            weight = self.thinker.lm_head.weight
            self._learned[part] = load_learned(part, self.thinker.checkpoint, weight.shape[1], weight.device)
        return self._learned[part]

    def _prompt(self, layout: TokenLayout, tokens: MediaTokens, selection: InputSelection) -> Prompt:
        """The sequence that enters layer 0: all text, and the audio and video tokens that were selected."""
        device, media = self.thinker.device, layout.media
        keep = selection.keep
        embeddings = selection.embeddings
        if embeddings is None:
            whole = tokens.video.new_empty(len(tokens.modality), tokens.video.shape[1])
            whole[tokens.modality == VIDEO], whole[tokens.modality == AUDIO] = tokens.video, tokens.audio
            embeddings = whole[keep]
        ids = torch.from_numpy(layout.ids).to(device)
        head, tail = self.decoder.embed(ids[: media.start]), self.decoder.embed(ids[media.stop :])
        places = torch.arange(len(ids), device=device)
        places = torch.cat([places[: media.start], media.start + keep, places[media.stop :]])
        return Prompt(
            embeddings=torch.cat([head, embeddings, tail]),
            positions=torch.from_numpy(layout.positions).to(device)[:, places],
            media=slice(media.start, media.start + len(keep)),
            question=torch.arange(layout.question.start, layout.question.stop, device=device) - len(ids),
            index=keep,
            modality=tokens.modality,
            chunk=tokens.chunk,
            max_chunk=int(layout.chunk.max()),
        )

    def _generate(
        self, prefilled: Prefilled, decoding: Decoding, on_text: Callable[[str], None]
    ) -> tuple[list[int], str, float]:
        """Token ids, text, and when the first token was chosen."""
        stream = TextStream(lambda ids: self.thinker.tokenizer.decode(ids, skip_special_tokens=True))
        logits, position = prefilled.result.logits, prefilled.layout.next_position
        ids: list[int] = []
        pieces: list[str] = []
        first = None
        for token in generate(self.decoder, logits, position, prefilled.cache, decoding, self.thinker.eos):
            first = first or time.perf_counter()
            ids.append(token)
            pieces.append(stream.push(token))
            on_text(pieces[-1])
        pieces.append(stream.close())
        on_text(pieces[-1])
        return ids, "".join(pieces).strip(), first or time.perf_counter()


def load(
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    *,
    cache: str | Path | None = None,
    cache_bytes: int = CACHE_BYTES,
    reuse_static: float | None = None,
) -> OmniQA:
    """Load a model.

    model: a folder, a hub id, or "nano", which comes with the package; None takes the 7B on a GPU that fits it, else
    the 3B.
    device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", …. dtype: "auto" (as stored), "bfloat16" or
    "float32". attention: "auto", "flash" or "sdpa".
    cache: a folder where encoded clips are kept for other runs, cache_bytes of them at most; None keeps none.
    reuse_static: 0 to 255, see OmniQA.
    Raises ModelError, OutOfMemoryError, and UsageError for values that make no sense here.
    """
    start = time.perf_counter()
    if dtype not in DTYPES:
        raise UsageError(f"There is no dtype {dtype!r}: use {', '.join(DTYPES)}.")
    where = _device(device)
    gpu = torch.cuda.get_device_properties(where).total_memory if where.type == "cuda" else None
    checkpoint = find_checkpoint(model or default_model(gpu))
    with _memory_errors():
        thinker = load_thinker(checkpoint, where, DTYPES[dtype])
    pixels = pixel_bounds(checkpoint.name)
    kept = None if cache is None else EncodingCache(CacheFolder(Path(cache), cache_bytes))
    return OmniQA(checkpoint.name, thinker, attention, time.perf_counter() - start, pixels, kept, reuse_static)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device {name!r}: use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device can be used here (see `omniqa doctor`). Use --device cpu.")
    return device


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn every way of running out of memory into OutOfMemoryError."""
    advice = "Use a lower --retention, --max-frames or --max-pixels, or a smaller model."
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"The device ran out of memory. {advice}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"The machine ran out of memory. {advice}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no type of its own for this on the CPU
            raise
        raise OutOfMemoryError(f"The machine ran out of memory. {advice}") from error


def _shape(clip: SampledClip, audio_tokens: int) -> MediaShape:
    if not clip.frame_times and not audio_tokens:
        raise MediaError("The clip is too short: it holds no frame, and less than 40 ms of sound.")
    rows, cols = clip.frames.shape[1] // CELL, clip.frames.shape[2] // CELL
    return MediaShape(grid_times=clip.grid_times, rows=rows, cols=cols, audio_tokens=audio_tokens)


def expected_tokens(info: MediaInfo, sampling: Sampling) -> ClipTokens:
    """How many tokens a file will have, if it holds what it says."""
    grids = hw = audio = 0
    start = exact(sampling.start)
    end = info.duration if sampling.end is None else min(info.duration, exact(sampling.end))
    if sampling.video and info.video and min(end, info.video.end) > start:
        times = sample_times(start, min(end, info.video.end), sampling.fps, sampling.max_frames)
        rows, cols = smart_resize(info.video.height, info.video.width, *sampling.pixels(PIXELS))
        grids, hw = -(-len(times) // 2), rows * cols // CELL**2
    if sampling.audio and info.audio:
        audio = max(0, int(POSITIONS_PER_SECOND * (min(end, info.audio.end) - start)))
    return ClipTokens(audio, grids, hw)


def _summary(clip: SampledClip, grids: GridStream) -> MediaSummary:
    times = clip.frame_times
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
    )


def _trace(prefilled: Prefilled) -> Trace:
    layout, result = prefilled.layout, prefilled.result
    media = layout.media
    alive = np.zeros((len(result.alive), media.stop - media.start), dtype=bool)
    score = np.full(alive.shape, np.nan, dtype=np.float32)
    for layer, (index, scores) in enumerate(zip(result.alive, result.scores, strict=True)):
        at = index.cpu().numpy()
        alive[layer, at] = True
        if scores is not None:
            score[layer, at] = scores.cpu().numpy()
    return Trace(layout.modality[media], layout.chunk[media], layout.time_s[media], alive, score)
