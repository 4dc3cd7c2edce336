"""flash-attn: which package of it can run where, and the calls to it.

The functions are those of flash-attn 2 and 3, whose arguments have the same names as far as they are used here:
flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache. flash-attn 3 gave (output, log-sum-exp) for a while.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class FlashPackage:
    """A package with flash-attn's functions.

    Attributes:
        module: what is imported.
        title: what it is called where it is shown.
        generations: compute capabilities, without their minor number, that it has kernels for.
        dtypes: what these compute in.
    """

    module: str
    title: str
    generations: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def installed(self) -> bool:
        """Whether it can be imported, by its name alone."""
        return importlib.util.find_spec(self.module) is not None


# In the order in which they are preferred. flash-attn 3 is written for Hopper, which is generation 9.
PACKAGES = (
    FlashPackage("flash_attn_interface", "flash-attn 3", (9,), HALF),
    FlashPackage("fa3_fwd_interface", "flash-attn 3, forward only (fa3-fwd)", (9,), (torch.bfloat16,)),
    FlashPackage("flash_attn", "flash-attn 2", (8, 9, 10, 12), HALF),
)


def find_package(generation: int, dtype: torch.dtype) -> FlashPackage | None:
    """The first installed package that computes in `dtype` on a GPU of `generation`; None where there is none."""
    fitting = (package for package in PACKAGES if generation in package.generations and dtype in package.dtypes)
    return next((package for package in fitting if package.installed), None)


class FlashAttention:
    """Attention by `package`."""

    name = "flash"

    def __init__(self, package: FlashPackage) -> None:
        self.title = package.title
        self._functions: Any = importlib.import_module(package.module)

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        return _output(self._functions.flash_attn_func(q, k, v, causal=False))

    def windows(self, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """See Attention.windows: all windows of all batch rows are one packed call."""
        ends = window_ends(len(q), lengths, q.device)
        longest = max(lengths)
        packed = (x.flatten(0, 1) for x in (q, k, v))
        out = self._functions.flash_attn_varlen_func(*packed, ends, ends, longest, longest, causal=False)
        return _output(out).view(q.shape)

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.causal. flash-attn aligns the last query with the last key, as is wanted here."""
        return _output(self._functions.flash_attn_func(q[None], k[None], v[None], causal=True))[0]

    def decode(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, length: Tensor) -> Tensor:
        """See Attention.decode. The keys are split over the GPU, and those behind `length` are not read."""
        out = self._functions.flash_attn_with_kvcache(q[None], k[None], v[None], cache_seqlens=length)
        return _output(out)[0]


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def window_ends(rows: int, lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """(rows·len(lengths) + 1,) int32: where the windows of `rows` packed batch rows begin, and the last one's end.

    Kept by its arguments: a clip has few shapes, and moving it to the device waits for the device.
    """
    return torch.tensor([0, *accumulate(lengths * rows)], dtype=torch.int32, device=device)


def _output(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out
