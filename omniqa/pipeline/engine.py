"""The one place where the steps are joined, from a file to an answer."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.media.source import Source
from omniqa.memory import memory_errors
from omniqa.models.base import OWN_SYSTEM_TEXT, Model, PromptText, Turn, check_length
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
from omniqa.pipeline.prefill import Prefilled, PrefillStage
from omniqa.pipeline.preprocess import Progress, Ready, Video, silent
from omniqa.pipeline.stats import OVERLAPPED, StageClock, elapsed, peak_device_bytes, peak_rss_bytes, reset_device_peak
from omniqa.pruning import registry
from omniqa.pruning.budget import ClipTokens
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.attention import select_attention
from omniqa.runtime.generation_options import GenerationOptions

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
