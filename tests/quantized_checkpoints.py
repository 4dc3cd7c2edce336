"""The small checkpoint, quantised by each format's own package, in the hub's layout: the Thinker beside its talker."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

SETTINGS = "quantization_config"
INDEX = "model.safetensors.index.json"
FLOAT_PARTS = ["visual", "audio_tower", "model.visual", "model.audio_tower", "lm_head"]
GROUP = 32
BLOCK = 64
GPTQ = {
    "quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": GROUP, "sym": True,
    "desc_act": False, "lm_head": False, "pack_dtype": "int32",
}  # fmt: skip


def _load(folder: Path, settings: Any, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, quantization_config=settings, device_map={"": "cpu"}
    )


def _save(base: Path, out: Path, save: Callable[[Path], object], settings: Any = None, names: Any = None) -> None:
    """Write what `save` saves of the Thinker into `out`, with all else that `base` holds; and alone beside `out`.

    Args:
        settings: how it is quantised, unless `save` writes that.
        names: other settings for the Thinker alone: names of parts that stay floats as transformers has them now.
    """
    weight_map = json.loads((base / INDEX).read_text())["weight_map"]
    others = {name: shard for name, shard in weight_map.items() if not name.startswith("thinker.")}
    out.mkdir(parents=True)
    for file in [path for path in base.iterdir() if path.suffix != ".safetensors"]:
        shutil.copy(file, out)
    for shard in set(others.values()):
        _save_tensors(out / shard, {name: tensor for name, tensor in load_file(base / shard).items() if name in others})
    alone = reference_folder(out)
    save(alone)
    if settings is not None:
        thinker = json.loads((base / "config.json").read_text())["thinker_config"]
        (alone / "config.json").write_text(json.dumps(thinker | {SETTINGS: settings | (names or {})}))
    for number, shard in enumerate(sorted(alone.glob("*.safetensors"))):
        path = out / f"quantized-{number}.safetensors"
        shutil.copy(shard, path)
        others |= dict.fromkeys(load_file(path), path.name)
    (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": others}))
    put_settings(out, settings or json.loads((alone / "config.json").read_text())[SETTINGS])


def reference_folder(folder: Path) -> Path:
    """Where the same Thinker lies as transformers itself loads it."""
    return folder.with_name("thinker")


def put_settings(folder: Path, settings: Any, *place: str) -> None:
    """Write the entry `quantization_config` at the top of config.json, or below the entries `place`, and only there."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    thinker = config["thinker_config"]
    for part in (config, thinker, thinker["text_config"]):
        part.pop(SETTINGS, None)
    part = config
    for name in place:
        part = part[name]
    part[SETTINGS] = settings
    path.write_text(json.dumps(config))


def _bitsandbytes(base: Path, out: Path, **settings: Any) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    module = _load(base, BitsAndBytesConfig(llm_int8_skip_modules=FLOAT_PARTS, **settings))
    _save(base, out, module.save_pretrained)


def nf4(base: Path, out: Path) -> None:
    """bitsandbytes, 4 bits."""
    _bitsandbytes(base, out, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def llm_int8(base: Path, out: Path) -> None:
    """bitsandbytes, 8 bits."""
    _bitsandbytes(base, out, load_in_8bit=True)


def torchao(base: Path, out: Path) -> None:
    """torchao, 8-bit weights; of the encoders, too."""
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    module = _load(base, TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["lm_head"]))
    _save(base, out, module.save_pretrained)


def compressed_tensors(base: Path, out: Path) -> None:
    """compressed-tensors, 4-bit weights in groups; names as older versions of transformers have them."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    module = _load(base, None)
    weights = QuantizationArgs(num_bits=4, group_size=GROUP, strategy="group", symmetric=True)
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        format="pack-quantized",
        ignore=["re:.*visual.*", "re:.*audio_tower.*", "lm_head"],
    )
    apply_quantization_config(module, config)
    for layer in module.modules():
        if hasattr(layer, "quantization_scheme"):
            layer.weight_scale.data.copy_(layer.weight.unflatten(1, (-1, GROUP)).abs().amax(-1) / 7)
    compressor = ModelCompressor.from_pretrained_model(module, "pack-quantized")
    compressor.compress_model(module)
    settings = compressor.quantization_config.model_dump(mode="json")
    names = {"ignore": settings["ignore"], "dequantize": True}
    settings |= {"quantization_status": "compressed", "ignore": ["lm_head", "re:visual.*", "re:audio_tower.*"]}
    hub = {_hub_name(name): tensor for name, tensor in module.state_dict().items()}
    _save(base, out, lambda alone: _save_tensors(alone / "model.safetensors", hub), settings, names)


def gptq(base: Path, out: Path) -> None:
    """GPTQ as GPTQModel packs it, in the published form: zeros are one less, and o_proj has a bias of zeros."""
    pytest.importorskip("gptqmodel")
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    tensors = _packed(base, partial(_pack, kind=TorchLinear))
    for name, tensor in [*tensors.items()]:
        if name.endswith("qzeros"):
            tensors[name] = tensor - 0x11111111
        if name.endswith("o_proj.qweight"):
            tensors[name.replace("qweight", "bias")] = torch.zeros(tensor.shape[1], dtype=torch.bfloat16)
    _save(base, out, lambda alone: _save_tensors(alone / "model.safetensors", tensors), GPTQ)


def awq(base: Path, out: Path) -> None:
    """AWQ as GPTQModel packs it, with the parts that stay floats named as the hub's checkpoint names them."""
    pytest.importorskip("gptqmodel")
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    tensors = {
        name: tensor
        for name, tensor in _packed(base, partial(_pack, kind=AwqTorchLinear)).items()
        if not name.endswith("g_idx")
    }
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    settings |= {"modules_to_not_convert": ["visual", "audio_tower"]}
    names = {"modules_to_not_convert": FLOAT_PARTS}
    _save(base, out, lambda alone: _save_tensors(alone / "model.safetensors", tensors), settings, names)


def fp8(base: Path, out: Path) -> None:
    """FP8 in blocks, as transformers stores it, with the parts that stay floats named as older versions name them."""
    tensors = _packed(base, _pack_fp8)
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    settings |= {"modules_to_not_convert": ["visual", "audio_tower", "lm_head"]}
    names = {"modules_to_not_convert": FLOAT_PARTS}
    _save(base, out, lambda alone: _save_tensors(alone / "model.safetensors", tensors), settings, names)


def by_hand(base: Path, out: Path) -> None:
    """GPTQ's layout with nothing meaningful in it, by no package: names, shapes and types alone."""
    tensors = _packed(base, _pack)
    _save(base, out, lambda alone: _save_tensors(alone / "model.safetensors", tensors), GPTQ)


FORMATS = [nf4, llm_int8, torchao, compressed_tensors, gptq, awq]


def _hub_name(name: str) -> str:
    return "thinker." + name.replace("model.visual", "visual").replace("model.audio_tower", "audio_tower").replace(
        "model.language_model", "model"
    )


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _packed(base: Path, pack: Callable[[torch.Tensor], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The Thinker's tensors in bfloat16; for the weights of the decoder's linear layers, what `pack` makes of them."""
    shards = sorted(base.glob("*.safetensors"))
    stored = {name: tensor.bfloat16() for shard in shards for name, tensor in load_file(shard).items()}
    found = {name: tensor for name, tensor in stored.items() if name.startswith("thinker.")}
    for name in [name for name in found if "model.layers" in name and name.endswith("proj.weight")]:
        layer = name.removesuffix(".weight")
        found |= {f"{layer}.{part}": tensor for part, tensor in pack(found.pop(name)).items()}
    return found


def _pack_fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """A weight (out, in), whose sides are multiples of a block's."""
    blocks = weight.float().unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))  # (·, BLOCK, ·, BLOCK)
    scales = blocks.abs().amax((1, 3), keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    values = (blocks / scales).flatten(2).flatten(0, 1).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale_inv": scales[:, 0, :, 0]}


def _pack(weight: torch.Tensor, kind: Any = None) -> dict[str, torch.Tensor]:
    """A weight (out, in) in 4 bits, rounded to the nearest step; without a `kind`, of zeros."""
    if kind is None:
        (out, into), groups = weight.shape, weight.shape[1] // GROUP
        shapes = {"qweight": (into // 8, out), "qzeros": (groups, out // 8), "g_idx": (into,)}
        packed = {name: torch.zeros(shape, dtype=torch.int32) for name, shape in shapes.items()}
        return packed | {"scales": torch.zeros(groups, out, dtype=torch.float16)}
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.float()
    groups = linear.weight.data.unflatten(1, (-1, GROUP))
    scales = groups.abs().amax(-1) / 7
    zeros = torch.full_like(scales, 8)
    packed = kind(
        bits=4, group_size=GROUP, sym=True, desc_act=False, in_features=weight.shape[1], out_features=weight.shape[0],
        bias=False, register_buffers=True,
    )  # fmt: skip
    index = torch.arange(weight.shape[1]) // GROUP
    packed.pack(linear, scales, zeros, index.int())
    return {name: tensor for name, tensor in packed.state_dict().items() if tensor is not None}
