"""Products of bfloat16 weights in float32."""

import pytest
import torch
from torch import nn

import omniqa
from omniqa.models.qwen2_5_omni import thinker
from omniqa.runtime.upcast import UpcastLinear, float32_is_faster, upcast

ONE_STEP = 2**-7  # of bfloat16: where a sum in another order is rounded the other way


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 160), nn.Linear(160, 64, bias=False)).to(torch.bfloat16).requires_grad_(False)


def test_many_rows_are_as_near_to_float32_as_rounding_once_allows(layers):
    x = torch.randn(100, 96).bfloat16()
    exact = layers[0].float()(x.float())
    layers.to(torch.bfloat16)
    upcast(layers)
    torch.testing.assert_close(layers[0](x), exact.bfloat16(), rtol=ONE_STEP, atol=1e-5)


def test_few_rows_are_computed_as_they_always_were(layers):
    x = torch.randn(1, 96).bfloat16()
    plain = layers(x)
    upcast(layers)
    torch.testing.assert_close(layers(x), plain, rtol=ONE_STEP, atol=1e-5)


def test_rows_count_whatever_the_dimensions_in_front(layers):
    x = torch.randn(4, 25, 96).bfloat16()
    upcast(layers)
    flat = layers(x.flatten(0, 1)).unflatten(0, (4, 25))
    torch.testing.assert_close(layers(x), flat, rtol=ONE_STEP, atol=ONE_STEP)


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_are_as_near_to_float32_as_rounding_once_allows(bias):
    conv = nn.Conv1d(24, 40, 3, stride=2, padding=1, bias=bias).to(torch.bfloat16).requires_grad_(False)
    x, holder = torch.randn(3, 24, 50).bfloat16(), nn.Sequential(conv)
    names = list(holder.state_dict())
    exact = nn.functional.conv1d(x.float(), conv.weight.float(), conv.bias.float() if bias else None, 2, 1)
    upcast(holder)
    assert holder(x).dtype == torch.bfloat16
    torch.testing.assert_close(holder(x), exact.bfloat16(), rtol=ONE_STEP, atol=1e-5)
    assert list(holder.state_dict()) == names


def test_weights_stay_what_and_where_they_are(layers):
    before = {name: (weight.dtype, weight.data_ptr()) for name, weight in layers.state_dict().items()}
    upcast(layers)
    assert {name: (weight.dtype, weight.data_ptr()) for name, weight in layers.state_dict().items()} == before


def test_float32_is_left_alone(layers):
    layers.float()
    upcast(layers)
    assert not any(isinstance(layer, UpcastLinear) for layer in layers)


def test_asking_what_is_faster_leaves_threads_and_random_numbers_as_they_were():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        assert float32_is_faster() in (True, False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_is_widened_where_it_is_in_bfloat16_and_that_is_faster(checkpoint, monkeypatch, dtype, faster):
    monkeypatch.setattr(thinker, "float32_is_faster", lambda: faster)
    loaded = omniqa.load(str(checkpoint), device="cpu", dtype=dtype).model.module
    wide = [module for module in loaded.modules() if isinstance(module, UpcastLinear)]
    plain = [module for module in loaded.modules() if type(module) is nn.Linear]
    assert (not plain) if faster and dtype == "bfloat16" else (not wide)
