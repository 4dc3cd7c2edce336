"""Quantising the linear layers of a loaded model in place, one at a time, so that no two copies stand in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from omniqa.errors import ModelError
from omniqa.runtime import nf4
from omniqa.runtime.int8 import KERNEL, VERSION, Int8Linear, QuantizedWeight, quantize_weight
from omniqa.runtime.int8_kernels import Fbgemm, kernel_for_many_rows
from omniqa.runtime.merged import GatedMLP, MergedPart, split
from omniqa.runtime.scaled import ScaledLinear, quantize_fp8

_CPU = torch.device("cpu")
# Names that transformers gives to layers of the same input, which stand side by side in their parent.
_SAME_INPUT = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
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
        everywhere: whether the encoders' layers and `lm_head` are quantised, too, and not the decoder's alone.
        merges: whether layers that take the same input become one.
    """

    name: str
    stored: str
    everywhere: bool
    merges: bool

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:
        """The values' shape and the number of scales of a weight (out, into)."""

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:
        """The weight; None if it has to stay float."""

    def layer(self, weight: QuantizedWeight, linear: nn.Linear, many_rows: bool) -> nn.Module:
        """The layer that replaces `linear`.

        Args:
            weight: its weight, quantised.
            linear: the layer, for its shape and bias.
            many_rows: whether every product has many rows, as in an encoder.
        """


class Int8Products:
    """Bytes that are multiplied as such, on a CPU."""

    name = f"{KERNEL} {VERSION}"
    stored = "I8"
    everywhere = merges = True

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:  # noqa: D102
        return (out, into), out

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return quantize_weight(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear, many_rows: bool) -> nn.Module:  # noqa: D102
        return Int8Linear(weight, linear.bias, kernel_for_many_rows() if many_rows else Fbgemm)


class Scaled(Int8Products):
    """Bytes that are dequantised for each product, on any device: int8, or fp8."""

    everywhere = merges = False

    def __init__(self, kind: str) -> None:
        self._is_fp8 = kind == "fp8"
        self.name = f"{kind}-scaled 1"
        self.stored = "F8_E4M3" if self._is_fp8 else "I8"

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return quantize_fp8(weight) if self._is_fp8 else quantize_weight(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear, many_rows: bool) -> nn.Module:  # noqa: D102
        return ScaledLinear(weight, linear.bias)


class Nf4:
    """Four bits an entry, by bitsandbytes, on any device that it knows."""

    name = "nf4-bitsandbytes 1"
    stored = "U8"
    everywhere = merges = False

    def sizes(self, out: int, into: int) -> tuple[tuple[int, int], int]:  # noqa: D102
        return nf4.values_shape(out, into), nf4.scale_count(out, into)

    def quantize(self, weight: Tensor) -> QuantizedWeight | None:  # noqa: D102
        return nf4.quantize_nf4(weight)

    def layer(self, weight: QuantizedWeight, linear: nn.Linear, many_rows: bool) -> nn.Module:  # noqa: D102
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
    many_rows: Sequence[nn.Module] = (),
) -> None:
    """Quantise the linear layers inside `parts`, but for those that the scheme leaves out.

    Args:
        parts: the modules; their linear layers may be of any float type.
        store: where quantised weights are found, or kept for the next time.
        scheme: what they become.
        device: where this is done, and where the new layers are.
        elsewhere: linear layers of which this is another device.
        many_rows: those of `parts` whose products all have many rows: the encoders.
    """
    places = dict(_linears(parts, many_rows))
    shapes = {name: (linear.out_features, linear.in_features) for name, (_, _, linear, _) in places.items()}
    key = store.key(parts) if store else ""
    stored = store.find(key, shapes) if store else None
    with store.adding(key, shapes) if store and stored is None else nullcontext(_forget) as add:
        for _, run in groupby(shapes, lambda name: places[name].same_input):
            weights = {}
            for name in run:
                place = elsewhere.get(places[name].linear, device)
                weight = scheme.quantize(places[name].linear.weight.to(place)) if stored is None else stored.pop(name)
                if stored is None:
                    add(name, weight)
                weights[places.pop(name)] = weight and QuantizedWeight(weight.values.to(place), weight.scales.to(place))
            _replace(weights, scheme)
    _multiply_gates_once(parts)


class _Place(NamedTuple):
    """A linear layer, the attribute of `parent` that it is, and whether it always takes many rows."""

    parent: nn.Module
    attribute: str
    linear: nn.Linear
    many_rows: bool

    @property
    def same_input(self) -> tuple[int, object]:
        """What is equal for two layers that take the same input."""
        group = next((number for number, names in enumerate(_SAME_INPUT) if self.attribute in names), self.attribute)
        return id(self.parent), group


def _linears(parts: Sequence[nn.Module], many_rows: Sequence[nn.Module]) -> Iterator[tuple[str, _Place]]:
    """Names and places of all linear layers inside `parts`, the first one's first."""
    for number, part in enumerate(parts):
        for path, parent in part.named_modules():
            for attribute, child in parent.named_children():
                if type(child) is nn.Linear:
                    name = ".".join(filter(None, (str(number), path, attribute)))
                    yield name, _Place(parent, attribute, child, part in many_rows)


def _replace(weights: Mapping[_Place, QuantizedWeight | None], scheme: Scheme) -> None:
    """Put quantised layers in the places of some that take the same input, and leave those that stay float."""
    quantized = {place: weight for place, weight in weights.items() if weight is not None}
    linears, many_rows = [place.linear for place in quantized], any(place.many_rows for place in quantized)
    if scheme.merges and len(quantized) > 1:
        whole = scheme.layer(_join_weights([*quantized.values()]), _join_biases(linears), many_rows)
        layers: Iterable[nn.Module] = split(whole, [linear.out_features for linear in linears])
    else:
        layers = (scheme.layer(weight, place.linear, many_rows) for place, weight in quantized.items())
    for place, layer in zip(quantized, layers, strict=True):
        setattr(place.parent, place.attribute, layer)


def _multiply_gates_once(parts: Sequence[nn.Module]) -> None:
    """Put a GatedMLP in the place of every MLP whose first two layers were merged."""
    for parent in [module for part in parts for module in part.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(getattr(child, "gate_proj", None), MergedPart) and isinstance(child.up_proj, MergedPart):
                setattr(parent, name, GatedMLP(child))


def _join_weights(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """The weight of all outputs of some layers, one layer's behind the other's."""
    return QuantizedWeight(
        torch.cat([weight.values for weight in weights]), torch.cat([weight.scales for weight in weights])
    )


def _join_biases(linears: Sequence[nn.Linear]) -> nn.Linear:
    """A layer of all outputs and biases of some layers, without a weight. A layer that has no bias has 0."""
    joined = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears), False, device="meta")
    if any(linear.bias is not None for linear in linears):
        biases = (
            torch.zeros(linear.out_features) if linear.bias is None else linear.bias.float() for linear in linears
        )
        joined.bias = nn.Parameter(torch.cat([*biases]), requires_grad=False)
    return joined


def _forget(name: str, weight: QuantizedWeight | None) -> None:
    pass
