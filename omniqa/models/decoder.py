"""The decoder loop of every family: transformers' layers, between which audio and video tokens are pruned.

The prompt is one sequence without a batch: head text, audio and video tokens, query span. Between layer l and l + 1
the tokens that the method prunes leave the sequence. Layer l's keys and values keep all tokens that it computed, and
while the answer is generated nothing more is pruned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from omniqa.models.base import AUDIO
from omniqa.models.prefix_cache import PrefixCache
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod, LayerSignals
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
    added: (k, n, d) what is added to each of the clip's tokens before layers 0 … k-1; None adds nothing.
    """

    embeddings: Tensor
    positions: Tensor
    media: slice
    question: Tensor
    index: Tensor
    modality: Tensor
    chunk: Tensor
    max_chunk: int
    added: Tensor | None = None


@dataclass(frozen=True)
class PrefillOutput:
    """What the prefill leaves behind, beside the KV cache.

    logits: (vocabulary,) float32, of the answer's first token.
    attended: (n,) float32, attention that the query span gave each of the clip's tokens, averaged over all layers but
        the last.
    alive: per layer, (n_l,) which of the clip's n tokens it computed.
    scores: per layer, (n_l,) float32 S_i as the method counts it; None where it was not needed, as in the last layer.
    """

    logits: Tensor
    attended: Tensor
    alive: list[Tensor]
    scores: list[Tensor | None]


Rotary = tuple[Tensor, Tensor]


@dataclass
class Rows:
    """The prompt on its way through the layers.

    x: (N, d). rotary: cosine and sine, each (N, 1, D). media: where the audio and video tokens stand.
    index: (n_l,) which of the clip's tokens each of them is.
    has_media: False while `x` is the query span alone.
    """

    x: Tensor
    rotary: Rotary
    media: slice
    index: Tensor
    has_media: bool = True

    def keep(self, kept: Tensor, attn_output: Tensor) -> Tensor:
        """Keep the media tokens at `kept` and all text; returns the same rows of `attn_output` (N, H, D)."""
        media = self.media
        rows = torch.arange(len(self.x), device=kept.device)
        rows = torch.cat([rows[: media.start], media.start + kept, rows[media.stop :]])
        self.x, self.rotary = self.x[rows], (self.rotary[0][rows], self.rotary[1][rows])
        self.index, self.media = self.index[kept], slice(media.start, media.start + len(kept))
        return attn_output[rows]


class QueryScorer:
    """Attention that rows of the prompt give the audio and video tokens, layer by layer.

    attended: (n,) float32, what the query span gave each of the clip's tokens, averaged over the layers seen.
    scores: S_i of each layer, as the method counts it; None where it was not needed.
    """

    def __init__(self, prompt: PrefillInput, method: AnyMethod, layers: int) -> None:
        self.attended = torch.zeros(len(prompt.chunk), device=prompt.embeddings.device)
        self.scores: list[Tensor | None] = []
        self._prompt, self._rows, self._layers = prompt, method.query_rows, layers
        self._span = len(prompt.embeddings) - prompt.media.stop
        self._audio = _count_audio(prompt) if method.query_rows == "audio" else 0

    def score(self, q: Tensor, keys: Tensor, media: slice, index: Tensor, needed: bool) -> Tensor:
        """S_i (n_l,) float32, by the queries (the sequence's last rows) and keys of a layer with heads and D last.

        needed: whether the method prunes by it; else what the query span attended to is enough.
        """
        span = torch.arange(len(keys) - self._span, len(keys), device=keys.device)
        scores = attention_received(q[-self._span :], keys, span, media)
        self.attended[index] += scores / self._layers
        if needed and self._rows != "prompt":
            rows = self._score_rows(media, index, keys)
            scores = attention_received(q[rows - (len(keys) - len(q))], keys, rows, media)
        self.scores.append(scores if needed or self._rows == "prompt" else None)
        return scores

    def _score_rows(self, media: slice, index: Tensor, keys: Tensor) -> Tensor:
        """The rows that the method scores with, in a sequence as long as `keys`; none of them is ever pruned."""
        if self._rows == "question":
            return len(keys) + self._prompt.question
        if self._rows == "last":
            return torch.arange(len(keys) - 1, len(keys), device=keys.device)
        return media.start + nonzero_static(self._prompt.modality[index] == AUDIO, self._audio)


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
        method: AnyMethod,
        plan: Plan,
        cache: KVCache,
        progress: Callable[[float], None] = lambda share: None,
        prefix: PrefixCache | None = None,
    ) -> PrefillOutput:
        """Run the prompt through all layers, pruning after each as `method` and `plan` say.

        The counts are known ahead, so nothing in the loop waits for the device. Tokens pruned after a layer skip its
        MLP, which would change nothing but themselves.

        Args:
            prompt: what enters layer 0.
            method: which tokens are kept.
            plan: how many.
            cache: takes the keys and values of every layer.
            progress: gets the share of the layers that is done.
            prefix: what `prefill_media` gave for the same clip and an equal method; in its layers only the query span
                is computed.
        """
        first = prompt.media.stop if prefix else 0
        whole = self.rotary(prompt.embeddings, prompt.positions)
        rotary = whole[0][first:], whole[1][first:]
        rows = Rows(prompt.embeddings[first:], rotary, prompt.media, prompt.index, has_media=prefix is None)
        scorer, alive = QueryScorer(prompt, method, len(plan.drops)), list[Tensor]()
        self._reserve(cache, len(prompt.embeddings), plan, prompt.embeddings)
        for number, drops in enumerate(plan.drops):
            self._add(prompt, number, rows)
            q, keys, values = self._attend_to(number, rows, cache, prefix)
            attn_output = self.attention.causal(q, keys, values)
            scores = scorer.score(q, keys, rows.media, rows.index, needed=drops > 0)
            if prefix and number == len(prefix.layers) - 1:
                rows.x, attn_output = torch.cat([prefix.x, rows.x]), torch.cat([prefix.attn_output, attn_output])
                rows.rotary, rows.has_media = whole, True
            alive.append(rows.index)
            if drops:
                tokens = LayerSignals(scores, prompt.modality[rows.index], prompt.chunk[rows.index], prompt.max_chunk)
                attn_output = rows.keep(method.prune_layer(number, tokens, plan), attn_output)
            rows.x = self.finish(number, rows.x, attn_output)
            progress((number + 1) / plan.layers)
        # Of the last layer one row is computed, and nothing is scored: only the first token's logits are left to find.
        last = plan.layers - 1
        self._add(prompt, last, rows)
        q, keys, values = self._attend_to(last, rows, cache, prefix, queries_from=len(rows.x) - 1)
        x = self.finish(last, rows.x[-1:], self.attention.causal(q, keys, values))
        progress(1.0)
        return PrefillOutput(self.logits(x[-1]), scorer.attended, [*alive, rows.index], [*scorer.scores, None])

    @torch.inference_mode()
    def prefill_media(self, prompt: PrefillInput, count: int) -> PrefixCache:
        """Run system prompt, audio and video alone through the first `count` layers, for any question after them.

        Args:
            prompt: only the tokens before the query span are used.
            count: see `shared_layers`; the last of these is left after its attention, since its scores may decide
                what is pruned before its MLP.
        """
        stop = prompt.media.stop
        rotary = self.rotary(prompt.embeddings[:stop], prompt.positions[:, :stop])
        rows = Rows(prompt.embeddings[:stop], rotary, prompt.media, prompt.index)
        layers: list[tuple[Tensor, Tensor]] = []
        for number in range(count):
            self._add(prompt, number, rows)
            is_last_layer = number == len(self.model.layers) - 1  # nothing comes after its keys and values
            q, k, v = self.project(number, rows.x, rows.rotary, first=stop if is_last_layer else 0)
            layers.append((k, v))
            attn_output = self.attention.causal(q, k, v) if len(q) else q
            if number < count - 1:
                rows.x = self.finish(number, rows.x, attn_output)
        keeps_rows = count < len(self.model.layers)
        return PrefixCache(layers, rows.x if keeps_rows else rows.x[:0], attn_output if keeps_rows else attn_output[:0])

    def prefix_layer_bytes(self, prompt: PrefillInput) -> int:
        """Bytes of the keys and values of all tokens before the query span, in one layer."""
        return 2 * prompt.media.stop * self.kv_heads * self.head_size * prompt.embeddings.element_size()

    def _attend_to(
        self, number: int, rows: Rows, cache: KVCache, prefix: PrefixCache | None, queries_from: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the rows, and all keys and values of the layer, those of the prefix before them."""
        q, k, v = self.project(number, rows.x, rows.rotary, queries_from)
        if prefix and number < len(prefix.layers):
            cache.append(number, *prefix.layers[number])
        keys, values = cache.append(number, k, v)
        return q, keys, values

    def _add(self, prompt: PrefillInput, number: int, rows: Rows) -> None:
        """Add what the family gives its tokens before layer `number`, if the rows hold them."""
        if prompt.added is not None and number < len(prompt.added) and rows.has_media:
            rows.x = rows.x.clone()
            rows.x[rows.media] += prompt.added[number][rows.index]

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
