"""Layers whose 8-bit weights are widened for each product: what they give is the rounded weight's product."""

import pytest
import torch
from torch import nn

from omniqa.runtime.int8 import quantize_weight
from omniqa.runtime.scaled import ScaledLinear, quantize_fp8
from omniqa.runtime.upcast import upcast


def linear(into, out):
    torch.manual_seed(0)
    return nn.Linear(into, out).requires_grad_(False)


@pytest.mark.parametrize(("quantize", "error"), [(quantize_weight, 0.012), (quantize_fp8, 0.03)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_rounded_weight(quantize, error, dtype):
    layer, x = linear(96, 64), torch.randn(2, 5, 96).to(dtype)
    weight = quantize(layer.weight)
    rounded = weight.values.float() * weight.scales[:, None]
    out = ScaledLinear(weight, layer.bias)(x)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.float(), x.float() @ rounded.T + layer.bias, rtol=tolerance, atol=tolerance)
    assert out.dtype == dtype
    assert 0 < torch.linalg.norm(rounded - layer.weight) / torch.linalg.norm(layer.weight) < error


@pytest.mark.parametrize("rows", [3, 70])
def test_products_of_many_rows_are_upcast_where_that_is_faster(rows):
    layer, x = linear(96, 64), torch.randn(rows, 96).bfloat16()
    scaled = ScaledLinear(quantize_weight(layer.weight), layer.bias)
    narrow, wide = scaled(x), scaled(x.float()).bfloat16()
    upcast(nn.Sequential(scaled))
    out = scaled(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, wide if rows == 70 else narrow)
    assert not torch.equal(narrow, wide)


def test_the_largest_entry_of_each_output_is_kept_by_fp8():
    weight = torch.tensor([[1e-6, -3e-6], [2e5, 1.0], [0.0, 0.0]])
    stored = quantize_fp8(weight)
    rounded = stored.values.float() * stored.scales[:, None]
    torch.testing.assert_close(rounded.abs().amax(1), weight.abs().amax(1))


def test_weights_that_are_no_numbers_stay_as_they_are():
    assert quantize_fp8(torch.full((4, 4), torch.nan)) is None


def test_nf4_gives_the_product_of_what_bitsandbytes_unpacks():
    functional = pytest.importorskip("bitsandbytes.functional")
    from omniqa.runtime.nf4 import Nf4Linear, quantize_nf4

    layer, x = linear(96, 64), torch.randn(5, 96)
    weight = quantize_nf4(layer.weight)
    packed, state = functional.quantize_4bit(layer.weight.data, blocksize=64, quant_type="nf4")
    rounded = functional.dequantize_4bit(packed, state)
    torch.testing.assert_close(Nf4Linear(weight, (64, 96), layer.bias)(x), x @ rounded.T + layer.bias)
