"""Linear layers of 4-bit weights: NormalFloat in blocks of 64 (arXiv 2305.14314), by bitsandbytes."""

import torch
from torch import Tensor

from omniqa.runtime.int8 import QuantizedWeight
from omniqa.runtime.upcast import DequantizedLinear

BLOCK = 64
_PACKED = 2  # entries of a byte


def values_shape(out: int, into: int) -> tuple[int, int]:
    """The shape of the bytes that hold a weight (out, into)."""
    return -(-out * into // _PACKED), 1


def scale_count(out: int, into: int) -> int:
    """How many scales a weight (out, into) has."""
    return -(-out * into // BLOCK)


def quantize_nf4(weight: Tensor) -> QuantizedWeight | None:
    """A weight (out, in) in 4 bits, values uint8 of `values_shape`; None if it is not finite."""
    from bitsandbytes.functional import quantize_4bit

    if not bool(weight.isfinite().all()):
        return None
    values, state = quantize_4bit(weight.detach().contiguous(), blocksize=BLOCK, quant_type="nf4")
    # A block of zeros has the scale 0, which no file of weights may have.
    return QuantizedWeight(values.view(values_shape(*weight.shape)), state.absmax.float().clamp(min=1e-30))


class Nf4Linear(DequantizedLinear):
    """A linear layer of such a weight."""

    def __init__(self, weight: QuantizedWeight, shape: tuple[int, int], bias: Tensor | None = None) -> None:
        from bitsandbytes.functional import get_4bit_type

        super().__init__()
        self.out_features, self.in_features = shape
        self.values: Tensor
        self.scales: Tensor
        self.levels: Tensor
        self.bias: Tensor | None
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("levels", get_4bit_type("nf4", device=weight.values.device))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def product(self, x: Tensor) -> Tensor:
        """See DequantizedLinear."""
        from bitsandbytes import matmul_4bit
        from bitsandbytes.functional import QuantState

        shape = torch.Size((self.out_features, self.in_features))
        state = QuantState(self.scales, shape, self.levels, BLOCK, "nf4", x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return matmul_4bit(x, self.values.t(), state, bias=bias)
