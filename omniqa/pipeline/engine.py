"""The one place where the steps are joined, from a file to an answer; and loading a model."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.cache.folder import CACHE_BYTES, CacheFolder
from omniqa.cache.weights import WeightsCache
from omniqa.cache.weights_file import weights_folder
from omniqa.errors import UsageError, first_line
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source
from omniqa.memory import memory_errors
from omniqa.models.base import OWN_SYSTEM_TEXT, Model, PromptText, Turn, check_length
from omniqa.models.disk import require_disk
from omniqa.models.families import ModelShape, find_checkpoint, load_model, stored_dtype
from omniqa.models.generate import TextStream, generate
from omniqa.pipeline.answer import (
    Answer,
    Asked,
    Stats,
    count_tokens,
    find_evidence,
    measure_gain,
    measure_retention,
)
from omniqa.pipeline.conversation import Conversation, drained
from omniqa.pipeline.encode import ClipEncoder
from omniqa.pipeline.encode_for import MethodEncoder
from omniqa.pipeline.encoded_clip import EncodedClip
from omniqa.pipeline.fit import ModelRequest, choose, layer_counts, require_weights, weight_bytes
from omniqa.pipeline.prefill import Prefilled, PrefillStage
from omniqa.pipeline.preprocess import Progress, Ready, Video, silent
from omniqa.pipeline.stats import OVERLAPPED, StageClock, elapsed, peak_device_bytes, peak_rss_bytes, reset_device_peak
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime import machine
from omniqa.runtime.attention import select_attention
from omniqa.runtime.device import check_device, check_dtype, check_offload, check_quantize, devices_of
from omniqa.runtime.generation_options import GenerationOptions
from omniqa.runtime.quantize import scheme_of

_DTYPES = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}
STAGES = (
    "import", "load", "cache", "decode", "preprocess", "vision_encoder", "audio_encoder", "input_pruning", "prefill",
    "generate", OVERLAPPED,
)  # fmt: skip


class OmniQA:
    """A loaded model that answers questions about videos. Made by `load`.

    encoder and prefiller are the steps on their own.

    Attributes:
        cache: where encoded clips are kept; None keeps none.
        reuse_static: video tokens whose pixels differ from an earlier grid's by at most so much, in levels of 255, are
            taken from there; None computes them all.
        notes: sentences for the user about how it was loaded.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        attention: str = "auto",
        load_s: float = 0.0,
        cache: EncodingCache | None = None,
        reuse_static: float | None = None,
        offload: str | None = None,
    ) -> None:
        if reuse_static is not None and not 0 <= reuse_static <= 255:
            raise UsageError(
                f"A difference between frames is 0 to 255 levels, not {reuse_static:g}.", field="reuse_static"
            )
        self.name = name
        self.model = model
        self.attention = select_attention(attention, model.device, model.dtype)
        self.encoder = ClipEncoder(model, self.attention, reuse_static, cache, offload == "encoders")
        self.vision_encoder, self.audio_encoder = self.encoder.vision, self.encoder.audio
        self.decoder = model.decoder_stack(self.attention)
        self.prefiller = PrefillStage(model, self.decoder)
        self._by_method = MethodEncoder(model, self.encoder, self.prefiller)
        self.notes: tuple[str, ...] = ()
        self._startup = {"load": load_s}  # seconds, reported once, with the first answer

    @property
    def devices(self) -> list[torch.device]:
        """Where it runs: the model's device, and those of its decoder's layers that are others."""
        return [*dict.fromkeys([self.model.device, *self.decoder.devices])]

    @property
    def pixels(self) -> tuple[int, int]:
        """Fewest and most of a frame, if the clip's options say nothing else."""
        return self.model.geometry.pixel_bounds

    def count_import(self, seconds: float) -> None:
        """Report also, with the first answer, how long importing what the model needs took."""
        self._startup["import"] = seconds

    def __repr__(self) -> str:
        devices = ",".join(map(str, self.devices))
        return f"<OmniQA {self.name!r} on {devices}, {str(self.model.dtype).removeprefix('torch.')}>"

    def ask(
        self,
        video: Video | EncodedClip,
        question: str | PromptText,
        method: str | AnyMethod = "omnidrop",
        retention: float | None = None,
        *,
        options: dict[str, Any] | None = None,
        sampling: ClipOptions | None = None,
        decoding: GenerationOptions | None = None,
    ) -> Answer:
        """Answer one question about a file, a sampled clip, or a video encoded earlier.

        Args:
            video: a path, an address (with `sampling.allow_network`), a `Clip` or an `EncodedClip`.
            question: at most 20,000 characters; a `PromptText` also says what stands in front of the media.
            method: a name of `omniqa methods`, `FILE.py:Class`, or an instance with its own retention and options.
            retention: R, the mean share of audio and video tokens that the decoder's layers compute. Default: 0.3.
            options: the method's, by name.
            sampling: which frames and what sound are taken; not allowed for a video that is sampled already.
            decoding: how many tokens are generated, and how each is chosen.

        Raises:
            OmniqaError: one of omniqa.errors, each with the command line's exit code.
        """
        pruner = registry.resolve(method, retention, options)
        return next(self.ask_all(video, [question], pruner, sampling=sampling, decoding=decoding))

    def ask_all(
        self,
        video: Video | EncodedClip,
        questions: Sequence[str | PromptText],
        method: str | AnyMethod = "omnidrop",
        *,
        sampling: ClipOptions | None = None,
        decoding: GenerationOptions | None = None,
        on_text: Callable[[str], None] = lambda text: None,
        progress: Progress = silent,
        count_encoding: bool = False,
        reuse_prefix: bool = True,
    ) -> Iterator[Answer]:
        """Answer several questions, encoding the video once; the first answer's timing includes that.

        Args:
            video: as for `ask`.
            questions: one answer each, in this order.
            method: a name, which is asked at R = 0.3, or an instance.
            sampling: as for `ask`.
            decoding: as for `ask`.
            on_text: gets every piece of text as it is generated.
            progress: gets a stage's name and the share of it that is done.
            count_encoding: the first answer's timing includes that of a video encoded earlier, too.
            reuse_prefix: keep what the decoder computes before the question for the next one, up to 1 GiB.

        Yields:
            The answers.
        """
        pruner = registry.resolve(method)
        for question in questions:
            check_length(question)
        encoded = self._encoded(video, sampling, pruner, progress)
        spent = encoded.timing_s if count_encoding or encoded is not video else {}
        reuse_prefix = reuse_prefix and (encoded is video or len(questions) > 1)
        decoding = decoding or GenerationOptions()
        for question in questions:
            pieces = self.stream(encoded, question, pruner, decoding, spent, progress, reuse_prefix)
            yield drained(pieces, on_text)
            spent = {}

    def chat(
        self,
        video: Video | EncodedClip,
        method: str | AnyMethod = "omnidrop",
        retention: float | None = None,
        *,
        options: dict[str, Any] | None = None,
        sampling: ClipOptions | None = None,
        decoding: GenerationOptions | None = None,
        system: str | None = OWN_SYSTEM_TEXT,
        turns: Sequence[Turn] = (),
    ) -> Conversation:
        """Begin a conversation about one clip: each question is asked after those before it and their answers.

        The clip is encoded at the first question, and only once.

        Args:
            video: as for `ask`.
            method: as for `ask`; each question may name another.
            retention: as for `ask`.
            options: as for `ask`.
            sampling: as for `ask`.
            decoding: as for `ask`.
            system: the system message, in which "{own}" stands for the model's own.
            turns: what was asked and answered before, oldest first.
        """
        pruner = registry.resolve(method, retention, options)
        return Conversation(self, video, pruner, sampling=sampling, decoding=decoding, system=system, turns=list(turns))

    def prefill(
        self,
        video: Video | EncodedClip,
        question: str,
        method: str | AnyMethod = "omnidrop",
        retention: float | None = None,
        *,
        options: dict[str, Any] | None = None,
        sampling: ClipOptions | None = None,
    ) -> Prefilled:
        """Run a question through the decoder up to the answer's first token, without generating any.

        Args:
            video: as for `ask`.
            question: as for `ask`.
            method: as for `ask`.
            retention: as for `ask`.
            options: as for `ask`.
            sampling: as for `ask`.

        Returns:
            The logits of the first token, the prompt's ids and positions, and the trace.

        Raises:
            OmniqaError: as `ask` does.
        """
        check_length(question)
        pruner = registry.resolve(method, retention, options)
        return self.prefiller.prefill(self._encoded(video, sampling, pruner), question, pruner)

    def _encoded(
        self,
        video: Video | EncodedClip,
        sampling: ClipOptions | None,
        method: AnyMethod,
        progress: Progress = silent,
    ) -> EncodedClip:
        """The video encoded to be asked by one method; as it is, if it is encoded already."""
        if not isinstance(video, EncodedClip):
            return self.encode(video, sampling, method=method, progress=progress)
        if sampling is not None:
            raise UsageError("This video is encoded already: sampling can't change any more.")
        return video

    def encode(
        self,
        video: Video | EncodedClip,
        sampling: ClipOptions | None = None,
        *,
        method: AnyMethod | None = None,
        attended: bool = False,
        progress: Progress = silent,
    ) -> EncodedClip:
        """Decode and encode a video once, to ask about it often. Frames of a file are encoded as they come.

        Args:
            video: a path, an address (with `sampling.allow_network`), or a clip that is not encoded yet.
            sampling: as for `ask`.
            method: the one that will be asked by. A long clip is then pruned while it is encoded, and may serve no
                other; None serves all that do not need `VisionAttention`.
            attended: serve these, too (`needs_attended` says which do).
            progress: as for `ask_all`.
        """
        if method is not None and not isinstance(video, EncodedClip):
            return self._by_method.encode(method, video, sampling, progress)
        if not isinstance(video, str | Path | Source):
            ready = self.prepare(video, sampling, attended=attended, progress=progress)
            return self.encoder.encode(ready, progress, attended=attended)
        taken = (sampling or ClipOptions()).within(self.pixels)
        return self.encoder.encode_file(video, taken, progress, attended=attended)

    def prepare(
        self,
        video: Video | EncodedClip,
        sampling: ClipOptions | None = None,
        *,
        attended: bool = False,
        progress: Progress = silent,
        decode: bool = False,
    ) -> Ready:
        """All that comes before the encoders; the encoded clip itself, with all tokens, where the cache has it.

        It leaves the device alone: another thread may do it meanwhile.

        Args:
            video: as for `ask`.
            sampling: as for `ask`.
            progress: as for `ask_all`.
            attended: serve methods that need `VisionAttention`, too.
            decode: decode it even if the cache has it with all tokens.

        Raises:
            UsageError: the video is of another type, such as a list.
        """
        return self._by_method.prepare(video, sampling, progress, attended=attended, decode=decode)

    def serves(self, ready: Ready, method: AnyMethod) -> bool:
        """Whether the method can be asked by about a clip without encoding it again.

        Raises:
            UsageError: the method can't serve a clip of so many tokens.
        """
        return self._by_method.serves(ready, method)

    def early_rule(self, method: AnyMethod, clip: ClipTokens) -> VisionRule | None:
        """The rule by which the method prunes inside the vision encoder; None: an encoding with all tokens serves it.

        Raises:
            UsageError: the method can't serve a clip of so many tokens, or the encoder lacks the rule's block.
        """
        return self._by_method.early_rule(method, clip)

    def stream(
        self,
        video: EncodedClip,
        question: str | PromptText,
        pruner: AnyMethod,
        decoding: GenerationOptions,
        spent: dict[str, float],
        progress: Progress = silent,
        reuse_prefix: bool = True,
    ) -> Generator[str, None, Answer]:
        """Answer a question about an encoded clip piece by piece; whoever ends the generator stops the answer.

        Args:
            video: encoded, so that the method can be asked by.
            question: as for `ask`.
            pruner: the method.
            decoding: as for `ask`.
            spent: seconds by stage that count with this answer.
            progress: as for `ask_all`. What it raises ends the answer, within one layer of the decoder.
            reuse_prefix: as for `ask_all`.

        Yields:
            The answer's text, in pieces that may be empty.

        Returns:
            The answer.
        """
        device, devices = self.model.device, self.devices
        reset_device_peak(devices[1:] if spent else devices)  # encoding began to measure the first one
        clock = StageClock(device)
        asked = time.perf_counter()
        prefilled = self.prefiller.prefill(
            video, question, pruner, decoding.max_new_tokens, clock, progress, reuse_prefix
        )
        with memory_errors(), clock.stage("generate"):
            ids, text, first = yield from self._generate(prefilled, decoding)
        ended = time.perf_counter()

        encoding, startup = elapsed(spent), self._startup
        self._startup = {}
        timing = {stage: (spent | clock.seconds | startup).get(stage, 0.0) for stage in STAGES}
        timing["time_to_first_token"] = encoding + first - asked
        timing["total"] = sum(startup.values()) + encoding + ended - asked
        trace = prefilled.trace
        return Answer(
            video=video.name,
            question=PromptText.of(question).question,
            text=text,
            model=self.name,
            method=pruner.name,
            token_ids=tuple(ids),
            retention=measure_retention(pruner.target, trace),
            chunks=find_evidence(trace, trace.surplus, video, self.model.geometry),
            gain=measure_gain(trace, *prefilled.attention),
            stats=Stats(
                tokens=count_tokens(trace, text=len(prefilled.layout.ids) - len(trace.modality), generated=len(ids)),
                timing_s=timing,
                device=",".join(map(str, devices)),
                peak_rss_bytes=peak_rss_bytes(),
                peak_device_bytes=peak_device_bytes(devices),
                media=video.summary,
                seconds_per_token=(ended - first) / (len(ids) - 1) if len(ids) > 1 else None,
            ),
            trace=trace,
            asked=Asked.of(video, pruner, self.model),
        )

    def _generate(
        self, prefilled: Prefilled, decoding: GenerationOptions
    ) -> Generator[str, None, tuple[list[int], str, float]]:
        """Yield the text in pieces; give token ids, text, and when the first token was chosen."""
        stream = TextStream(lambda ids: self.model.decode_text(ids))
        logits, position = prefilled.result.logits, prefilled.layout.next_position
        ids: list[int] = []
        pieces: list[str] = []
        first = None
        ends = self.model.end_tokens if decoding.stop_at_end else frozenset[int]()
        for token in generate(self.decoder, logits, position, prefilled.cache, decoding, ends):
            first = first or time.perf_counter()
            ids.append(token)
            pieces.append(stream.push(token))
            yield pieces[-1]
        pieces.append(stream.close())
        yield pieces[-1]
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
    quantize: str | None = None,
    weights_cache: str | Path | None = None,
    offload: str | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> OmniQA:
    """Load a model.

    Args:
        model: a folder, a hub id, or "nano", which comes with the package; None takes the 7B on a GPU that fits it,
            else the 3B (`omniqa.pipeline.fit`).
        device: "auto" (CUDA if the model fits there), "cpu", "cuda" or "cuda:N"; "cuda:0,cuda:1" puts the decoder's
            layers on several GPUs, one after the other, and all else on the first.
        dtype: "auto" (as stored), "bfloat16" or "float32".
        attention: "auto", "flash" or "sdpa".
        cache: a folder where encoded clips are kept for other runs; None keeps none.
        cache_bytes: how many bytes of them at most.
        reuse_static: 0 to 255, see `OmniQA`.
        quantize: "int8", "fp8" or "nf4": 8 or 4 bits for each weight of the decoder's layers, with int8 on a CPU of the
            encoders', too (docs/models.md); None keeps them as floats of `dtype`.
        weights_cache: a folder where quantised weights are kept for other runs; None is the platform's.
        offload: "encoders" keeps both encoders in the machine's memory, and on the GPU while a clip is encoded only.
        on_step: gets the name of each step that takes long, as it begins: looking up, downloading, loading.

    Raises:
        ModelError: the model is not found, or can't be loaded.
        OutOfMemoryError: its weights do not fit.
        StorageError: the disk has no room for a download.
        UsageError: a value makes no sense here.
    """
    start = time.perf_counter()
    check_dtype(dtype)
    check_device(device)
    check_quantize(quantize)
    check_offload(offload, device)
    if device != "auto":
        _devices(device)  # that it is not there comes before what would fit
    choice = choose(machine.read_machine(device), ModelRequest(model, device, dtype, quantize))
    devices = _devices(choice.device)
    where = devices[0]
    check_offload(offload, where.type)
    checkpoint = find_checkpoint(choice.model, on_step, require_disk)
    if quantize is not None and checkpoint.quantization is not None:
        raise UsageError(
            f"quantize {quantize} can't be applied: {checkpoint.name} is quantised already.", field="quantize"
        )
    on_step(f"loading {checkpoint.name}")
    with _torch_errors(where), memory_errors():
        precision = _DTYPES[dtype] or stored_dtype(checkpoint)
        scheme = None if quantize is None else scheme_of(quantize, where)
        store = None if scheme is None else WeightsCache(weights_folder(weights_cache), checkpoint.name, scheme)
        shape = ModelShape.of_config(checkpoint.config, quantization=checkpoint.quantization)
        request = ModelRequest(checkpoint.name, choice.device, str(precision).removeprefix("torch."), quantize)
        _require_memory(shape, request)
        layers = _layer_devices(shape, request, devices)
        loaded = load_model(checkpoint, where, precision, scheme=scheme, store=store, layer_devices=layers)
    kept = None if cache is None else EncodingCache(CacheFolder(Path(cache), cache_bytes))
    qa = OmniQA(checkpoint.name, loaded, attention, time.perf_counter() - start, kept, reuse_static, offload)
    qa.notes = tuple(store.notes) if store else ()
    return qa


def _require_memory(shape: ModelShape, request: ModelRequest) -> None:
    dtype: torch.dtype = getattr(torch, request.dtype)
    size = weight_bytes(shape, dtype.itemsize, request.quantize, request.device.partition(":")[0])
    require_weights(machine.read_machine(request.device), request, size)


def _layer_devices(
    shape: ModelShape, request: ModelRequest, devices: Sequence[torch.device]
) -> tuple[torch.device, ...]:
    """Where each layer of the decoder goes; empty if there is one device."""
    if len(devices) == 1:
        return ()
    free = [machine.read_machine(str(device)).gpu_free_bytes or 0 for device in devices]
    counts = layer_counts(shape, request.dtype, request.quantize, free)
    return tuple(device for device, count in zip(devices, counts, strict=True) for _ in range(count))


@contextmanager
def _torch_errors(device: torch.device) -> Iterator[None]:
    """Make what torch can't do on this device a UsageError."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # torch's own; a build without CUDA asserts
        raise UsageError(f"torch can't use {device}: {first_line(error)}") from error


def _devices(name: str) -> list[torch.device]:
    return [_device(one) for one in devices_of(name)]


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "No CUDA device can be used here (see `omniqa doctor`).", field="device", advice='Use {device="cpu"}.'
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"There is no {name}: this machine has {torch.cuda.device_count()}, counted from cuda:0.", field="device"
        )
    return device
