"""An encoded clip and a question, through the decoder's prefill, pruned on the way: EncodedClip → Prefilled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from omniqa.errors import UsageError
from omniqa.memory import is_out_of_memory, memory_errors
from omniqa.models.base import VIDEO, Model, PromptText, TokenLayout
from omniqa.models.decoder import Decoder
from omniqa.models.prefill_rows import PrefillInput, PrefillOutput
from omniqa.models.prefix_cache import PrefixCache, shared_layers
from omniqa.pipeline.encoded_clip import SHARED_BYTES, EncodedClip, PrefixState
from omniqa.pipeline.preprocess import Progress, silent
from omniqa.pipeline.stats import StageClock
from omniqa.pipeline.trace import Trace
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import (
    AnyMethod,
    AudioAttention,
    AuxNetwork,
    Kept,
    MediaTokens,
    QueryEmbeddings,
    Times,
    VisionAttention,
)
from omniqa.pruning.interleave import interleave
from omniqa.runtime.kv_cache import KVCache

MLP_ROWS = 1024  # that go through an MLP together once memory has run out
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A question after its prefill, ready for its first token."""

    layout: TokenLayout
    result: PrefillOutput
    cache: KVCache

    @property
    def logits(self) -> Tensor:
        """(vocabulary,) float32, of the answer's first token."""
        return self.result.logits

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) token ids of the whole prompt, before any pruning."""
        return self.layout.ids

    @property
    def positions(self) -> NDArray[np.int64]:
        """(3, N) position ids of the whole prompt: temporal, height and width."""
        return self.layout.positions

    @property
    def attention(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(L - 1, n) twice, the attention that the clip's tokens get: `asked` and `unasked` of `PrefillOutput`."""
        return self.result.asked.cpu().numpy(), self.result.unasked.cpu().numpy()

    @cached_property
    def trace(self) -> Trace:
        """Which audio and video token each layer computed."""
        return Trace.of(self.layout, self.result)


class PrefillStage:
    """Takes prompts through one model's decoder.

    Attributes:
        aux_networks: the methods' own networks that were needed so far.
    """

    def __init__(self, model: Model, decoder: Decoder) -> None:
        self.aux_networks: dict[AuxNetwork, nn.Module] = {}
        self._model = model
        self._decoder = decoder

    def prefill(
        self,
        video: EncodedClip,
        question: str | PromptText,
        pruner: AnyMethod,
        max_new_tokens: int = 0,
        clock: StageClock | None = None,
        progress: Progress = silent,
        reuse_prefix: bool = False,
    ) -> Prefilled:
        """Run the prompt through the decoder, pruning as it goes; leave room for `max_new_tokens` more tokens.

        Args:
            reuse_prefix: start from what an earlier question about this video left, and leave as much for the next.

        Raises:
            UsageError: the question is empty, or the method can't serve this clip, model or retention.
        """
        asked = PromptText.of(question)
        if not asked.question.strip():
            raise UsageError("The question is empty.")
        model = self._model
        clock = clock or StageClock(model.device)
        prefilling = partial(progress, "prefill")
        with memory_errors(), torch.inference_mode():
            layout = model.lay_out(video.shape, asked)
            with clock.stage("input_pruning"):
                tokens = self._media_tokens(video, layout, pruner)
                reuse_prefix = reuse_prefix and not pruner.need(QueryEmbeddings)
                state = video.shared.of(pruner, asked.opening) if reuse_prefix else None
                plan = video.plan(pruner, model.layers)
                selection = state.selection if state else pruner.prune_input(tokens, plan)
            with clock.stage("prefill"):
                prompt = self._prompt(layout, tokens, selection, _added(video, tokens))
                _check_count(prompt, pruner, plan)
                if reuse_prefix and state is None:
                    prefix = self._in_memory(lambda: self._prefill_media(prompt, pruner, plan, prefilling))
                    state = PrefixState(selection, prefix)
                    video.shared.keep(pruner, state, asked.opening)
                shared = state.prefix if state else None

                def run() -> tuple[PrefillOutput, KVCache]:
                    cache = KVCache(model.layers, max_new_tokens)
                    return self._decoder.prefill(prompt, pruner, plan, cache, prefilling, shared), cache

                result, cache = self._in_memory(run)
        return Prefilled(layout, result, cache)

    def _in_memory(self, run: Callable[[], T]) -> T:
        """Run the decoder; if memory runs out, once more with its rows in blocks. These stay for later questions."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if self._decoder.mlp_rows is not None or not is_out_of_memory(error):
                raise
        # The error is gone here, and with it the tensors that it held.
        self._decoder.mlp_rows = MLP_ROWS
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return run()

    def _prefill_media(
        self, prompt: PrefillInput, pruner: AnyMethod, plan: Plan, progress: Callable[[float], None]
    ) -> PrefixCache | None:
        """What questions by this method share of the decoder's work; None if it is nothing."""
        count = shared_layers(pruner, plan, self._decoder.prefix_layer_bytes(prompt), SHARED_BYTES)
        return self._decoder.prefill_media(prompt, count, progress) if count else None

    def aux_network(self, pruner: AnyMethod) -> nn.Module | None:
        """The method's own network, read when it is first needed.

        Raises:
            ModelError: there is none that fits.
        """
        part = pruner.need(AuxNetwork)
        if part is None:
            return None
        if part not in self.aux_networks:
            self.aux_networks[part] = self._model.load_aux_network(part)
        return self.aux_networks[part]

    def _media_tokens(self, video: EncodedClip, layout: TokenLayout, pruner: AnyMethod) -> MediaTokens:
        device, media = self._model.device, layout.media
        return MediaTokens(
            modality=torch.from_numpy(layout.modality[media]).to(device),
            chunk=torch.from_numpy(layout.chunk[media]).to(device),
            tokens_per_grid=video.shape.tokens_per_grid,
            video=video.video,
            audio=video.audio.embeddings if video.audio else video.video.new_empty(0, video.video.shape[1]),
            audio_attention=video.audio_attention(pruner.need(AudioAttention)),
            time_s=torch.from_numpy(layout.time_s[media]) if pruner.need(Times) else None,
            aux_network=self.aux_network(pruner),
            video_attention=video.video_attention if pruner.need(VisionAttention) else None,
            query=self._embed(layout, layout.question) if pruner.need(QueryEmbeddings) else None,
            rule=video.rule,
            video_keep=video.keep,
        )

    def _embed(self, layout: TokenLayout, part: slice) -> Tensor:
        """Embeddings of a part of the prompt's text."""
        return self._decoder.embed(torch.from_numpy(layout.ids[part]).to(self._model.device))

    def _prompt(self, layout: TokenLayout, tokens: MediaTokens, selection: Kept, added: Tensor | None) -> PrefillInput:
        """The sequence that enters layer 0: all text, and the audio and video tokens that were selected."""
        device, media = self._model.device, layout.media
        keep, embeddings = interleave(selection, tokens)
        head, tail = self._embed(layout, slice(media.start)), self._embed(layout, layout.behind_media)
        places = torch.arange(len(layout.ids), device=device)
        places = torch.cat([places[: media.start], media.start + keep, places[media.stop :]])
        return PrefillInput(
            embeddings=torch.cat([head, embeddings, tail]),
            positions=torch.from_numpy(layout.positions).to(device)[:, places],
            media=slice(media.start, media.start + len(keep)),
            question=torch.arange(layout.question.start, layout.question.stop, device=device) - len(layout.ids),
            index=keep,
            modality=tokens.modality,
            chunk=tokens.chunk,
            max_chunk=int(layout.chunk.max()),
            added=added,
            earlier=layout.earlier,
        )


def _added(video: EncodedClip, tokens: MediaTokens) -> Tensor | None:
    """(k, n, d) what is added to each of the clip's tokens before layers 0 to k-1: nothing to audio."""
    if video.added is None:
        return None
    at = (tokens.modality == VIDEO).nonzero().flatten()
    whole = video.added.new_zeros(len(video.added), len(tokens.modality), video.added.shape[2])
    whole[:, at if video.keep is None else at[video.keep]] = video.added
    return whole


def _check_count(prompt: PrefillInput, method: AnyMethod, plan: Plan) -> None:
    if method.exact_plan and len(prompt.index) != plan.kept[0]:
        raise ValueError(f"{method.name} kept {len(prompt.index)} tokens of a plan of {plan.kept[0]}")
