"""What the decoder has computed of system prompt, audio and video, none of which can see the question behind them.

Up to the first layer after which something leaves by a score, these tokens' hidden states, keys and values are the
same for every question about a clip, by the same method. A further question starts from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod
from omniqa.runtime.kv_cache import KVCache


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """The rows before the question in the decoder's first layers.

    layers: keys and values (M, KV, D) of the first layers.
    x, mixed: (M, d) what enters the last of these, and (M, H, D) what its heads attended to; of no use where `layers`
    are all that the decoder has.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    x: Tensor
    attn_output: Tensor

    @property
    def bytes(self) -> int:
        """What is held."""
        held = [self.x, self.attn_output, *(part for pair in self.layers for part in pair)]
        return sum(part.numel() * part.element_size() for part in held)

    @classmethod
    def copied(cls, cache: KVCache, count: int, rows: int, x: Tensor, attn_output: Tensor) -> "PrefixCache":
        """The first `rows` rows of `count` layers, from a prefill that has just come to the last of them."""
        layers = [(keys[:rows].clone(), values[:rows].clone()) for keys, values in map(cache.storage, range(count))]
        return cls(layers, x[:rows], attn_output[:rows])


def shared_layers(pruner: AnyMethod, plan: Plan, layer_bytes: int, most_bytes: int) -> int:
    """How many layers questions can share in `most_bytes`, each `layer_bytes`, by a method and its plan.

    The layer after which something first leaves can be shared, too, but for what is scored with rows of audio: they
    would have to be computed in it.
    """
    first = next((number for number, drops in enumerate(plan.drops) if drops), None)
    free = len(plan.drops) + 1 if first is None else first + (pruner.query_rows != "audio")
    return min(free, most_bytes // layer_bytes)
