"""The decoder: transformers' layers, run by a loop of our own that lets audio and video tokens leave between them.

The prompt is one sequence without a batch: head text, audio and video tokens, query span. Between layer l and l + 1
the tokens that the pruner drops leave the sequence. Layer l's keys and values keep all tokens alive at l, and while
the answer is generated nothing more is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omniqa.model.attention import Attention, mean_attention, rotate
from omniqa.model.cache import KVCache
from omniqa.model.thinker import Thinker
from omniqa.pruning.base import AnyPruner, LayerTokens, ScoreRows
from omniqa.pruning.schedule import Plan
from omniqa.sequence.units import AUDIO


@dataclass(frozen=True)
class Prompt:
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
class Prefill:
    """What the prefill leaves behind, beside the KV cache.

    logits: (vocabulary,) float32, of the answer's first token.
    attended: (n,) float32, attention that the query span gave each of the clip's tokens, averaged over all layers.
    alive: per layer, (n_l,) which of the clip's n tokens it computed.
    scores: per layer, (n_l,) float32 S_i as the method counts it; None where it was not needed.
    """

    logits: Tensor
    attended: Tensor
    alive: list[Tensor]
    scores: list[Tensor | None]


Rotary = tuple[Tensor, Tensor]


class Decoder:
    """Runs the Thinker's decoder with `attention`."""

    def __init__(self, thinker: Thinker, attention: Attention) -> None:
        config = thinker.config.get_text_config()
        self.model = thinker.decoder
        self.lm_head = thinker.lm_head
        self.attention = attention
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (N, d) of token ids (N,)."""
        return self.model.embed_tokens(ids)

    @torch.inference_mode()
    def prefill(
        self,
        prompt: Prompt,
        pruner: AnyPruner,
        plan: Plan,
        cache: KVCache,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Prefill:
        """Run the prompt through all layers, dropping tokens after each as `pruner` and `plan` say."""
        layers = self.model.layers
        x, index, media = prompt.embeddings, prompt.index, prompt.media
        rotary = self._rotary(x, prompt.positions)
        span = len(x) - media.stop
        attended = torch.zeros(len(prompt.chunk), device=x.device)
        alive: list[Tensor] = []
        scored: list[Tensor | None] = []
        for number, layer in enumerate(layers):
            # Of the last layer only the query span's rows are computed: nothing reads the others' outputs.
            first = len(x) - span if number == len(layers) - 1 else 0
            q, keys, values = self._project(number, x, rotary, first, cache)
            x = self._finish(layer, x[first:], self.attention.causal(q, keys, values))

            rows = torch.arange(len(keys) - span, len(keys), device=x.device)
            scores = mean_attention(q[rows - first], keys, rows, media)
            attended[index] += scores / len(layers)
            drops = plan.drops[number] if number < len(layers) - 1 else 0
            by_prompt = pruner.score_rows == "prompt"
            if drops and not by_prompt:
                rows = _score_rows(pruner.score_rows, prompt, index, media, len(keys))
                scores = mean_attention(q[rows], keys, rows, media)
            alive.append(index)
            scored.append(scores if drops or by_prompt else None)
            if drops:
                tokens = LayerTokens(scores, prompt.modality[index], prompt.chunk[index], prompt.max_chunk)
                kept = pruner.select_layer(number, tokens, plan)
                x, rotary = _keep_media(x, rotary, kept, media)
                index, media = index[kept], slice(media.start, media.start + len(kept))
            progress((number + 1) / len(layers))
        return Prefill(self._logits(x[-1]), attended, alive, scored)

    @torch.inference_mode()
    def step(self, token: int, position: int, cache: KVCache) -> Tensor:
        """Run one generated token at `position`; give the next one's logits (vocabulary,), float32."""
        device = self.lm_head.weight.device
        x = self.embed(torch.tensor([token], device=device))
        rotary = self._rotary(x, torch.full((3, 1), position, device=device))
        for number, layer in enumerate(self.model.layers):
            q, keys, values = self._project(number, x, rotary, 0, cache)
            x = self._finish(layer, x, self.attention.causal(q, keys, values))
        return self._logits(x[-1])

    def _rotary(self, x: Tensor, positions: Tensor) -> Rotary:
        """Cosine and sine, each (N, 1, D), of positions (3, N)."""
        cos, sin = self.model.rotary_emb(x, positions[:, None])
        return cos[0, :, None], sin[0, :, None]

    def _project(
        self, number: int, x: Tensor, rotary: Rotary, first: int, cache: KVCache
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N - first, H, D) of the rows from `first` on; all keys and values (·, KV, D) of the layer."""
        layer = self.model.layers[number]
        attention, cos, sin = layer.self_attn, *rotary
        h = layer.input_layernorm(x)
        q = rotate(attention.q_proj(h[first:]).unflatten(-1, (self.heads, -1)), cos[first:], sin[first:])
        k = rotate(attention.k_proj(h).unflatten(-1, (self.kv_heads, -1)), cos, sin)
        v = attention.v_proj(h).unflatten(-1, (self.kv_heads, -1))
        return q, *cache.append(number, k, v)

    def _finish(self, layer: Any, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output, from its input and what its heads attended to (N, H, D)."""
        x = x + layer.self_attn.o_proj(attended.flatten(1))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def _logits(self, x: Tensor) -> Tensor:
        return self.lm_head(self.model.norm(x)).float()


def _score_rows(kind: ScoreRows, prompt: Prompt, index: Tensor, media: slice, tokens: int) -> Tensor:
    """Rows of the sequence, now `tokens` long, that the method scores with; "prompt" is the caller's."""
    if kind == "question":
        return tokens + prompt.question
    if kind == "last":
        return torch.tensor([tokens - 1], device=index.device)
    return media.start + (prompt.modality[index] == AUDIO).nonzero()[:, 0]


def _keep_media(x: Tensor, rotary: Rotary, kept: Tensor, media: slice) -> tuple[Tensor, Rotary]:
    """The sequence with only the `kept` of its media tokens, its text whole."""
    rows = torch.arange(len(x), device=x.device)
    rows = torch.cat([rows[: media.start], media.start + kept, rows[media.stop :]])
    return x[rows], (rotary[0][rows], rotary[1][rows])
