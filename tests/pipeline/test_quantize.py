"""A whole model in 8 bits: it answers, its encodings are its own, and what can't be is refused."""

import gc
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import omniqa
from omniqa.cli.doctor import CHECKS, CLIP
from omniqa.errors import ModelError, UsageError
from omniqa.pruning import registry
from omniqa.runtime.int8 import Int8Linear
from omniqa.runtime.int8_kernels import OneDnn, is_supported
from omniqa.runtime.nf4 import Nf4Linear
from omniqa.runtime.scaled import ScaledLinear
from omniqa.runtime.upcast import UpcastLinear

pytestmark = pytest.mark.skipif(not is_supported(), reason="this torch has no FBGEMM")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("encodings"), tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def nano(request, folders):
    encodings, weights = folders
    return omniqa.load(
        "nano", device="cpu", dtype=request.param, quantize="int8", cache=encodings, weights_cache=weights
    )


def test_nano_answers_rightly_pruned_and_not_and_from_the_cache(nano):
    for method, retention in (("omnidrop", 0.3), ("none", 1.0)):
        pruner = registry.create(method, retention)
        answers = [answer.text for answer in nano.ask_all(CLIP, list(CHECKS), pruner)]
        assert answers == list(CHECKS.values())


def test_all_linear_layers_are_quantised_and_those_of_one_input_are_merged(nano):
    modules = dict(nano.model.module.named_modules(remove_duplicate=False))
    assert not [name for name, module in modules.items() if type(module) in (nn.Linear, UpcastLinear)]
    assert modules["lm_head"].finer
    for layer in nano.model.decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        assert attention.q_proj.whole is attention.k_proj.whole is attention.v_proj.whole
        assert mlp.gate_proj.whole is mlp.up_proj.whole


def test_a_merged_layer_is_multiplied_once_for_all_its_parts(nano, monkeypatch):
    rows, run = [], Int8Linear.forward
    monkeypatch.setattr(Int8Linear, "forward", lambda layer, x: rows.append(layer) or run(layer, x))
    _first_logits(nano)
    layers = nano.model.decoder.layers
    assert rows.count(layers[0].self_attn.q_proj.whole) == rows.count(layers[0].mlp.up_proj.whole) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process's maps")
@pytest.mark.parametrize("kept", [False, True])
def test_float_weights_leave_memory_once_they_are_quantised(checkpoint, tmp_path, monkeypatch, kept):
    """Else the peak is the whole checkpoint's size and that of its bytes."""
    monkeypatch.setattr("omniqa.models.qwen2_5_omni.thinker.GROUP_BYTES", 1)
    monkeypatch.setattr("omniqa.cache.weights.GROUP_BYTES", 1)
    monkeypatch.setattr("omniqa.tensor_file._SMALL_BYTES", 0)
    folder, weights = (
        shutil.copytree(checkpoint, tmp_path / "own"),
        tmp_path / "weights",
    )  # no other test maps this copy
    if kept:
        omniqa.load(str(folder), device="cpu", quantize="int8", weights_cache=weights)
    qa = omniqa.load(str(folder), device="cpu", quantize="int8", weights_cache=weights)
    gc.collect()  # what the first load left
    maps = Path("/proc/self/maps").read_text()
    quantized = sum(isinstance(module, Int8Linear) for module in qa.model.module.modules())
    assert 0 < maps.count(str(folder)) <= len(qa.model.checkpoint.tensors) - quantized
    assert str(weights) not in maps  # the kernel has its own copy


@pytest.mark.parametrize("nano", ["float32"], indirect=True)
def test_encoders_give_the_same_by_either_kernel_and_the_decoder_keeps_its_own(nano, folders, monkeypatch):
    packed = []

    class Counted(OneDnn):
        def __init__(self, values):
            super().__init__(values)
            packed.append(self)

    monkeypatch.setattr("omniqa.runtime.quantize.kernel_for_many_rows", lambda: Counted)
    other = omniqa.load("nano", device="cpu", dtype="float32", quantize="int8", weights_cache=folders[1])
    encoders = [*other.model.visual.modules(), *other.model.audio_tower.modules()]
    assert len(packed) == sum(isinstance(module, Int8Linear) for module in encoders) > 0
    found, usual = other.encode(CLIP), nano.encode(CLIP)
    assert torch.equal(found.video, usual.video)
    assert torch.equal(found.audio.embeddings, usual.audio.embeddings)


def test_what_stays_in_float_has_the_dtype_that_was_asked_for(nano):
    assert {weight.dtype for weight in nano.model.module.parameters()} == {nano.model.dtype}


def test_embeddings_are_near_those_of_the_float_model(nano):
    plain = omniqa.load("nano", device="cpu").encode(CLIP).video
    found = nano.encode(CLIP).video
    assert 0 < torch.linalg.norm(found.float() - plain) / torch.linalg.norm(plain) < 0.05


def test_an_encoded_clip_is_not_taken_from_the_float_model_nor_given_to_it(tmp_path, folders):
    spent = []
    for quantize in (None, "int8", None, "int8"):
        qa = omniqa.load("nano", device="cpu", quantize=quantize, cache=tmp_path, weights_cache=folders[1])
        spent.append("vision_encoder" in qa.encode(CLIP).timing_s)
    assert spent == [True, True, False, False]


@pytest.fixture(scope="module", params=["fp8", "nf4"])
def smaller(request, folders):
    if request.param == "nf4":
        pytest.importorskip("bitsandbytes")
    return omniqa.load("nano", device="cpu", quantize=request.param, weights_cache=folders[1])


def test_only_the_decoder_is_quantised_by_what_is_dequantised_for_each_product(smaller):
    kinds = {name: type(module) for name, module in smaller.model.decoder.layers.named_modules()}
    assert not [name for name, kind in kinds.items() if kind in (nn.Linear, UpcastLinear)]
    assert sum(kind in (ScaledLinear, Nf4Linear) for kind in kinds.values()) == 7 * smaller.model.layers
    assert not [kind for part in smaller.model.encoders for kind in map(type, part.modules()) if kind is ScaledLinear]


def test_nano_in_fp8_and_nf4_answers_pruned_and_is_near_the_float_model(smaller):
    answers = [answer.text for answer in smaller.ask_all(CLIP, list(CHECKS), registry.create("omnidrop", 0.3))]
    assert answers == list(CHECKS.values())
    expected, found = (_first_logits(qa) for qa in (omniqa.load("nano", device="cpu"), smaller))
    assert 0 < torch.linalg.norm(found - expected) / torch.linalg.norm(expected) < 0.3


def test_smaller_weights_are_found_again_in_the_cache(smaller, folders, monkeypatch):
    for name in ("quantize_fp8", "nf4.quantize_nf4"):
        monkeypatch.setattr(f"omniqa.runtime.quantize.{name}", None)
    kind = "nf4" if any(isinstance(module, Nf4Linear) for module in smaller.model.module.modules()) else "fp8"
    again = omniqa.load("nano", device="cpu", quantize=kind, weights_cache=folders[1])
    assert again.notes == ()
    torch.testing.assert_close(_first_logits(again), _first_logits(smaller), rtol=0, atol=0)


def test_nf4_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("omniqa.runtime.quantize.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"omniqa\[bnb\]") as raised:
        omniqa.load("nano", device="cpu", quantize="nf4")
    assert raised.value.exit_code == 4


def _first_logits(qa):
    return qa.prefiller.prefill(qa.encode(CLIP), next(iter(CHECKS)), registry.create("none", 1.0)).result.logits


def test_weights_that_could_not_be_kept_are_told_of(tmp_path):
    (tmp_path / "file").write_text("in the way")
    qa = omniqa.load("nano", device="cpu", quantize="int8", weights_cache=tmp_path / "file" / "below")
    assert "could not be kept" in qa.notes[0]


@pytest.mark.parametrize(("quantize", "device"), [("int4", "cpu"), ("", "auto")])
def test_what_can_not_be_quantised_is_a_usage_error(quantize, device):
    with pytest.raises(UsageError, match=r"^quantize"):
        omniqa.load("nano", device=device, quantize=quantize)
