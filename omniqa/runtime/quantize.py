"""Quantising the linear layers of a loaded model in place, one at a time, so that no two copies stand in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from omniqa.errors import ModelError
from omniqa.runtime import nf4
from omniqa.runtime.int8 import KERNEL, VERSION, Int8Linear, QuantizedWeight, quantize_weight
from omniqa.runtime.scaled import ScaledLinear, quantize_fp8

_CPU = torch.device("cpu")
Shapes = Mapping[str, tuple[int, int]]
Stored = dict[str, QuantizedWeight | None]
Add = Callable[[str, QuantizedWeight | None], None]


class WeightStore(Protocol):
    """Keeps quantised weights from one run to the next. In all of it, None stands for a weight that stays float."""

    def key(self, parts: Sequence[nn.Module]) -> str:
        """What tells the weights of a model, before they are quantised, from others'."""

    def find(self, key: str, shapes: Shapes) -> Stored | None:
        """What `adding` kept under this key, a weight for each shape (out, in) by name; None if it is not there."""

    def adding(self, key: str, shapes: Shapes) -> AbstractContextManager[Add]:
        """Gives what takes the weights of these names, one by one in this order."""


class Scheme(Protocol):
    """A form of quantised weights.

    Attributes:
        name: tells files of such weights from others'; changes whenever the same weight would be quantised otherwise.
        stored: the type of the values, as safetensors calls it.
        encoders: whether the encoders' layers are quantised, too.
    """

    name: str
    stored: str
    encoders: bool

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:
        """The values' shape and the number of scales of a weight (out, into)."""

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:
        """The weight; None if it has to stay float."""

    def layer(self, weight: QuantizedWeight, linear: nn.Linear) -> nn.Module:
        """What stands in the place of `linear`."""


class Int8Products:
    """Bytes that are multiplied as such, on a CPU."""

    name = f"{KERNEL} {VERSION}"
    stored = "I8"
    encoders = True

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:  # noqa: D102
        return (out, into), out

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return quantize_weight(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear) -> nn.Module:  # noqa: D102
        return Int8Linear(weight, linear.bias)


class Scaled(Int8Products):
    """Bytes that are dequantised for each product, on any device: int8, or fp8."""

    encoders = False

    def __init__(self, kind: str) -> None:
        self._is_fp8 = kind == "fp8"
        self.name = f"{kind}-scaled 1"
        self.stored = "F8_E4M3" if self._is_fp8 else "I8"

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return quantize_fp8(weight) if self._is_fp8 else quantize_weight(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear) -> nn.Module:  # noqa: D102
        return ScaledLinear(weight, linear.bias)


class Nf4:
    """Four bits an entry, by bitsandbytes, on any device that it knows."""

    name = "nf4-bitsandbytes 1"
    stored = "U8"
    encoders = False

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:  # noqa: D102
        return nf4.values_shape(out, into), nf4.scale_count(out, into)

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return nf4.quantize_nf4(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear) -> nn.Module:  # noqa: D102
        return nf4.Nf4Linear(weight, (linear.out_features, linear.in_features), linear.bias)


def scheme_of(quantize: str, device: torch.device) -> Scheme:
    """The scheme that one of `device.QUANTIZATIONS` is on a device.

    Raises:
        ModelError: it needs a package that is not installed.
    """
    if quantize == "nf4":
        if find_spec("bitsandbytes") is None:
            raise ModelError("quantize nf4 needs bitsandbytes.", field="quantize", advice=INSTALL_BNB)
        return Nf4()
    if quantize == "int8" and device.type == "cpu":
        return INT8
    return Scaled(quantize)


INT8 = Int8Products()
INSTALL_BNB = "Install it by pip install 'omniqa[bnb]'."


def quantize(
    parts: Sequence[nn.Module],
    store: WeightStore | None = None,
    scheme: Scheme = INT8,
    device: torch.device = _CPU,
    elsewhere: Mapping[nn.Module, torch.device] = MappingProxyType({}),
) -> None:
    """Quantise the linear layers inside `parts`, but for those that the scheme leaves out.

    Args:
        parts: the modules; their linear layers may be of any float type.
        store: where quantised weights are found, or kept for the next time.
        scheme: what they become.
        device: where this is done, and where the new layers are.
        elsewhere: linear layers of which this is another device.
    """
    places = dict(_linears(parts))
    shapes = {name: (linear.out_features, linear.in_features) for name, (_, _, linear) in places.items()}
    key = store.key(parts) if store else ""
    stored = store.find(key, shapes) if store else None
    with store.adding(key, shapes) if store and stored is None else nullcontext(_forget) as add:
        for name in shapes:
            parent, attribute, linear = places.pop(name)
            place = elsewhere.get(linear, device)
            weight = scheme.quantize(linear.weight.to(place)) if stored is None else stored.pop(name)
            if stored is None:
                add(name, weight)
            if weight is not None:
                weight = QuantizedWeight(weight.values.to(place), weight.scales.to(place))
                setattr(parent, attribute, scheme.layer(weight, linear))


def _linears(parts: Sequence[nn.Module]) -> Iterator[tuple[str, tuple[nn.Module, str, nn.Linear]]]:
    """Name, parent, attribute and layer of every linear layer inside `parts`, the first one's first."""
    for number, part in enumerate(parts):
        for path, parent in part.named_modules():
            for attribute, child in parent.named_children():
                if type(child) is nn.Linear:
                    yield ".".join(filter(None, (str(number), path, attribute))), (parent, attribute, child)


def _forget(name: str, weight: QuantizedWeight | None) -> None:
    pass
