"""What the machine computes a second."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from omniqa.runtime.int8 import Int8Linear, quantize_weight
from omniqa.runtime.int8_kernels import is_supported

_CPU = torch.device("cpu")
_SIZES = {"cpu": (1536, 2048), "cuda": (8192, 8192)}  # rows and width: enough to keep the device busy


def matmul_rate(dtype: torch.dtype, device: torch.device = _CPU, size: tuple[int, int] | None = None) -> float:
    """Measured FLOP/s of a matrix product, best of three after one that does not count.

    Args:
        size: rows and width; None takes what is as large as a decoder layer's.
    """
    rows, width = size or _SIZES.get(device.type, _SIZES["cpu"])
    x, weight = (torch.randn(count, width, device=device).to(dtype) for count in (rows, width))
    return _rate(lambda: torch.nn.functional.linear(x, weight), rows, width)


@torch.inference_mode()
def int8_rate() -> float | None:
    """The same of an 8-bit weight, on the CPU; None if this torch has no kernel for it."""
    rows, width = _SIZES["cpu"]
    weight = quantize_weight(torch.randn(width, width))
    if weight is None or not is_supported():
        return None
    layer, x = Int8Linear(weight), torch.randn(rows, width)
    return _rate(lambda: layer(x), rows, width)


def _rate(multiply: Callable[[], Tensor], rows: int, width: int) -> float:
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        multiply()[0, 0].item()  # which waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * rows * width * width / min(seconds[1:])
