"""Linear layers whose weight is 8 bits an entry with a scale for each output, and whose products are of floats.

They save memory on any device, and no time: the weight is dequantised for each product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.runtime.int8 import QuantizedWeight
from omniqa.runtime.upcast import DequantizedLinear

FP8 = torch.float8_e4m3fn
_FP8_LARGEST = torch.finfo(FP8).max


def quantize_fp8(weight: Tensor) -> QuantizedWeight | None:
    """A weight (out, in) as float8_e4m3fn; None if it is not finite."""
    upcasted = weight.detach().float()
    largest = upcasted.abs().amax(1)
    if not bool(largest.isfinite().all()):
        return None
    scales = torch.where(largest > 0, largest / _FP8_LARGEST, 1.0)
    return QuantizedWeight((upcasted / scales[:, None]).clamp_(-_FP8_LARGEST, _FP8_LARGEST).to(FP8), scales)


class ScaledLinear(DequantizedLinear):
    """A linear layer of such a weight, int8 or FP8."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.values.shape
        self.values: Tensor
        self.scales: Tensor
        self.bias: Tensor | None
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def product(self, x: Tensor) -> Tensor:
        """See DequantizedLinear."""
        out = F.linear(x, self.values.to(x.dtype)) * self.scales
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype)
