"""Linear layers whose products are of 8-bit integers, on a CPU, by the kernels that torch has.

A weight is one signed byte an entry, with a scale for each output. A row of activations is scaled by its own largest
entry, so its result does not depend on the rows beside it: batches, pruning and caches change nothing.

Two bounds on the error, both measured when they are applied and not assumed:

- Weights: `quantize_weight` gives None for a weight whose entries 8 bits change by more than `WEIGHT_ERROR`: the sum of
  changes over the sum of entries, of each output without its largest, on average over outputs. It stays as it is.
- Activations: a row with few large entries leaves too few steps for its others. If these are smaller than
  `LEAST_STEPS` on average, what rounding takes from the row is multiplied, too, in steps of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omniqa.runtime.int8_kernels import WEIGHT_STEPS, Fbgemm, Kernel, activation_steps

KERNEL = "int8-fbgemm"
VERSION = 1  # counts up whenever the same weight would be quantised otherwise
WEIGHT_ERROR = 0.03  # normal numbers have 0.01
LEAST_STEPS = 1.0  # by the mean of a row's entries, its largest left out; rounding takes 0.29 of each
_EXACT = 1e-3
_BLOCK = 2**20  # entries that are scaled, multiplied and rounded together, so that they stay in the CPU's cache
_LARGE = 2**25  # entries that are quantised together; many small blocks would leave holes in the process's memory


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in 8 bits.

    Attributes:
        values: (out, in) int8, between -127 and 127.
        scales: (out,) float32, what a step of each output is worth.
    """

    values: Tensor
    scales: Tensor


def quantize_weight(weight: Tensor) -> QuantizedWeight | None:
    """A weight (out, in) in 8 bits; None if that changes it by more than WEIGHT_ERROR, or it is not finite."""
    blocks = weight.detach().split(max(1, _LARGE // weight.shape[1]))
    values, scales, changes = map(torch.cat, zip(*map(_quantize_outputs, blocks), strict=True))
    return QuantizedWeight(values, scales) if bool(changes.mean() <= WEIGHT_ERROR) else None


def _quantize_outputs(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values and scales of some outputs' weights, and by which share each is changed, (out,)."""
    upcasted = weight.float()
    largest = upcasted.abs().amax(1)
    scales = torch.where(largest > 0, largest / WEIGHT_STEPS, 1.0)
    steps = (upcasted / scales[:, None]).round_()
    changed = torch.addcmul(upcasted, steps, scales[:, None], value=-1).abs_().sum(1)
    others = upcasted.abs().sum(1) - largest + _EXACT * largest  # an output of one entry alone is exact
    return steps.to(torch.int8), scales, changed / others.clamp(min=torch.finfo(torch.float32).tiny)


class Int8Linear(nn.Module):
    """A linear layer of an 8-bit weight, without gradients. Input and output are of the same float type.

    Attributes:
        finer: multiply what rounding takes from any row, too, so that only the weight's own error is left. Up to four
            rows take no longer than one: the weight has to be read.
    """

    def __init__(
        self, weight: QuantizedWeight, bias: Tensor | None = None, kernel: Callable[[Tensor], Kernel] = Fbgemm
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.values.shape
        # What the state holds tells models apart: of weights their scales, and how they are multiplied.
        self.scales: Tensor
        self.bias: Tensor | None
        self.register_buffer("scales", weight.scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.register_buffer("kernel", torch.tensor([VERSION, activation_steps()]))
        self.finer = False
        self._weight = kernel(weight.values)
        self._steps = activation_steps()
        self._least_sum = self._steps + LEAST_STEPS * (self.in_features - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of (…, in)."""
        rows = x.reshape(-1, self.in_features)
        together = max(1, _BLOCK // max(self.in_features, self.out_features))
        if len(rows) <= together:
            out = self._products(rows).to(x.dtype)
        else:
            out = x.new_empty(len(rows), self.out_features)
            for block, result in zip(rows.split(together), out.split(together), strict=True):
                result.copy_(self._products(block))
        return out.view(*x.shape[:-1], self.out_features)

    def _products(self, rows: Tensor) -> Tensor:
        """(N, out) float32 of rows (N, in)."""
        scaled, step, total = self._scale(rows.to(torch.float32, copy=True))
        peaked = (total < step * self._least_sum)[:, 0]
        if self.finer or bool(peaked.any()):  # what rounding takes from these rows is too much
            finer = torch.arange(len(rows)) if self.finer else peaked.nonzero()[:, 0]
            rest, rest_step, _ = self._scale(scaled[finer] - scaled[finer].round())
            products = self._weight.multiply(torch.cat([scaled, rest]).round_(), self._steps)
            out = products[: len(rows)]
            out.index_add_(0, finer, products[len(rows) :].mul_(rest_step))
        else:
            out = self._weight.multiply(scaled.round_(), self._steps)
        out.mul_(step).mul_(self.scales)
        if self.bias is not None:
            out += self.bias
        return out

    def _scale(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (N, in), float32, in steps, in their place; what a step of each is worth, (N, 1); their sums, (N, 1)."""
        sizes = rows.abs()  # torch's norms and aminmax take ten times as long
        step = sizes.amax(1, keepdim=True).div_(self._steps).clamp_(min=torch.finfo(torch.float32).tiny)
        return rows.div_(step), step, sizes.sum(1, keepdim=True)

    def _apply(self, fn: Any, recurse: bool = True) -> "Int8Linear":
        """What moves or converts a module leaves this one alone: the kernel wants it as it is."""
        return self
