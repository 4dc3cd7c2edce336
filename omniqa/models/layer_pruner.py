"""Between the decoder's layers: a method's signals, the tokens that it drops, and the caches that it prunes."""

from collections.abc import Callable

import torch
from torch import Tensor

from omniqa.models.base import AUDIO
from omniqa.models.prefill_rows import PrefillInput, Rotary, Rows, kept_rows
from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod, HiddenStates, LayerKeys, LayerSignals, Scores
from omniqa.pruning.ops import nonzero_static
from omniqa.runtime.attention import attention_received
from omniqa.runtime.kv_cache import KVCache

Project = Callable[[int, Tensor, Rotary, int], tuple[Tensor, Tensor, Tensor]]


class QueryScorer:
    """Attention that rows of the prompt give the audio and video tokens, layer by layer.

    asked, unasked: (layers - 1, n) float32, see PrefillOutput; 0 in layers not seen yet.
    scores: S_i of each layer, as the method counts it, or as "prompt" rows give it if it counts none; None where it was
        not needed.
    """

    def __init__(self, prompt: PrefillInput, method: AnyMethod, layers: int) -> None:
        self.asked: Tensor = torch.zeros(layers, len(prompt.chunk), device=prompt.embeddings.device)
        self.unasked: Tensor = torch.zeros_like(self.asked)
        self.scores: list[Tensor | None] = []
        needed = method.need(Scores)
        self.rows = needed.rows if needed else None
        self._from_span = method.drop_point == "attention" and self.rows in (None, "prompt")
        self._prompt = prompt
        self._span = len(prompt.embeddings) - prompt.media.stop - prompt.earlier
        self._audio = _count_audio(prompt) if self.rows == "audio" else 0

    def to(self, device: torch.device) -> None:
        """Go to the device of the next layer; `scores` stay where they are."""
        self.asked, self.unasked = self.asked.to(device), self.unasked.to(device)
        self._prompt = self._prompt.to(device)

    def attend(self, q: Tensor, keys: Tensor, rows: Rows) -> None:
        """Count what a layer attended to, by its queries (the sequence's last rows) and all its keys.

        Attention sinks, and what a clip's tokens get whatever is asked, are in both rows and cancel out.
        """
        span = torch.arange(len(keys) - self._span, len(keys), device=keys.device)
        behind = torch.arange(rows.media.stop, rows.media.stop + 1, device=keys.device)
        layer = len(self.scores)
        self.asked[layer, rows.index] = self._received(q, keys, rows, span[-1:])
        self.unasked[layer, rows.index] = self._received(q, keys, rows, behind)
        self.scores.append(self._received(q, keys, rows, span) if self._from_span else None)

    def score(self, q: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
        """S_i (n_l,) float32 of the layer seen last, by queries and keys at the drop; None if the method needs none."""
        if self.rows is not None and not self._from_span:
            self.scores[-1] = self._received(q, keys, rows, self._query_rows(rows, keys))
        return self.scores[-1] if self.rows is not None else None

    def _received(self, q: Tensor, keys: Tensor, rows: Rows, places: Tensor) -> Tensor:
        """Attention (n_l,) float32 that the rows at `places` of the sequence give the media; 0 from no row."""
        return attention_received(q[places - (len(keys) - len(q))], keys, places, rows.media)

    def _query_rows(self, rows: Rows, keys: Tensor) -> Tensor:
        """The rows that the method scores with, in a sequence as long as `keys`; none of them is ever pruned."""
        if self.rows == "question":
            return len(keys) + self._prompt.question
        if self.rows == "audio":
            return rows.media.start + nonzero_static(self._prompt.modality[rows.index] == AUDIO, self._audio)
        return torch.arange(len(keys) - (1 if self.rows == "last" else self._span), len(keys), device=keys.device)


class LayerPruner:
    """Asks the method after each layer, and drops what it does not keep.

    Attributes:
        scorer: what was attended to so far.
        alive, cached: see PrefillOutput.
    """

    def __init__(self, prompt: PrefillInput, method: AnyMethod, plan: Plan, cache: KVCache, project: Project) -> None:
        self.scorer = QueryScorer(prompt, method, len(plan.drops))
        self.alive: list[Tensor] = []
        self.cached: list[Tensor] = []
        self._prompt, self._method, self._plan, self._cache, self._project = prompt, method, plan, cache, project

    def count(self, rows: Rows) -> None:
        """Note which tokens a layer computes, and go where it is."""
        device = rows.index.device
        self.scorer.to(device)
        self._prompt = self._prompt.to(device)
        self.alive.append(rows.index)
        self.cached.append(rows.index)

    def drop_before_mlp(self, layer: int, rows: Rows, q: Tensor, keys: Tensor, attn_output: Tensor) -> Tensor:
        """Drop from the rows, and from `attn_output`, what the method prunes by a layer's attention."""
        if not self._drops(layer, "attention"):
            return attn_output
        kept = self._choose(layer, rows, q, keys)
        return attn_output[rows.keep(kept)]

    def drop_after_mlp(self, layer: int, rows: Rows) -> None:
        """Drop from the rows what the method prunes by a layer's output."""
        if not self._drops(layer, "output"):
            return
        q, keys = rows.x[:0], rows.x[:0]
        if self.scorer.rows is not None or self._method.need(LayerKeys):
            q, keys, _ = self._project(
                layer, rows.x, rows.rotary, 0 if self.scorer.rows == "audio" else rows.media.stop
            )
        rows.keep(self._choose(layer, rows, q, keys))

    def _drops(self, layer: int, point: str) -> bool:
        return self._method.drop_point == point and self._plan.prunes(layer)

    def _choose(self, layer: int, rows: Rows, q: Tensor, keys: Tensor) -> Tensor:
        """The places (m,) that the method keeps; the caches are pruned if it says so."""
        method, prompt = self._method, self._prompt
        signals = LayerSignals(
            prompt.modality[rows.index],
            prompt.chunk[rows.index],
            prompt.max_chunk,
            scores=self.scorer.score(q, keys, rows),
            keys=keys[rows.media] if method.need(LayerKeys) else None,
            hidden_states=rows.x[rows.media] if method.need(HiddenStates) else None,
        )
        kept = method.prune_layer(layer, signals, self._plan)
        if kept.prune_caches:
            self._prune_caches(layer, rows.index, rows.index[kept.keep])
        return kept.keep

    def _prune_caches(self, layer: int, alive: Tensor, kept: Tensor) -> None:
        """Take the tokens that are in `alive` and not in `kept` out of the caches of all layers up to `layer`."""
        dropped = torch.zeros_like(self._prompt.modality, dtype=torch.bool)
        dropped = dropped.index_fill_(0, alive, True).index_fill_(0, kept, False)
        start = self._prompt.media.start
        for number, held in enumerate(self.cached[: layer + 1]):
            stay = nonzero_static(~dropped.to(held.device)[held], len(held) - len(alive) + len(kept))
            media = slice(start, start + len(held))
            self._cache.keep(number, kept_rows(self._cache.lengths[number], media, stay))
            self.cached[number] = held[stay]


def _count_audio(prompt: PrefillInput) -> int:
    """The audio tokens that enter layer 0. The one number that a prefill reads back, before its first layer."""
    return int((prompt.modality[prompt.index] == AUDIO).sum())
