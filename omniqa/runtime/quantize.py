"""Quantising the linear layers of a loaded model in place, one at a time, so that no two copies stand in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn

from omniqa.runtime.int8 import Int8Linear, QuantizedWeight, quantize_weight

Shapes = Mapping[str, tuple[int, int]]
Stored = Mapping[str, QuantizedWeight | None]
Add = Callable[[str, QuantizedWeight | None], None]


class WeightStore(Protocol):
    """Keeps quantised weights from one run to the next. In all of it, None stands for a weight that stays float."""

    def key(self, parts: Sequence[nn.Module]) -> str:
        """What tells the weights of a model, before they are quantised, from others'."""

    def find(self, key: str, shapes: Shapes) -> Stored | None:
        """What `adding` kept under this key, a weight for each shape (out, in) by name; None if it is not there."""

    def adding(self, key: str, shapes: Shapes) -> AbstractContextManager[Add]:
        """Gives what takes the weights of these names, one by one in this order."""


def quantize(parts: Sequence[nn.Module], store: WeightStore | None = None) -> None:
    """Put `Int8Linear` in the place of the linear layers inside `parts`, but for those that its rule leaves out.

    Args:
        parts: the modules; their linear layers may be of any float type.
        store: where quantised weights are found, or kept for the next time.
    """
    places = dict(_linears(parts))
    shapes = {name: (linear.out_features, linear.in_features) for name, (_, _, linear) in places.items()}
    key = store.key(parts) if store else ""
    stored = store.find(key, shapes) if store else None
    with store.adding(key, shapes) if store and stored is None else nullcontext(_forget) as add:
        for name in shapes:
            parent, attribute, linear = places.pop(name)
            weight = quantize_weight(linear.weight) if stored is None else stored[name]
            if stored is None:
                add(name, weight)
            if weight is not None:
                setattr(parent, attribute, Int8Linear(weight, linear.bias))


def _linears(parts: Sequence[nn.Module]) -> Iterator[tuple[str, tuple[nn.Module, str, nn.Linear]]]:
    """Name, parent, attribute and layer of every linear layer inside `parts`, the first one's first."""
    for number, part in enumerate(parts):
        for path, parent in part.named_modules():
            for attribute, child in parent.named_children():
                if type(child) is nn.Linear:
                    yield ".".join(filter(None, (str(number), path, attribute))), (parent, attribute, child)


def _forget(name: str, weight: QuantizedWeight | None) -> None:
    pass
