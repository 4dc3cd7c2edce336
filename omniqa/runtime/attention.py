"""Attention: torch's kernels, which backend runs where, and the attention probabilities of a few query rows.

Shapes: B batch rows, S or N tokens, R query rows, H heads, G = H / KV query heads a key head, D head size. Tokens
come before heads everywhere, as projections give them and as the KV cache keeps them.
"""

from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from omniqa.errors import UsageError
from omniqa.runtime.device import check_attention
from omniqa.runtime.flash import HALF, FlashAttention, find_package


class Attention(Protocol):
    """What encoders and decoder ask of a backend; title: what it is called where it is shown."""

    name: str
    title: str

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend within each batch row without a mask. q, k, v and result: (B, S, H, D)."""
        ...

    def windows(self, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """Attend within windows of each batch row, one behind the other, `lengths` long, which come to S.

        q, k, v and result: (B, S, H, D).
        """
        ...

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend causally; the R queries are the last R of the N tokens. q (R, H, D), k and v (N, KV, D)."""
        ...

    def decode(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, length: Tensor) -> Tensor:
        """Attend from one token, the last that is there, to a storage that is not full. Waits for nothing.

        q and result: (1, H, D); k, v: (capacity, KV, D). Which tokens are there is said twice, and a backend reads
        what suits it: hidden (capacity,), added to the scores, 0 or -inf; length (1,) int32.
        """
        ...


class SdpaAttention:
    """torch's scaled_dot_product_attention, on any device."""

    name = "sdpa"
    title = "torch SDPA"

    def dense(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.dense."""
        with _kernels(q):
            out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2)

    def windows(self, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """See Attention.windows: one dense call for each run of windows of one length."""
        parts, start = [], 0
        for length, run in groupby(lengths):
            size = length * len(list(run))
            window = (x[:, start : start + size].reshape(-1, length, *x.shape[2:]) for x in (q, k, v))
            parts.append(self.dense(*window).reshape(len(q), size, *q.shape[2:]))
            start += size
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See Attention.causal."""
        rows, heads, size = q.shape
        tokens, kv_heads, _ = k.shape
        with _kernels(q):
            if rows == 1:  # the query heads of one key head are its rows: no mask, and no key is repeated
                grouped = q.view(1, kv_heads, heads // kv_heads, size)
                keys, values = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
                return F.scaled_dot_product_attention(grouped, keys, values).view(1, heads, size)
            visible = None
            if rows < tokens:
                visible = torch.ones(rows, tokens, dtype=torch.bool, device=q.device).tril(tokens - rows)
            if q.is_cuda and (visible is not None or q.dtype == torch.float32):
                # Of CUDA's kernels the one that takes masks and float32 does not group heads.
                k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = F.scaled_dot_product_attention(
                q, k, v, visible, is_causal=visible is None, enable_gqa=k.shape[1] < heads
            )
        return out[0].transpose(0, 1)

    def decode(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, length: Tensor) -> Tensor:
        """See Attention.decode."""
        return (_decode_by_products if q.is_cuda else _decode_by_kernel)(q, k, v, attn_mask)


# cuDNN's kernel comes late: it prepares itself anew, for tenths of a second, for every shape that it has not seen, and
# with pruning almost every layer of every clip has a shape of its own.
SDPA_ORDER = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]


def _kernels(q: Tensor) -> AbstractContextManager[None]:
    """Which of torch's kernels attend for `q`: on CUDA the first of SDPA_ORDER that can, elsewhere torch's choice."""
    return sdpa_kernel(SDPA_ORDER, set_priority=True) if q.is_cuda else nullcontext()


def _decode_by_kernel(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
    """Attention.decode by one kernel, where the query heads of one key head are its rows: no key is repeated."""
    grouped = q.view(1, k.shape[1], -1, q.shape[2])
    keys, values = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
    mask = attn_mask.expand(1, 1, grouped.shape[2], -1)
    return F.scaled_dot_product_attention(grouped, keys, values, mask).view(q.shape)


def _decode_by_products(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
    """The same by two products: on CUDA, torch's kernels would leave all but a few multiprocessors idle."""
    grouped = q.view(k.shape[1], -1, q.shape[2]) * q.shape[2] ** -0.5
    weights = (grouped @ k.permute(1, 2, 0)).float().add_(attn_mask).softmax(-1)
    return (weights.to(v.dtype) @ v.transpose(0, 1)).view(q.shape)


def select_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The backend called `name`: "sdpa", "flash", or "auto": flash where it can run, else sdpa.

    This is the one place that decides; docs/gpu.md has it as a table.

    Raises:
        UsageError: flash is asked for and can't run.
    """
    check_attention(name)
    if name == "sdpa":
        return SdpaAttention()
    can_flash = device.type == "cuda" and dtype in HALF
    package = find_package(_generation(device), dtype) if can_flash else None
    if package is not None:
        return FlashAttention(package)
    if name == "auto":
        return SdpaAttention()
    if not can_flash:
        raise UsageError(
            f"attn flash runs on a CUDA device in bfloat16, not on {device.type} in {dtype}.", field="attn"
        )
    raise UsageError(
        "attn flash needs flash-attn for this GPU: pip install 'omniqa[flash]', or fa3-fwd on Hopper.",
        field="attn",
        advice='Or use {attn="sdpa"}.',
    )


def _generation(device: torch.device) -> int:
    """The compute capability of a CUDA device, without its minor number."""
    return torch.cuda.get_device_capability(device)[0]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in x's dtype. x: (…, H, D); cos, sin: (…, 1, D)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def score_block(device: torch.device) -> int:
    """How many float32 probabilities to hold at once: little for a CPU's caches, much for a GPU's kernels."""
    return 2**22 if device.type == "cpu" else 2**26


def attention_received(q: Tensor, k: Tensor, rows: Tensor, keys: slice) -> Tensor:
    """Attention probability that each key in `keys` gets, averaged over heads and the rows that can see it.

    Args:
        q: (R, H, D), the query rows.
        rows: (R,) their places among the N tokens, ascending.
        k: (N, KV, D).

    Returns:
        float32 (len(keys),); the softmax runs over every key that a row may see, text included. A key that no row sees
        gets 0. Only R × N probabilities are computed, a block of rows at a time.
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
