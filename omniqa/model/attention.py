"""Attention kernels, one class a backend, and the attention probabilities of a few query rows.

Shapes: B batch rows, S or N tokens, R query rows, H heads, G = H / KV query heads a key head, D head size. Tokens
come before heads everywhere, as projections give them and as the KV cache keeps them.
"""

import importlib
import importlib.util
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from omniqa.errors import UsageError


class Attention(Protocol):
    """What encoders and decoder ask of a backend."""

    name: str

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend within each batch row without a mask. q, k, v and result: (B, S, H, D)."""
        ...

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend causally; the R queries are the last R of the N tokens. q (R, H, D), k and v (N, KV, D)."""
        ...


class SdpaAttention:
    """torch's scaled_dot_product_attention, on any device."""

    name = "sdpa"

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2)

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.causal."""
        rows, heads, size = q.shape
        tokens, kv_heads, _ = k.shape
        if rows == 1:  # the query heads of one key head are its rows: no mask, and no key is repeated
            grouped = q.view(kv_heads, heads // kv_heads, size)
            return F.scaled_dot_product_attention(grouped, k.transpose(0, 1), v.transpose(0, 1)).view(1, heads, size)
        visible = None
        if rows < tokens:
            visible = torch.ones(rows, tokens, dtype=torch.bool, device=q.device).tril(tokens - rows)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None, enable_gqa=True)[0]
        return out.transpose(0, 1)


class FlashAttention:
    """flash-attn 3 where it is installed, else flash-attn 2. CUDA only, bfloat16 or float16."""

    name = "flash"

    def __init__(self) -> None:
        package = flash_package()
        if package is None:
            raise UsageError("--attn flash needs flash-attn: pip install 'omniqa[flash]'. Or use --attn sdpa.")
        self._attend: Any = importlib.import_module(package).flash_attn_func

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        return self._call(q, k, v, causal=False)

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.causal. flash-attn aligns the last query with the last key, as is wanted here."""
        return self._call(q[None], k[None], v[None], causal=True)[0]

    def _call(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        out = self._attend(q, k, v, causal=causal)
        return out[0] if isinstance(out, tuple) else out  # some releases of flash-attn 3 add the log-sum-exp


def flash_package() -> str | None:
    """The installed flash-attn package to import, the newer first."""
    packages = ("flash_attn_interface", "flash_attn")
    return next((package for package in packages if importlib.util.find_spec(package)), None)


def select_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The backend called `name`: "sdpa", "flash", or "auto" (flash where it can run).

    Raises UsageError where flash is asked for and can't run.
    """
    can_flash = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if name == "sdpa" or (name == "auto" and not (can_flash and flash_package())):
        return SdpaAttention()
    if name not in ("auto", "flash"):
        raise UsageError(f"There is no attention backend {name!r}: use auto, flash or sdpa.")
    if not can_flash:
        raise UsageError(f"--attn flash runs on a CUDA device in bfloat16, not on {device.type} in {dtype}.")
    return FlashAttention()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in x's dtype. x: (…, H, D); cos, sin: (…, 1, D)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def score_block(device: torch.device) -> int:
    """How many float32 probabilities to hold at once: little for a CPU's caches, much for a GPU's kernels."""
    return 2**22 if device.type == "cpu" else 2**26


def mean_attention(q: Tensor, k: Tensor, rows: Tensor, keys: slice) -> Tensor:
    """Attention probability that each key in `keys` gets, averaged over heads and the rows that can see it.

    q: (R, H, D), the query rows; rows: (R,) their places among the N tokens, ascending; k: (N, KV, D).
    Returns float32 (len(keys),); the softmax runs over every key that a row may see, text included. A key that no row
    sees gets 0. Only R × N probabilities are computed, a block of rows at a time.
    """
    tokens, kv_heads, size = k.shape
    heads = q.shape[1]
    k32 = k.float().permute(1, 2, 0)
    place = torch.arange(tokens, device=q.device)
    total = torch.zeros(tokens, dtype=torch.float32, device=q.device)
    seen = torch.zeros(tokens, dtype=torch.float32, device=q.device)
    step = max(1, score_block(q.device) // (heads * tokens))
    for block, where in zip(q.split(step), rows.split(step), strict=True):
        grouped = block.float().unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3)  # (KV, G, rows, D)
        logits = torch.matmul(grouped.flatten(1, 2), k32).view(kv_heads, -1, len(where), tokens) * size**-0.5
        visible = place <= where[:, None]
        total += logits.masked_fill_(~visible, float("-inf")).softmax(-1).sum((0, 1, 2))
        seen += visible.sum(0)
    return (total / (heads * seen.clamp(min=1)))[keys]
