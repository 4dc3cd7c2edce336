"""The kernels that torch has for 8-bit products on a CPU. Both give the same sums, to the last bit.

FBGEMM reads a weight for one row about as fast as memory gives it. For many rows oneDNN takes about half of
FBGEMM's time where the CPU multiplies blocks of bytes (AMX); for one row of a large layer it takes twice as long. A
weight is kept as one of them wants it: both would take twice the memory.
"""

import time
from abc import ABC, abstractmethod
from functools import cache
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor

WEIGHT_STEPS = 127
_ENGINE = "fbgemm"
_TRIAL = 256, 1280, 1280  # rows, inputs and outputs of the product that both kernels are timed on
_GAIN = 1.25  # how much faster the other kernel has to be


class Kernel(ABC):
    """A weight as a kernel keeps it. Scales stay outside, where they are exact."""

    @abstractmethod
    def __init__(self, values: Tensor) -> None:
        """values: (out, in) int8, between -127 and 127."""

    @abstractmethod
    def multiply(self, rows: Tensor, steps: int) -> Tensor:
        """(N, out) float32: rows (N, in), float32 that are whole numbers within ±steps, times the weight."""


class Fbgemm(Kernel):
    """The kernel of torch's dynamic linear layers."""

    def __init__(self, values: Tensor) -> None:
        with catch_warnings():
            # torch plans to replace these tensors by plain ones; the kernel takes no plain ones yet.
            filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            weight = torch._make_per_tensor_quantized_tensor(values.contiguous(), 1.0, 0)
            before = torch.backends.quantized.engine
            torch.backends.quantized.engine = _ENGINE
            try:
                self._packed = torch.ops.quantized.linear_prepack(weight, None)
            finally:
                torch.backends.quantized.engine = before

    def multiply(self, rows: Tensor, steps: int) -> Tensor:  # noqa: D102
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return product(rows, 1.0, steps + 1, self._packed)


class OneDnn(Kernel):
    """The kernel of torch's linear layers for exported graphs."""

    def __init__(self, values: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(values.contiguous(), None)
        self._unscaled = torch.ones(1), torch.zeros(1, dtype=torch.int32)

    def multiply(self, rows: Tensor, steps: int) -> Tensor:  # noqa: D102
        whole = rows.add(steps + 1).to(torch.uint8), 1.0, steps + 1
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            *whole, self._packed, *self._unscaled, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product


def is_supported() -> bool:
    """Whether this torch has a kernel for this machine."""
    return _ENGINE in torch.backends.quantized.supported_engines


@cache
def activation_steps() -> int:
    """How many steps a row's activations have on either side of 0: 127, or 63 if this CPU's kernel overflows.

    AVX2 adds two products in 16 bits. Activations of 7 bits always fit there; the instructions that came later
    (VNNI) add in 32 bits. The kernel is asked, not the list of the CPU's features.
    """
    full = WEIGHT_STEPS
    product = Fbgemm(torch.full((32, 64), full, dtype=torch.int8)).multiply(torch.full((1, 64), float(full)), full)
    return full if bool((product == 64 * full * full).all()) else full // 2


@cache
def kernel_for_many_rows() -> type[Kernel]:
    """The kernel for weights whose products all have many rows.

    It is oneDNN's if that gives FBGEMM's sums for one product, in clearly less time.
    """
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return Fbgemm
    count, width, out = _TRIAL
    random, steps = torch.Generator().manual_seed(0), activation_steps()
    values = torch.randint(-WEIGHT_STEPS, WEIGHT_STEPS + 1, (out, width), generator=random).to(torch.int8)
    rows = torch.randint(-steps, steps + 1, (count, width), generator=random).float()
    (sums, usual), (others, found) = (_timed(kind(values), rows, steps) for kind in (Fbgemm, OneDnn))
    return OneDnn if torch.equal(sums, others) and found * _GAIN < usual else Fbgemm


def _timed(kernel: Kernel, rows: Tensor, steps: int) -> tuple[Tensor, float]:
    """A product (N, out), and its shortest time of five, in seconds."""
    seconds, sums = [], kernel.multiply(rows, steps)
    for _ in range(5):
        start = time.perf_counter()
        kernel.multiply(rows, steps)
        seconds.append(time.perf_counter() - start)
    return sums, min(seconds)
