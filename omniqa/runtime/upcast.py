"""Products of bfloat16 weights in float32, where a CPU is faster at that: one without matrix units for bfloat16.

Weights and activations stay in bfloat16, and so does memory; a product's factors are upcast while it runs.
The result is rounded once, so it is nearer to float32's than a product in bfloat16 is.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 64  # fewer are bound by reading the weights, not by computing
_WORTH = 1.2  # times faster, to make up for upcasting
_SAMPLE = (256, 1024)  # rows and width of the products that tell
_ROUNDS = 5


class _Scratch:
    """Memory for one upcast weight, used by one product after the other."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    def upcasted(self, weight: Tensor) -> Tensor:
        """The weight in float32, until the next call."""
        if self._room.numel() < weight.numel():
            self._room = torch.empty(weight.numel())
        return self._room[: weight.numel()].view(weight.shape).copy_(weight)


class UpcastLinear(nn.Linear):
    """A linear layer that takes and gives bfloat16 and computes in float32 where there are many rows."""

    def __init__(self, linear: nn.Linear, scratch: _Scratch) -> None:
        nn.Module.__init__(self)  # its weights are there already
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._scratch = scratch

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of (…, in)."""
        if x.numel() < _ROWS * self.in_features:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self._scratch.upcasted(self.weight), bias).to(x.dtype)


class UpcastConv1d(nn.Module):
    """A convolution that takes and gives bfloat16 and computes in float32."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._how: Any = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, N') of (B, in, N)."""
        bias = None if self.bias is None else self.bias.float()
        return F.conv1d(x.float(), self.weight.float(), bias, *self._how).to(x.dtype)


class DequantizedLinear(nn.Module):
    """A linear layer, without gradients, whose weight is dequantised to the type of its input for each product.

    Attributes:
        upcasts: whether an input of many rows is upcast to float32 first.
    """

    in_features: int
    out_features: int
    upcasts = False

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of (…, in), in the float type of x."""
        if self.upcasts and x.numel() >= _ROWS * self.in_features:
            return self.product(x.float()).to(x.dtype)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """(…, out) of (…, in), in the float type of x and computed in it."""
        raise NotImplementedError


def float32_is_faster() -> bool:
    """Whether this machine's CPU multiplies matrices so much faster in float32 than in bfloat16.

    By the time that one core itself works, the best of a few rounds: a clock, or several threads that wait for each
    other, would tell of whatever else runs just now.
    """
    rows, width = _SAMPLE
    samples = {
        dtype: (torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    best = dict.fromkeys(samples, float("inf"))
    with _one_thread():
        for _ in range(_ROUNDS):
            for dtype, (x, weight) in samples.items():
                start = time.thread_time()
                F.linear(x, weight)
                best[dtype] = min(best[dtype], time.thread_time() - start)
    return best[torch.bfloat16] > _WORTH * best[torch.float32]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def upcast(module: nn.Module) -> None:
    """Let linear layers and convolutions inside `module`, of bfloat16 or quantised weights, compute in float32."""
    scratch = _Scratch()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if _is_plain(child) and child.weight.dtype == torch.bfloat16:
                setattr(parent, name, UpcastLinear(child, scratch))
            elif isinstance(child, DequantizedLinear):
                child.upcasts = True
            elif type(child) is nn.Conv1d and child.weight.dtype == torch.bfloat16 and child.padding_mode == "zeros":
                setattr(parent, name, UpcastConv1d(child))


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a Linear and nothing more: a quantised one may have another weight or another `forward`."""
    weight = module._parameters.get("weight")
    return type(module) is nn.Linear and type(weight) is nn.Parameter and "forward" not in vars(module)
