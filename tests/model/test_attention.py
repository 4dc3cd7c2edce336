"""Every backend computes plain attention; scores are the means of plain attention maps."""

import sys
from types import SimpleNamespace

import pytest
import torch

from omniqa.errors import UsageError
from omniqa.model import attention
from omniqa.model.attention import FlashAttention, SdpaAttention, mean_attention, select_attention

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS, KV_HEADS, SIZE = 6, 2, 16


def plain(q, k, v, causal):
    """(R, H, D) queries, the last R of the N tokens of k, v (N, KV, D)."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    logits = torch.einsum("rhd,nhd->hrn", q, k) / q.shape[-1] ** 0.5
    if causal:
        hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        logits = logits.masked_fill(hidden, float("-inf"))
    return torch.einsum("hrn,nhd->rhd", logits.softmax(-1), v), logits.softmax(-1)


def flash_attn_func(q, k, v, causal):
    """flash-attn's documented semantics (batch first, grouped heads, last query aligned with the last key), in torch.

    It stands in where there is no GPU, and shows that shapes and alignment are those that flash-attn wants.
    """
    return torch.stack([plain(*row, causal)[0] for row in zip(q, k, v, strict=True)]), None


@pytest.fixture(params=["sdpa", "flash"])
def backend(request, monkeypatch):
    if request.param == "sdpa":
        return SdpaAttention()
    module = SimpleNamespace(flash_attn_func=flash_attn_func, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    return FlashAttention()


@pytest.mark.parametrize("rows", [1, 5, 23])
def test_causal_attention_of_the_last_rows(backend, rows):
    q, k, v = torch.randn(rows, HEADS, SIZE), torch.randn(23, KV_HEADS, SIZE), torch.randn(23, KV_HEADS, SIZE)
    assert (backend.causal(q, k, v) - plain(q, k, v, causal=True)[0]).abs().max() < 1e-5


def test_dense_attention_of_a_batch(backend):
    q, k, v = torch.randn(3, 4, 9, HEADS, SIZE).unbind(0)
    expected = torch.stack([plain(*row, causal=False)[0] for row in zip(q, k, v, strict=True)])
    assert (backend.dense(q, k, v) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("block", [1, 200, 10**6])
def test_mean_attention_counts_only_rows_that_see_a_key(block, monkeypatch):
    monkeypatch.setattr(attention, "score_block", lambda device: block)
    tokens = 19
    full, k = torch.randn(tokens, HEADS, SIZE), torch.randn(tokens, KV_HEADS, SIZE)
    _, maps = plain(full, k, k, causal=True)
    rows = torch.tensor([4, 9, 17])
    total = maps.mean(0)[rows].sum(0)
    seen = (rows[:, None] >= torch.arange(tokens)).sum(0).clamp(min=1)
    result = mean_attention(full[rows], k, rows, slice(2, 19))
    assert (result - (total / seen)[2:19]).abs().max() < 1e-6
    assert result[-1] == 0, "no row sees the last key"


def test_flash_is_refused_where_it_can_not_run():
    assert select_attention("auto", CPU, torch.bfloat16).name == "sdpa"
    with pytest.raises(UsageError, match="CUDA device in bfloat16, not on cpu"):
        select_attention("flash", CPU, torch.bfloat16)
    with pytest.raises(UsageError, match=r"not on cuda in torch.float32"):
        select_attention("flash", CUDA, torch.float32)
    with pytest.raises(UsageError, match="no attention backend 'fast'"):
        select_attention("fast", CPU, torch.float32)


def test_flash_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(attention, "flash_package", lambda: None)
    assert select_attention("auto", CUDA, torch.bfloat16).name == "sdpa"
    with pytest.raises(UsageError, match="pip install"):
        select_attention("flash", CUDA, torch.bfloat16)
