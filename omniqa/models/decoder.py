"""The decoder loop of every family: transformers' layers, between which audio and video tokens are pruned.

The prompt is one sequence without a batch: head text, audio and video tokens, earlier turns of a conversation, query
span. Between layer l and l + 1 the tokens that the method prunes leave the sequence. Layer l's keys and values keep all
tokens that it computed, unless the method prunes them, too; while the answer is generated nothing more is pruned.
Layers may be on several devices, in a row: the sequence, and what the method is asked with, go along.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from omniqa.models.layer_pruner import LayerPruner
from omniqa.models.prefill_rows import PrefillInput, PrefillOutput, Rotary, Rows
from omniqa.models.prefix_cache import PrefixCache
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.attention import Attention, rotate
from omniqa.runtime.kv_cache import KVCache
from omniqa.runtime.merged import project


class Decoder:
    """Runs the layers of `stack`, a decoder of transformers, and `lm_head` with `attention`.

    Attributes:
        mlp_rows: how many rows go through an MLP together; None takes all. Fewer need less memory.
        device: where the prompt enters and the logits are: of the embeddings, the last norm and `lm_head`.
        devices: of each layer.
    """

    def __init__(self, stack: Any, lm_head: nn.Linear, attention: Attention) -> None:
        config = stack.config
        self.model = stack
        self.lm_head = lm_head
        self.attention = attention
        self.mlp_rows: int | None = None
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_size: int = stack.layers[0].self_attn.head_dim
        self.device: torch.device = stack.norm.weight.device
        self.devices: list[torch.device] = [layer.input_layernorm.weight.device for layer in stack.layers]

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

        Nothing in the loop waits for the device: shapes are known ahead, unless a method's plan is not exact. Tokens
        pruned by a layer's attention skip its MLP, which would change nothing but themselves.

        Args:
            prompt: what enters layer 0.
            method: which tokens are kept.
            plan: how many.
            cache: takes the keys and values of every layer.
            progress: gets the share of the layers that is done.
            prefix: what `prefill_media` gave for the same clip and an equal method; in its layers only the text
                behind the media is computed.
        """
        first = prompt.media.stop if prefix else 0
        whole = self.rotary(prompt.embeddings, prompt.positions)
        rotary = whole[0][first:], whole[1][first:]
        rows = Rows(prompt.embeddings[first:], rotary, prompt.media, prompt.index, has_media=prefix is None)
        pruner = LayerPruner(prompt, method, plan, cache, self.project)
        for number in range(plan.layers - 1):
            self._enter(prompt, number, rows)
            pruner.count(rows)
            q, keys, values = self._attend_to(number, rows, cache, prefix)
            attn_output = self.attention.causal(q, keys, values)
            pruner.scorer.attend(q, keys, rows)
            if prefix and number == len(prefix.layers) - 1:
                rows.x, attn_output = torch.cat([prefix.x, rows.x]), torch.cat([prefix.attn_output, attn_output])
                rows.rotary, rows.has_media = whole, True
                rows.to(self.devices[number])
            attn_output = pruner.drop_before_mlp(number, rows, q, keys, attn_output)
            rows.x = self.finish(number, rows.x, attn_output)
            pruner.drop_after_mlp(number, rows)
            progress((number + 1) / plan.layers)
        # Of the last layer one row is computed, and nothing is scored: only the first token's logits are left to find.
        last = plan.layers - 1
        self._enter(prompt, last, rows)
        pruner.count(rows)
        q, keys, values = self._attend_to(last, rows, cache, prefix, queries_from=len(rows.x) - 1)
        x = self.finish(last, rows.x[-1:], self.attention.causal(q, keys, values))
        progress(1.0)
        scorer = pruner.scorer
        scores = [*scorer.scores, None]
        return PrefillOutput(self.logits(x[-1]), scorer.asked, scorer.unasked, pruner.alive, pruner.cached, scores)

    @torch.inference_mode()
    def prefill_media(
        self, prompt: PrefillInput, count: int, progress: Callable[[float], None] = lambda share: None
    ) -> PrefixCache:
        """Run system prompt, audio and video alone through the first `count` layers, for any question after them.

        Args:
            prompt: only the tokens up to the last audio or video token are used.
            count: see `shared_layers`; the last of these is left after its attention, since its scores may decide
                what is pruned before its MLP.
            progress: gets the share of the decoder's layers that is done, before each.
        """
        stop = prompt.media.stop
        rotary = self.rotary(prompt.embeddings[:stop], prompt.positions[:, :stop])
        rows = Rows(prompt.embeddings[:stop], rotary, prompt.media, prompt.index)
        layers: list[tuple[Tensor, Tensor]] = []
        for number in range(count):
            progress(number / len(self.model.layers))
            self._enter(prompt, number, rows)
            is_last_layer = number == len(self.model.layers) - 1  # nothing comes after its keys and values
            q, k, v = self.project(number, rows.x, rows.rotary, first=stop if is_last_layer else 0)
            layers.append((k, v))
            attn_output = self.attention.causal(q, k, v) if len(q) else q
            if number < count - 1:
                rows.x = self.finish(number, rows.x, attn_output)
        keeps_rows = count < len(self.model.layers)
        return PrefixCache(layers, rows.x if keeps_rows else rows.x[:0], attn_output if keeps_rows else attn_output[:0])

    def prefix_layer_bytes(self, prompt: PrefillInput) -> int:
        """Bytes of the keys and values of all tokens up to the last of the media, in one layer."""
        return 2 * prompt.media.stop * self.kv_heads * self.head_size * prompt.embeddings.element_size()

    def _attend_to(
        self, number: int, rows: Rows, cache: KVCache, prefix: PrefixCache | None, queries_from: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the rows, and all keys and values of the layer, those of the prefix before them."""
        q, k, v = self.project(number, rows.x, rows.rotary, queries_from)
        before = prefix.layers[number] if prefix and number < len(prefix.layers) else (k[:0], v[:0])
        cache.reserve(number, len(before[0]) + len(k), k)
        cache.append(number, *before)
        keys, values = cache.append(number, k, v)
        return q, keys, values

    def _enter(self, prompt: PrefillInput, number: int, rows: Rows) -> None:
        """Take the rows to layer `number`, and add what the family gives its tokens there, if the rows hold them."""
        rows.to(self.devices[number])
        if prompt.added is not None and number < len(prompt.added) and rows.has_media:
            added = prompt.added[number]
            rows.x = rows.x.clone()
            rows.x[rows.media] += added[rows.index.to(added.device)].to(rows.x.device)

    def rotary(self, x: Tensor, positions: Tensor) -> Rotary:
        """Cosine and sine, each (N, 1, D), of positions (3, N)."""
        cos, sin = self.model.rotary_emb(x, positions[:, None])
        return cos[0, :, None], sin[0, :, None]

    def project(self, number: int, x: Tensor, rotary: Rotary, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Of layer `number`: queries (N - first, H, D) of the rows from `first` on, keys and values (N, KV, D)."""
        layer = self.model.layers[number]
        attention, cos, sin = layer.self_attn, *rotary
        h = layer.input_layernorm(x)
        if first:
            q, (k, v) = attention.q_proj(h[first:]), project(h, attention.k_proj, attention.v_proj)
        else:
            q, k, v = project(h, attention.q_proj, attention.k_proj, attention.v_proj)
        q = rotate(q.unflatten(-1, (self.heads, -1)), cos[first:], sin[first:])
        k = rotate(k.unflatten(-1, (self.kv_heads, -1)), cos, sin)
        return q, k, v.unflatten(-1, (self.kv_heads, -1))

    def finish(self, number: int, x: Tensor, attended: Tensor) -> Tensor:
        """The output (N, d) of layer `number`, from its input and what its heads attended to (N, H, D)."""
        layer = self.model.layers[number]
        x = x + layer.self_attn.o_proj(attended.flatten(1))
        blocks = x.split(self.mlp_rows or len(x) or 1)
        outputs = [block + layer.mlp(layer.post_attention_layernorm(block)) for block in blocks]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (vocabulary,), float32, of a row (d,) that the last layer gave."""
        return self.lm_head(self.model.norm(x.to(self.device))).float()
