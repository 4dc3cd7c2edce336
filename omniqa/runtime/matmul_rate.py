"""What the machine computes a second."""

import time

import torch

_CPU = torch.device("cpu")
_SIZES = {"cpu": (1536, 2048), "cuda": (8192, 8192)}  # rows and width: enough to keep the device busy


def matmul_rate(dtype: torch.dtype, device: torch.device = _CPU, size: tuple[int, int] | None = None) -> float:
    """Measured FLOP/s of a matrix product, best of three after one that does not count.

    size: rows and width; None takes what is as large as a decoder layer's.
    """
    rows, width = size or _SIZES.get(device.type, _SIZES["cpu"])
    x, weight = (torch.randn(count, width, device=device).to(dtype) for count in (rows, width))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        product = torch.nn.functional.linear(x, weight)
        product[0, 0].item()  # which waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * rows * width * width / min(seconds[1:])
