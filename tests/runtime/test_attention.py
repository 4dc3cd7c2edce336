"""Every backend computes plain attention; scores are the means of plain attention maps."""

import sys
from types import SimpleNamespace

import pytest
import torch

from omniqa.errors import UsageError
from omniqa.runtime import attention, flash
from omniqa.runtime.attention import SdpaAttention, _decode_by_products, attention_received, select_attention
from omniqa.runtime.flash import PACKAGES, FlashAttention

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS, KV_HEADS, SIZE = 6, 2, 16


def plain(q, k, v, causal):
    """(R, H, D) queries, the last R of the N tokens of k, v (N, KV, D)."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    logits = torch.einsum("rhd,nhd->hrn", q, k) / q.shape[-1] ** 0.5
    if causal:
        attn_mask = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        logits = logits.masked_fill(attn_mask, float("-inf"))
    return torch.einsum("hrn,nhd->rhd", logits.softmax(-1), v), logits.softmax(-1)


class FlashAttn:
    """flash-attn's functions by their documented signatures and semantics, in torch.

    Batch first, grouped heads, the last query aligned with the last key; packed sequences by int32 offsets; a cache of
    which the first cache_seqlens rows count. It stands in where there is no GPU, and shows that shapes, offsets and
    alignment are those that flash-attn wants. with_lse: releases of flash-attn 3 that return (output, log-sum-exp).
    """

    def __init__(self, with_lse=False):
        self.with_lse = with_lse
        self.__spec__ = SimpleNamespace()
        self.calls = []

    def _result(self, out):
        return (out, None) if self.with_lse else out

    def flash_attn_func(self, q, k, v, *, causal=False):
        assert q.dim() == k.dim() == v.dim() == 4
        return self._result(torch.stack([plain(*row, causal)[0] for row in zip(q, k, v, strict=True)]))

    def flash_attn_varlen_func(self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False):
        assert q.dim() == k.dim() == v.dim() == 3
        self.calls.append(cu_seqlens_q)
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert cu_seqlens_q[0] == 0
        assert cu_seqlens_q[-1] == len(q)
        assert max_seqlen_q == max_seqlen_k == cu_seqlens_q.diff().max()
        lengths = [offsets.diff().tolist() for offsets in (cu_seqlens_q, cu_seqlens_k, cu_seqlens_k)]
        parts = (x.split(length) for x, length in zip((q, k, v), lengths, strict=True))
        return self._result(torch.cat([plain(*part, causal)[0] for part in zip(*parts, strict=True)]))

    def flash_attn_with_kvcache(self, q, k_cache, v_cache, *, cache_seqlens, causal=False):
        assert q.dim() == k_cache.dim() == v_cache.dim() == 4
        assert cache_seqlens.shape == (len(q),)
        assert cache_seqlens.dtype == torch.int32
        rows = zip(q, k_cache, v_cache, cache_seqlens, strict=True)
        return torch.stack([plain(q, k[:length], v[:length], causal)[0] for q, k, v, length in rows])


def install(monkeypatch, module, stand_in):
    monkeypatch.setitem(sys.modules, module, stand_in)


BACKENDS = ["sdpa", "flash-attn 2", "flash-attn 3", "flash-attn 3 with log-sum-exp"]


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    if request.param == "sdpa":
        return SdpaAttention()
    module = "flash_attn" if request.param == "flash-attn 2" else "flash_attn_interface"
    install(monkeypatch, module, FlashAttn(with_lse="with" in request.param))
    return FlashAttention(next(package for package in PACKAGES if package.module == module))


@pytest.mark.parametrize("rows", [1, 5, 23])
def test_causal_attention_of_the_last_rows(backend, rows):
    q, k, v = torch.randn(rows, HEADS, SIZE), torch.randn(23, KV_HEADS, SIZE), torch.randn(23, KV_HEADS, SIZE)
    assert (backend.causal(q, k, v) - plain(q, k, v, causal=True)[0]).abs().max() < 1e-5


def test_dense_attention_of_a_batch(backend):
    q, k, v = torch.randn(3, 4, 9, HEADS, SIZE).unbind(0)
    expected = torch.stack([plain(*row, causal=False)[0] for row in zip(q, k, v, strict=True)])
    assert (backend.dense(q, k, v) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("lengths", [(9,), (4, 4, 4), (6, 6, 2, 2, 2, 1), (1, 7, 1)])
def test_windows_of_a_batch_attend_within_themselves(backend, lengths):
    q, k, v = torch.randn(3, 5, sum(lengths), HEADS, SIZE).unbind(0)
    windows = zip(*(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)
    expected = torch.cat(
        [torch.stack([plain(*row, causal=False)[0] for row in zip(*window, strict=True)]) for window in windows], dim=1
    )
    result = backend.windows(q, k, v, lengths)
    assert result.shape == q.shape
    assert (result - expected).abs().max() < 1e-5


def test_windows_are_packed_once_for_all_rows(monkeypatch):
    stand_in = FlashAttn()
    install(monkeypatch, "flash_attn", stand_in)
    backend = FlashAttention(PACKAGES[-1])
    for _ in range(2):
        backend.windows(*torch.randn(3, 2, 7, HEADS, SIZE).unbind(0), (4, 3))
    first, again = stand_in.calls
    assert first.tolist() == [0, 4, 7, 11, 14]
    assert first is again, "offsets are moved to the device once"


@pytest.mark.parametrize("there", [1, 6, 20])
def test_a_row_sees_what_is_there_of_a_storage(backend, there):
    q, k, v = torch.randn(1, HEADS, SIZE), torch.randn(20, KV_HEADS, SIZE), torch.randn(20, KV_HEADS, SIZE)
    attn_mask = torch.zeros(20)
    attn_mask[there:] = float("-inf")
    expected = plain(q, k[:there], v[:there], causal=True)[0]
    result = backend.decode(q, k, v, attn_mask, torch.tensor([there], dtype=torch.int32))
    assert (result - expected).abs().max() < 1e-5
    assert (_decode_by_products(q, k, v, attn_mask) - expected).abs().max() < 1e-5


def test_encoder_and_decoder_by_flash_equal_sdpa(qa, monkeypatch):
    """The whole way of a question through the packed calls: the same survivors, logits and answer."""
    from omniqa.pipeline.engine import OmniQA
    from tests.models.qwen2_5_omni.clips import make_clip

    install(monkeypatch, "flash_attn", FlashAttn())
    flash = OmniQA("flash", qa.model)
    flash.attention = FlashAttention(PACKAGES[-1])
    for part in (flash.vision_encoder, flash.audio_encoder, flash.decoder):
        part.attention = flash.attention
    ours, theirs = (it.ask(make_clip(frames=4, seconds=3.0), "What?", retention=0.4) for it in (flash, qa))
    assert ours.token_ids == theirs.token_ids
    assert (ours.trace.alive == theirs.trace.alive).all()


@pytest.mark.parametrize("block", [1, 200, 10**6])
def test_mean_attention_counts_only_rows_that_see_a_key(block, monkeypatch):
    monkeypatch.setattr(attention, "score_block", lambda device: block)
    tokens = 19
    full, k = torch.randn(tokens, HEADS, SIZE), torch.randn(tokens, KV_HEADS, SIZE)
    _, maps = plain(full, k, k, causal=True)
    rows = torch.tensor([4, 9, 17])
    total = maps.mean(0)[rows].sum(0)
    seen = (rows[:, None] >= torch.arange(tokens)).sum(0).clamp(min=1)
    result = attention_received(full[rows], k, rows, slice(2, 19))
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


def installed(*modules):
    return lambda name: SimpleNamespace() if name in modules else None


EVERYTHING = ("flash_attn_interface", "fa3_fwd_interface", "flash_attn")


@pytest.mark.parametrize(
    ("generation", "modules", "dtype", "expected"),
    [
        (9, EVERYTHING, torch.bfloat16, "flash_attn_interface"),
        (9, EVERYTHING[1:], torch.bfloat16, "fa3_fwd_interface"),
        (9, EVERYTHING[1:], torch.float16, "flash_attn"),
        (9, EVERYTHING[2:], torch.bfloat16, "flash_attn"),
        (8, EVERYTHING, torch.bfloat16, "flash_attn"),
        (10, EVERYTHING, torch.bfloat16, "flash_attn"),
        (8, EVERYTHING[:2], torch.bfloat16, None),
        (7, EVERYTHING, torch.float16, None),
        (9, EVERYTHING, torch.float32, None),
        (9, (), torch.bfloat16, None),
    ],
)
def test_which_package_is_used_where(monkeypatch, generation, modules, dtype, expected):
    monkeypatch.setattr(flash.importlib.util, "find_spec", installed(*modules))
    package = flash.find_package(generation, dtype)
    assert (package.module if package else None) == expected


def test_auto_takes_flash_where_it_can_run(monkeypatch):
    install(monkeypatch, "flash_attn", FlashAttn())
    monkeypatch.setattr(attention, "_generation", lambda device: 8)
    assert select_attention("auto", CUDA, torch.bfloat16).title == "flash-attn 2"
    assert select_attention("auto", CUDA, torch.float32).name == "sdpa"
    assert select_attention("sdpa", CUDA, torch.bfloat16).name == "sdpa"


def test_flash_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(attention, "_generation", lambda device: 9)
    monkeypatch.setattr(flash.importlib.util, "find_spec", installed())
    assert select_attention("auto", CUDA, torch.bfloat16).name == "sdpa"
    with pytest.raises(UsageError, match="pip install"):
        select_attention("flash", CUDA, torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("retention", [1.0, 0.3])
def test_on_cuda_flash_equals_sdpa_in_bfloat16(checkpoint, retention):
    """Relative error of logits at most 1e-2, the same greedy tokens."""
    import omniqa
    from omniqa.pruning import registry
    from tests.models.qwen2_5_omni.clips import make_clip

    if flash.find_package(torch.cuda.get_device_capability()[0], torch.bfloat16) is None:
        pytest.skip("no flash-attn is installed that runs on this GPU")
    answers, logits = [], []
    for name in ("flash", "sdpa"):
        qa = omniqa.load(str(checkpoint), device="cuda", dtype="bfloat16", attention=name)
        video = qa.encode(make_clip(frames=10, seconds=5.3))
        logits.append(qa.prefiller.prefill(video, "What?", registry.create("omnidrop", retention)).result.logits)
        answers.append(qa.ask(video, "What?", retention=retention).token_ids)
    assert (logits[0] - logits[1]).norm() <= 1e-2 * logits[1].norm()
    assert answers[0] == answers[1]
