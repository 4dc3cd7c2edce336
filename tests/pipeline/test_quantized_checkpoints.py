"""Checkpoints that are quantised in their files run as transformers runs them, and only their Thinker is read."""

import json
import shutil

import pytest
import torch

import omniqa
from omniqa.errors import ModelError
from omniqa.models import stored_quantization
from omniqa.models.qwen2_5_omni.checkpoint import find_checkpoint
from omniqa.pruning import registry
from tests import quantized_checkpoints as quantized
from tests import reference_model as reference
from tests.models.qwen2_5_omni.clips import make_clip

CLIP = {"frames": 6, "seconds": 3.0}
QUESTION = "What happens, and what is heard?"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module", params=quantized.FORMATS, ids=lambda make: make.__name__)
def folder(request, checkpoint, tmp_path_factory):
    """The small checkpoint in one format; skipped if the format's package is not installed."""
    pytest.importorskip("accelerate")
    out = tmp_path_factory.mktemp(request.param.__name__) / "quantized"
    request.param(checkpoint, out)
    return out


@pytest.fixture(scope="module")
def loaded(folder):
    return omniqa.load(str(folder), device="cpu", dtype="float32")


def first_logits(qa, retention=1.0):
    method = registry.create("omnidrop", retention)
    return qa.prefiller.prefill(qa.encode(make_clip(**CLIP)), QUESTION, method).result.logits


@pytest.fixture(scope="module")
def expected(folder):
    """The same Thinker, alone in a folder, as transformers loads and runs it."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    alone = quantized.reference_folder(folder)
    return Thinker.from_pretrained(alone, dtype=torch.float32, device_map={"": "cpu"}).eval()


def test_logits_are_those_of_transformers_on_the_same_checkpoint(loaded, expected, folder):
    clip = make_clip(**CLIP)
    batch = reference.inputs(reference.make_processor(folder), clip.frames, clip.waveform, QUESTION)
    with torch.inference_mode():
        logits = expected(**batch).logits[0, -1]
    # LLM.int8() rounds activations to 8 bits, and a row that differs in its seventh digit may round otherwise.
    tolerance = 0.05 if "llm_int8" in str(folder) else 1e-3
    assert (first_logits(loaded) - logits).abs().max() <= tolerance * logits.abs().max()


def test_each_quantised_layer_multiplies_as_transformers_does(loaded, expected):
    layers = {name: layer for name, layer in expected.named_modules() if name.endswith("_proj")}
    own = dict(loaded.model.module.named_modules())
    assert len(layers) > len(loaded.model.checkpoint.packed) / 2
    with torch.inference_mode():
        for name, layer in layers.items():
            x = torch.randn(3, layer.in_features)
            torch.testing.assert_close(own[name](x), layer(x), rtol=0, atol=1e-6)


def test_a_pruned_question_is_answered(loaded):
    answer = loaded.ask(make_clip(**CLIP), QUESTION, "omnidrop", 0.3)
    assert answer.retention.achieved == pytest.approx(0.3, abs=0.02)


def test_an_encoded_clip_of_it_is_kept_and_found(folder, tmp_path):
    spent = []
    for _ in range(2):
        qa = omniqa.load(str(folder), device="cpu", cache=tmp_path)
        spent.append("vision_encoder" in qa.encode(make_clip(**CLIP)).timing_s)
    assert spent == [True, False]


@pytest.mark.parametrize("place", [("thinker_config",), ("thinker_config", "text_config")], ids=".".join)
def test_its_settings_may_stand_deeper_in_the_configuration(folder, loaded, place, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())["quantization_config"]
    quantized.put_settings(copy, settings, *place)
    assert find_checkpoint(str(copy)).packed == loaded.model.checkpoint.packed


def test_talker_and_token2wav_are_not_even_opened(folder, loaded, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weight_map = json.loads((copy / INDEX).read_text())["weight_map"]
    for shard in {shard for name, shard in weight_map.items() if not name.startswith("thinker.")}:
        (copy / shard).unlink()
    torch.testing.assert_close(
        first_logits(omniqa.load(str(copy), device="cpu", dtype="float32")), first_logits(loaded)
    )


def test_a_layer_that_lacks_one_of_its_tensors_is_a_model_error(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = json.loads((copy / INDEX).read_text())
    checkpoint = find_checkpoint(str(copy))
    layer = f"thinker.{min(checkpoint.packed)}."
    parts = [name for name in checkpoint.tensors if name.startswith(layer)]
    lost = min(name for name in parts if not name.endswith((".bias", ".weight")))
    del index["weight_map"][lost]
    (copy / INDEX).write_text(json.dumps(index))
    path = copy / checkpoint.tensors[lost].name
    _without(path, lost)
    with pytest.raises(ModelError):
        omniqa.load(str(copy), device="cpu")


def _without(path, lost):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name != lost}  # noqa: SIM118
        save_file(kept, path.with_suffix(".new"), file.metadata())
    path.with_suffix(".new").replace(path)


# What follows needs no format's package.


@pytest.fixture
def packed(checkpoint, tmp_path):
    """A checkpoint in GPTQ's layout, made by hand."""
    out = tmp_path / "packed"
    quantized.by_hand(checkpoint, out)
    return out


@pytest.fixture
def installed(monkeypatch):
    """As if every package were there."""
    monkeypatch.setattr(stored_quantization, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ("gptq", "gptq"), ("awq", "awq"), ("bitsandbytes", "bnb"), ("compressed-tensors", "compressed-tensors"),
        ("torchao", "torchao"), ("fp8", "fp8"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_its_extra(packed, monkeypatch, method, extra):
    monkeypatch.setattr(stored_quantization, "find_spec", lambda name: None)
    quantized.put_settings(packed, {"quant_method": method})
    with pytest.raises(ModelError, match="accelerate") as raised:
        find_checkpoint(str(packed))
    assert f"omniqa[{extra}]" in str(raised.value)
    assert raised.value.exit_code == 4


def test_the_layers_that_are_quantised_are_found_by_their_tensors(packed, installed):
    found = find_checkpoint(str(packed))
    assert len(found.packed) == 7 * 6
    assert all(layer.startswith("model.layers.") for layer in found.packed)
    assert all(name.startswith("thinker.") for name in found.tensors)


def test_a_layer_without_weights_is_named(packed, installed):
    _edit(packed, lambda names: [name for name in names if ".2.mlp.up_proj." not in name])
    with pytest.raises(ModelError, match=r"lacks the tensor model\.layers\.2\.mlp\.up_proj\.weight"):
        find_checkpoint(str(packed))


def test_layers_that_the_configuration_does_not_have_are_named(packed, installed):
    config = json.loads((packed / "config.json").read_text())
    config["thinker_config"]["text_config"] |= {"num_hidden_layers": 5, "layer_types": None}
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"a layer that config\.json does not have"):
        find_checkpoint(str(packed))


@pytest.mark.parametrize("settings", [3, [], {}, {"quant_method": 4}, "gptq"])
def test_settings_that_make_no_sense_are_a_model_error(packed, settings):
    quantized.put_settings(packed, settings)
    with pytest.raises(ModelError, match="quantization_config"):
        find_checkpoint(str(packed))


def test_packed_weights_without_settings_are_a_model_error(packed):
    quantized.put_settings(packed, None)
    with pytest.raises(ModelError, match=r"lacks the tensor model\.layers\.0\.self_attn\.q_proj\.weight"):
        find_checkpoint(str(packed))


def test_a_format_that_nobody_knows_is_a_model_error(packed, installed):
    quantized.put_settings(packed, {"quant_method": "abacus"})
    with pytest.raises(ModelError, match="abacus"):
        omniqa.load(str(packed), device="cpu")


def _edit(folder, keep):
    index = json.loads((folder / INDEX).read_text())
    kept = keep(index["weight_map"])
    index["weight_map"] = {name: index["weight_map"][name] for name in kept}
    (folder / INDEX).write_text(json.dumps(index))


def test_fp8_is_refused_on_a_cpu(checkpoint, tmp_path):
    pytest.importorskip("accelerate")
    quantized.fp8(checkpoint, tmp_path / "fp8")
    with pytest.raises(ModelError, match="FP8 needs a GPU"):
        omniqa.load(str(tmp_path / "fp8"), device="cpu")
