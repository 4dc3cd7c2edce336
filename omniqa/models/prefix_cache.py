"""What the decoder has computed of system prompt, audio and video, none of which can see the question behind them.

Up to the first layer after which something leaves by a score, these tokens' hidden states, keys and values are the
same for every question about a clip, by the same method. A further question starts from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from omniqa.pruning.budget import Plan
from omniqa.pruning.contract import AnyMethod, QueryEmbeddings, Scores


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """The rows before the question in the decoder's first layers.

    layers: keys and values (M, KV, D) of the first layers.
    x: (M, d) what enters the last of these. attn_output: (M, H, D) what its heads attended to. Both are empty if
        `layers` are all that the decoder has.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    x: Tensor
    attn_output: Tensor

    @property
    def bytes(self) -> int:
        """What is held."""
        held = [self.x, self.attn_output, *(part for pair in self.layers for part in pair)]
        return sum(part.numel() * part.element_size() for part in held)


def shared_layers(pruner: AnyMethod, plan: Plan, layer_bytes: int, most_bytes: int) -> int:
    """How many layers questions can share in `most_bytes`, each `layer_bytes`, by a method and its plan.

    The layer after which something first leaves can be shared, too, unless what enters it is scored with rows of audio:
    they would have to be computed in it. A method that looks at the question before layer 0 shares nothing.
    """
    if pruner.need(QueryEmbeddings):
        return 0
    first = next((layer for layer in range(plan.layers - 1) if plan.prunes(layer)), None)
    by_audio = pruner.drop_point == "attention" and pruner.need(Scores) == Scores("audio")
    free = plan.layers if first is None else first + (not by_audio)
    return min(free, most_bytes // layer_bytes)
