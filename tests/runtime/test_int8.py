"""Linear layers in 8 bits: how far they are from float32, and on what that does not depend."""

import pytest
import torch
from torch import nn

from omniqa.runtime import int8_kernels
from omniqa.runtime.int8 import LEAST_STEPS, WEIGHT_ERROR, Int8Linear, quantize_weight
from omniqa.runtime.int8_kernels import Fbgemm, OneDnn, activation_steps, is_supported, kernel_for_many_rows

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch has no FBGEMM")
SHAPES = [(64, 96), (200, 7), (5, 300), (1, 1), (320, 320)]  # out, in


def linear(out, width, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(width, out, bias).requires_grad_(False)


def quantized(layer):
    return Int8Linear(quantize_weight(layer.weight), layer.bias)


def off(found, right):
    """By how much rows are off, each as a share of its own norm."""
    return (found.float() - right.float()).norm(dim=-1) / right.float().norm(dim=-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_within_three_percent_of_float32(shape, bias):
    layer = linear(*shape, bias)
    x = torch.randn(40, shape[1])
    whole = torch.linalg.norm(quantized(layer)(x) - layer(x)) / torch.linalg.norm(layer(x))
    assert whole < 0.03


def test_sums_of_the_largest_products_do_not_overflow():
    for sign in (1, -1):
        layer = nn.Linear(512, 64, bias=False).requires_grad_(False)
        layer.weight.fill_(sign)
        x = torch.full((33, 512), 3.0)
        torch.testing.assert_close(quantized(layer)(x), layer(x), rtol=1e-5, atol=0)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    int8 = quantized(linear(96, 64))
    x = torch.randn(50, 64)
    x[7] *= 1e4
    x[9, 3] = 1e5
    together = int8(x)
    for row in (0, 7, 9, 49):
        assert torch.equal(int8(x[row : row + 1])[0], together[row])


def test_many_rows_give_what_each_gives_alone():
    int8 = quantized(linear(4096, 64))  # 600 rows do not go through it at once
    x = torch.randn(600, 64)
    together = int8(x)
    assert torch.equal(together, torch.stack([int8(row) for row in x]))


def test_rows_whose_size_differs_by_much_are_all_near_float32():
    layer = linear(96, 64, bias=False)
    x = torch.randn(30, 64) * torch.logspace(-18, 18, 30)[:, None]
    assert off(quantized(layer)(x), layer(x)).max() < 0.04


@pytest.mark.parametrize("peak", [10.0, 50.0, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("width", [40, 1024])
def test_a_large_entry_does_not_drown_the_others(peak, width):
    normal = (2 / torch.pi) ** 0.5 * activation_steps() / peak  # steps of the others, on average
    bound = 0.03 if normal < 0.8 * LEAST_STEPS else 0.01 + 1.3 * 0.29 / normal
    layer = linear(256, width, bias=False)
    layer.weight[:, 5] = 0  # so that all of the output comes from the small ones
    x = torch.randn(20, width)
    x[:, 5] = peak
    assert off(quantized(layer)(x), layer(x)).max() < bound


@pytest.mark.parametrize("rows", [1, 3])
def test_a_finer_layer_is_off_by_its_weight_alone(rows):
    layer = linear(256, 512)
    int8, weight = quantized(layer), quantize_weight(layer.weight)
    int8.finer = True
    x = torch.randn(rows, 512)
    assert off(int8(x), layer(x)).max() < 0.006
    layer.weight.copy_(weight.values * weight.scales[:, None])
    assert off(int8(x), layer(x)).max() < 2e-4


def test_zeros_give_the_bias():
    layer = linear(96, 64)
    assert torch.equal(quantized(layer)(torch.zeros(3, 64)), layer.bias.expand(3, -1))


def test_nan_and_infinity_stay_visible_and_in_their_rows():
    int8 = quantized(linear(96, 64))
    x = torch.randn(4, 64)
    right = int8(x)
    x[1, 3], x[2, 3] = torch.nan, torch.inf
    found = int8(x)
    assert not found[1].isfinite().any()
    assert not found[2].isfinite().all()
    assert torch.equal(found[[0, 3]], right[[0, 3]])


def test_input_of_any_rank_and_float_type_gives_output_of_the_same():
    layer = linear(96, 64)
    int8 = quantized(layer)
    x = torch.randn(2, 5, 64)
    assert torch.equal(int8(x).flatten(0, 1), int8(x.flatten(0, 1)))
    assert int8(x[0, 0]).shape == (96,)
    assert int8(x[:, :0]).shape == (2, 0, 96)
    half = int8(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert off(half, int8(x.bfloat16().float())).max() < 2**-8


def test_moving_a_model_to_another_type_leaves_the_layer_alone():
    int8 = quantized(linear(96, 64))
    x = torch.randn(3, 64)
    right = int8(x)
    nn.Sequential(int8).to(torch.bfloat16)
    assert torch.equal(int8(x), right)


def test_a_weight_that_8_bits_change_by_more_than_the_bound_stays_as_it_is():
    weight = torch.randn(64, 1000)
    stored = quantize_weight(weight)
    changed = (stored.values * stored.scales[:, None] - weight).abs().sum() / weight.abs().sum()
    assert changed < WEIGHT_ERROR
    one_entry_each = torch.diag(torch.randn(50))
    one_entry_each[3] = 0
    assert torch.allclose(
        quantize_weight(one_entry_each).values * quantize_weight(one_entry_each).scales[:, None], one_entry_each
    )
    weight[:, 0] = 300  # of which a step is 2.4, so that most others become 0
    assert quantize_weight(weight) is None
    assert quantize_weight(torch.full((4, 4), torch.nan)) is None
    assert quantize_weight(torch.full((4, 4), torch.inf)) is None


def test_the_same_weight_is_quantised_the_same_in_float32_and_bfloat16():
    weight = torch.randn(64, 96).bfloat16()
    one, other = quantize_weight(weight), quantize_weight(weight.float())
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.scales, other.scales)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_kernels_give_the_same_to_the_last_bit(shape):
    layer = linear(*shape)
    x = torch.randn(70, shape[1])
    x[3] *= 1e5
    x[5, 0] = 1e4
    usual, other = (Int8Linear(quantize_weight(layer.weight), layer.bias, kernel)(x) for kernel in (Fbgemm, OneDnn))
    assert torch.equal(usual, other)


def test_both_kernels_give_the_same_where_rounding_is_close():
    layer = linear(64, 64)
    x = torch.linspace(-1, 1, 64 * 33).view(33, 64)
    x[:, 0] = 1.0
    halves = (x * activation_steps()).round().clamp(1 - activation_steps()) - 0.5
    halves[:, 0] = activation_steps()
    weight = quantize_weight(layer.weight)
    for each in (x, halves, halves.nextafter(torch.tensor(-1e9)), halves.nextafter(torch.tensor(1e9)), x[:0]):
        usual, other = (Int8Linear(weight, layer.bias, kernel)(each) for kernel in (Fbgemm, OneDnn))
        assert torch.equal(usual, other)


@pytest.fixture
def asked_anew():
    kernel_for_many_rows.cache_clear()
    yield
    kernel_for_many_rows.cache_clear()


@pytest.mark.parametrize(("wrong_by", "seconds", "taken"), [(0, 0.5, OneDnn), (0, 0.9, Fbgemm), (1, 0.1, Fbgemm)])
def test_the_other_kernel_is_taken_if_it_is_right_and_clearly_faster(asked_anew, monkeypatch, wrong_by, seconds, taken):
    def asked(kernel, rows, steps):
        is_other = isinstance(kernel, OneDnn)
        return Fbgemm.multiply(usual, rows, steps) + wrong_by * is_other, seconds if is_other else 1.0

    usual = Fbgemm(torch.ones(4, 1280, dtype=torch.int8))
    monkeypatch.setattr(int8_kernels, "_timed", asked)
    assert kernel_for_many_rows() is taken


def test_a_torch_without_the_other_kernel_goes_on_with_the_usual_one(asked_anew, monkeypatch):
    monkeypatch.setattr(int8_kernels.torch.ops, "onednn", object())
    assert kernel_for_many_rows() is Fbgemm
