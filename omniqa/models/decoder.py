"""The decoder: transformers' layers, run by a loop of our own that lets audio and video tokens leave between them.

The prompt is one sequence without a batch: head text, audio and video tokens, query span. Between layer l and l + 1
the tokens that the pruner drops leave the sequence. Layer l's keys and values keep all tokens alive at l, and while
the answer is generated nothing more is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from omniqa.models.base import AUDIO
from omniqa.models.prefix_cache import PrefixCache, shared_layers
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod, LayerSignals, ScoreRows
from omniqa.pruning.ops import nonzero_static
from omniqa.runtime.attention import Attention, attention_received, rotate
from omniqa.runtime.kv_cache import KVCache


@dataclass(frozen=True)
class PrefillInput:
    """What enters layer 0.

    embeddings: (N, d); positions: (3, N).
    media: where the audio and video tokens stand; the query span is everything after them.
    question: (words,) places of the user's words, counted from the end of the sequence (all negative).
    index: (n_0,) which of the clip's n tokens each token of `media` is.
    modality, chunk: (n,) of all of the clip's tokens, those that did not enter included.
    max_chunk: the clip's largest chunk index.
    """

    embeddings: Tensor
    positions: Tensor
    media: slice
    question: Tensor
    index: Tensor
    modality: Tensor
    chunk: Tensor
    max_chunk: int


@dataclass(frozen=True)
class PrefillOutput:
    """What the prefill leaves behind, beside the KV cache.

    logits: (vocabulary,) float32, of the answer's first token.
    attended: (n,) float32, attention that the query span gave each of the clip's tokens, averaged over all layers but
        the last.
    alive: per layer, (n_l,) which of the clip's n tokens it computed.
    scores: per layer, (n_l,) float32 S_i as the method counts it; None where it was not needed, as in the last layer.
    shared: what another question could start from; None where that was not asked for, or is nothing.
    """

    logits: Tensor
    attended: Tensor
    alive: list[Tensor]
    scores: list[Tensor | None]
    shared: PrefixCache | None = None


Rotary = tuple[Tensor, Tensor]


class Decoder:
    """Runs the layers of `stack`, a decoder of transformers, and `lm_head` with `attention`."""

    def __init__(self, stack: Any, lm_head: nn.Linear, attention: Attention) -> None:
        config = stack.config
        self.model = stack
        self.lm_head = lm_head
        self.attention = attention
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_size: int = stack.layers[0].self_attn.head_dim

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (N, d) of token ids (N,)."""
        return self.model.embed_tokens(ids)

    @torch.inference_mode()
    def prefill(
        self,
        prompt: PrefillInput,
        pruner: AnyMethod,
        plan: Plan,
        cache: KVCache,
        progress: Callable[[float], None] = lambda share: None,
        shared: PrefixCache | None = None,
        share_bytes: int = 0,
    ) -> PrefillOutput:
        """Run the prompt through all layers, dropping tokens after each as `pruner` and `plan` say.

        shared: what another question about the same clip left, asked by an equal pruner: rows before the question are
        taken from there as far as it goes. share_bytes: leave as much, at most so many bytes of it.

        How many leave is known ahead, so nothing in the loop waits for the device. Those that leave after a layer
        leave before its MLP, which would change nothing but themselves.
        """
        layers = self.model.layers
        x, index, media = prompt.embeddings, prompt.index, prompt.media
        whole = rotary = self.rotary(x, prompt.positions)
        span = len(x) - media.stop
        self._reserve(cache, len(x), plan, x)
        held = shared.layers if shared else []
        kept = 0 if shared else shared_layers(pruner, plan, self._layer_bytes(media.stop, x), share_bytes)
        if held:
            x, rotary = x[-span:], (rotary[0][-span:], rotary[1][-span:])
        audio = _count_audio(prompt) if pruner.query_rows == "audio" else 0
        attended = torch.zeros(len(prompt.chunk), device=x.device)
        alive: list[Tensor] = []
        scored: list[Tensor | None] = []
        for number, drops in enumerate(plan.drops):
            q, k, v = self.project(number, x, rotary)
            if number < len(held):
                cache.append(number, *held[number])
            keys, values = cache.append(number, k, v)
            attn_output = self.attention.causal(q, keys, values)
            if number == kept - 1:
                shared = PrefixCache.copied(cache, kept, media.stop, x, attn_output)
            scores = attention_received(q[-span:], keys, _last_rows(span, keys), media)
            attended[index] += scores / len(plan.drops)
            by_prompt = pruner.query_rows == "prompt"
            if drops and not by_prompt:
                rows = _score_rows(pruner.query_rows, prompt, index, media, audio, keys)
                scores = attention_received(q[rows - (len(keys) - len(q))], keys, rows, media)
            if shared and number == len(held) - 1:
                x, attn_output, rotary = torch.cat([shared.x, x]), torch.cat([shared.attn_output, attn_output]), whole
            alive.append(index)
            scored.append(scores if drops or by_prompt else None)
            if drops:
                tokens = LayerSignals(scores, prompt.modality[index], prompt.chunk[index], prompt.max_chunk)
                stay = pruner.prune_layer(number, tokens, plan)
                x, attn_output, cos, sin = _keep_media((x, attn_output, *rotary), stay, media)
                rotary = cos, sin
                index, media = index[stay], slice(media.start, media.start + len(stay))
            x = self.finish(number, x, attn_output)
            progress((number + 1) / len(layers))

        # Of the last layer one row is computed, and nothing is scored: only the first token's logits are left to find.
        last = len(layers) - 1
        q, k, v = self.project(last, x, rotary, first=len(x) - 1)
        if last < len(held):
            cache.append(last, *held[last])
        x = self.finish(last, x[-1:], self.attention.causal(q, *cache.append(last, k, v)))
        if last == kept - 1:
            shared = PrefixCache.copied(cache, kept, media.stop, x[:0], attn_output[:0])
        progress(1.0)
        return PrefillOutput(self.logits(x[-1]), attended, [*alive, index], [*scored, None], shared)

    def _layer_bytes(self, tokens: int, like: Tensor) -> int:
        """Keys and values of so many tokens in one layer."""
        return 2 * tokens * self.kv_heads * self.head_size * like.element_size()

    def _reserve(self, cache: KVCache, tokens: int, plan: Plan, like: Tensor) -> None:
        """Take the cache's storage for a prompt of `tokens` tokens, of which so many leave as the plan says."""
        held = [tokens - left for left in accumulate(plan.drops, initial=0)]
        cache.reserve(held, like, self.kv_heads, self.head_size)

    def rotary(self, x: Tensor, positions: Tensor) -> Rotary:
        """Cosine and sine, each (N, 1, D), of positions (3, N)."""
        cos, sin = self.model.rotary_emb(x, positions[:, None])
        return cos[0, :, None], sin[0, :, None]

    def project(self, number: int, x: Tensor, rotary: Rotary, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Of layer `number`: queries (N - first, H, D) of the rows from `first` on, keys and values (N, KV, D)."""
        layer = self.model.layers[number]
        attention, cos, sin = layer.self_attn, *rotary
        h = layer.input_layernorm(x)
        q = rotate(attention.q_proj(h[first:]).unflatten(-1, (self.heads, -1)), cos[first:], sin[first:])
        k = rotate(attention.k_proj(h).unflatten(-1, (self.kv_heads, -1)), cos, sin)
        return q, k, attention.v_proj(h).unflatten(-1, (self.kv_heads, -1))

    def finish(self, number: int, x: Tensor, attended: Tensor) -> Tensor:
        """The output (N, d) of layer `number`, from its input and what its heads attended to (N, H, D)."""
        layer = self.model.layers[number]
        x = x + layer.self_attn.o_proj(attended.flatten(1))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def logits(self, x: Tensor) -> Tensor:
        """Logits (vocabulary,), float32, of a row (d,) that the last layer gave."""
        return self.lm_head(self.model.norm(x)).float()


def _count_audio(prompt: PrefillInput) -> int:
    """The audio tokens that enter layer 0. The one number that a prefill reads back, before its first layer."""
    return int((prompt.modality[prompt.index] == AUDIO).sum())


def _last_rows(count: int, keys: Tensor) -> Tensor:
    """(count,) places of the sequence's last tokens; it is as long as `keys`."""
    return torch.arange(len(keys) - count, len(keys), device=keys.device)


def _score_rows(kind: ScoreRows, prompt: PrefillInput, index: Tensor, media: slice, audio: int, keys: Tensor) -> Tensor:
    """Rows of the sequence, now as long as `keys`, that the method scores with; "prompt" is the caller's.

    audio: how many audio tokens are alive.
    """
    if kind == "question":
        return len(keys) + prompt.question
    if kind == "last":
        return _last_rows(1, keys)
    return media.start + nonzero_static(prompt.modality[index] == AUDIO, audio)


def _keep_media(rows: tuple[Tensor, ...], kept: Tensor, media: slice) -> tuple[Tensor, ...]:
    """Each of `rows` (N, …) with only the `kept` of its media tokens, its text whole."""
    places = torch.arange(len(rows[0]), device=kept.device)
    places = torch.cat([places[: media.start], media.start + kept, places[media.stop :]])
    return tuple(x[places] for x in rows)
