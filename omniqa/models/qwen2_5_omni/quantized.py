"""Loading a Thinker whose checkpoint is quantised, by transformers' own quantizers."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from omniqa.errors import first_line
from omniqa.memory import is_out_of_memory
from omniqa.models.qwen2_5_omni.checkpoint import GENERATION, INDEX, Checkpoint
from omniqa.models.qwen2_5_omni.tensors import thinker_tensors
from omniqa.models.qwen2_5_omni.weights import read_tensors
from omniqa.models.stored_quantization import StoredQuantization, failed

# What transformers and the formats' packages raise for settings or tensors that do not go together.
_REFUSALS = (ImportError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError)


def load_quantized(
    checkpoint: Checkpoint,
    config: Any,
    device: torch.device,
    dtype: torch.dtype,
    layer_devices: Sequence[torch.device] = (),
) -> tuple[Any, Any]:
    """transformers' module with quantised layers, on `device`, and its report of what it loaded.

    Args:
        checkpoint: quantised; of it the Thinker's tensors are read, and nothing else.
        config: the Thinker's configuration as transformers has it.
        device: where the weights go.
        dtype: of what is not quantised. A format may want another one.
        layer_devices: of each layer of the decoder; empty puts them on `device` like all else.

    Raises:
        ModelError: transformers can't load these weights here.
    """
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.quantizers import AutoQuantizationConfig

    kind: Any = Qwen2_5OmniThinkerForConditionalGeneration
    quantization = checkpoint.quantization
    assert quantization is not None
    if quantization.method == "fp8" and device.type == "cpu":
        # transformers expands these weights, to another type than the rest has, and does not miss a scale.
        raise failed(checkpoint.name, quantization, "FP8 needs a GPU")
    config.quantization_config = settings = _settings(checkpoint, quantization)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else it tells at each product what it does
    try:
        AutoQuantizationConfig.from_dict(dict(settings))  # else a method that it does not know would be left out
        # GPTQModel prints what it is and does, and stdout is for answers.
        with redirect_stdout(StringIO()), _source(checkpoint, quantization) as (folder, tensors):
            module, report = kind.from_pretrained(
                folder,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                device_map=_device_map(kind, config, device, layer_devices),
                output_loading_info=True,
            )
    except _REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise failed(checkpoint.name, quantization, first_line(error)) from error
    if layer_devices:
        _remove_hooks(module)
    return module, report


def _device_map(
    kind: Any, config: Any, device: torch.device, layer_devices: Sequence[torch.device]
) -> dict[str, torch.device]:
    """Where transformers puts each part, by its name: no part lies in another one."""
    if not layer_devices:
        return {"": device}
    with torch.device("meta"):
        module = kind(config)
    inner = getattr(module.model, "language_model", module.model)  # transformers after 5.17; before
    return dict(_places(module, "", inner.layers, device, layer_devices))


def _places(
    module: nn.Module, path: str, layers: nn.Module, device: torch.device, layer_devices: Sequence[torch.device]
) -> Iterator[tuple[str, torch.device]]:
    """Names and devices of what is inside `module`: `layers` one by one, and of all else the largest parts."""
    for name, child in module.named_children():
        inside = path + name
        if child is layers:
            yield from ((f"{inside}.{number}", own) for number, own in enumerate(layer_devices))
        elif any(part is layers for part in child.modules()):
            yield from _places(child, f"{inside}.", layers, device, layer_devices)
        else:
            yield inside, device


def _remove_hooks(module: nn.Module) -> None:
    """Take accelerate's hooks off, which move what enters each part: omniqa's decoder does that between layers."""
    from accelerate.hooks import remove_hook_from_submodules

    remove_hook_from_submodules(module)


@contextmanager
def _source(
    checkpoint: Checkpoint, quantization: StoredQuantization
) -> Iterator[tuple[str | None, Mapping[str, torch.Tensor] | None]]:
    """What transformers loads from: the Thinker's tensors, or a folder whose index leads to their files.

    torchao keeps the types of its tensors in the headers of the files, so that transformers has to open these itself.
    """
    if quantization.method != "torchao":
        yield None, read_tensors(checkpoint.tensors)
        return
    with TemporaryDirectory() as folder:
        shards = {name: str(path.absolute()) for name, path in checkpoint.tensors.items()}
        (Path(folder) / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
        (Path(folder) / GENERATION).write_text("{}")  # transformers asks for one
        yield folder, None


def _settings(checkpoint: Checkpoint, quantization: StoredQuantization) -> dict[str, Any]:
    """The settings as transformers takes them: which layers are quantised is as the tensors are.

    A list of names in the file may be of another version's modules ("visual" is "model.visual" now).
    """
    settings: dict[str, Any] = {"quant_method": quantization.method, **quantization.settings}
    floats = [*_float_layers(checkpoint)]
    known = quantization.format
    if known is not None and known.skipped is not None:
        if quantization.method == "compressed-tensors":
            floats = [f"re:.*{re.escape(name)}$" for name in floats]
            # Else transformers does it when its own `forward` is first called, which omniqa never does.
            settings |= {"dequantize": True, "run_compressed": None}
        settings[known.skipped] = [*(settings.get(known.skipped) or []), *floats]
    if quantization.method == "gptq":
        kinds = {name.partition("layers.")[2].partition(".")[2] for name in checkpoint.packed}
        settings["modules_in_block_to_quantize"] = [sorted(kinds)]
    return settings


def _float_layers(checkpoint: Checkpoint) -> Iterator[str]:
    """Names of the linear layers whose weights are floats, as any version of transformers has them at the end."""
    for bare, shape in thinker_tensors(checkpoint.config):
        layer = bare.removesuffix(".weight")
        if len(shape) == 2 and layer not in checkpoint.packed:
            yield layer.replace("model.layers.", "language_model.layers.")
            yield layer
