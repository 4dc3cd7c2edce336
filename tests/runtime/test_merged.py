"""Layers of one input, merged and quantised: each gives what it gives alone."""

import pytest
import torch
from torch import nn

from omniqa.runtime.int8 import Int8Linear, quantize_weight
from omniqa.runtime.int8_kernels import is_supported
from omniqa.runtime.merged import GatedMLP, MergedPart, project
from omniqa.runtime.quantize import Scaled, quantize

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch has no FBGEMM")
WIDTH = 64


class Attention(nn.Module):
    """Four projections of the names that transformers gives them, the first without a bias."""

    def __init__(self):
        super().__init__()
        self.k_proj = nn.Linear(WIDTH, 32, bias=False)
        self.v_proj = nn.Linear(WIDTH, 32)
        self.q_proj = nn.Linear(WIDTH, 96)
        self.o_proj = nn.Linear(96, WIDTH)


class MLP(nn.Module):
    """A gated MLP as transformers has it."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, 80), nn.Linear(WIDTH, 80)
        self.down_proj, self.act_fn = nn.Linear(80, WIDTH), nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def alone(linear):
    return Int8Linear(quantize_weight(linear.weight), linear.bias)


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (7, WIDTH), (2, 3, WIDTH), (0, WIDTH)])
def test_projections_of_one_input_give_what_each_gives_alone(shape):
    attention = Attention().requires_grad_(False)
    expected = [alone(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    quantize([attention])
    layers = attention.q_proj, attention.k_proj, attention.v_proj
    x = torch.randn(shape)
    for found, layer, right in zip(project(x, *layers), layers, expected, strict=True):
        assert torch.equal(found, right(x))
        assert torch.equal(layer(x), right(x))
    assert isinstance(attention.o_proj, Int8Linear)


def test_a_layer_whose_weight_has_to_stay_float_is_left_out():
    attention = Attention().requires_grad_(False)
    attention.v_proj.weight[:, 0] = 1e4
    v_proj, x = attention.v_proj, torch.randn(5, WIDTH)
    expected = [alone(attention.q_proj)(x), alone(attention.k_proj)(x), v_proj(x)]
    quantize([attention])
    assert attention.v_proj is v_proj
    assert isinstance(attention.k_proj, MergedPart)
    found = project(x, attention.q_proj, attention.k_proj, attention.v_proj)
    assert all(map(torch.equal, found, expected))


def test_weights_that_are_dequantised_for_each_product_are_not_merged():
    attention = Attention().requires_grad_(False)
    quantize([attention], scheme=Scaled("int8"))
    assert not [module for module in attention.modules() if isinstance(module, MergedPart)]


def test_a_gated_mlp_gives_what_its_own_forward_gives():
    layer = nn.ModuleDict({"mlp": MLP()}).requires_grad_(False)
    mlp, x = layer["mlp"], torch.randn(9, WIDTH)
    quantize([layer])
    assert isinstance(layer["mlp"], GatedMLP)
    assert torch.equal(layer["mlp"](x), mlp(x))  # whose layers are the same quantised ones
