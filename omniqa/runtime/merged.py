"""Linear layers that take the same input and are multiplied as one: its rows are read, and quantised, once."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn


class MergedPart(nn.Module):
    """One of the linear layers whose outputs `whole` gives one behind the other.

    Attributes:
        whole: the layer of all of them.
        outputs: which of its outputs are this layer's.
    """

    def __init__(self, whole: nn.Module, outputs: slice) -> None:
        super().__init__()
        self.whole = whole
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of (…, in). Alone it costs as much as all of `whole`; see `project`."""
        out: Tensor = self.whole(x)[..., self.outputs]
        return out


def split(whole: nn.Module, sizes: Sequence[int]) -> Iterator[MergedPart]:
    """The parts of a merged layer, of so many outputs each."""
    start = 0
    for size in sizes:
        yield MergedPart(whole, slice(start, start + size))
        start += size


def project(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """What each of some linear layers gives for x, by one product if they are parts of one."""
    parts = [layer for layer in layers if isinstance(layer, MergedPart)]
    if len(parts) < len(layers) or len({part.whole for part in parts}) > 1:
        return tuple(layer(x) for layer in layers)
    out = parts[0].whole(x)
    return tuple(out[..., part.outputs] for part in parts)


class GatedMLP(nn.Module):
    """A gated MLP of transformers, `mlp`, whose first two layers are parts of one."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.act_fn = mlp.act_fn

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) of (…, d)."""
        gate, up = project(x, self.gate_proj, self.up_proj)
        out: Tensor = self.down_proj(self.act_fn(gate) * up)
        return out
