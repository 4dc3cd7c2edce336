"""Reading a pruning method's own network: from a file that the user named, from the checkpoint, or from beside it."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from omniqa.errors import ModelError
from omniqa.models.qwen2_5_omni.checkpoint import THINKER, Checkpoint, read_header
from omniqa.models.qwen2_5_omni.weights import read_tensors
from omniqa.pruning.contract import AuxNetwork
from omniqa.typed_json import quotable


def load_aux_network(part: AuxNetwork, checkpoint: Checkpoint, width: int, device: torch.device) -> nn.Module:
    """The network of `part` for embeddings of `width`, in float32 on `device`, for inference.

    Raises:
        ModelError: nobody has weights for it, or these are not the network's by name and shape; the message names
            the first that is not.
    """
    where, stored = _find(part, checkpoint)
    tensors = read_tensors(stored)
    stored_weights = {_bare(name, part): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        network = part.make(width)
    _check(f"{where}: {part.prefix}", network.state_dict(), stored_weights)
    weights = {name: tensor.to(device, torch.float32) for name, tensor in stored_weights.items()}
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def _find(part: AuxNetwork, checkpoint: Checkpoint) -> tuple[str, dict[str, Path]]:
    """Where the weights are, in words, and the file of each by its name there."""
    if part.path is not None:
        path = Path(part.path).expanduser()
        if not path.exists():
            raise ModelError(f"{part.method}: there is no file {path} to read its {part.option} from.")
        return str(path), _of_file(part, path)
    among = {name: path for name, path in checkpoint.added.items() if _bare(name, part) != name}
    if among:
        return checkpoint.name, among
    beside = checkpoint.folder / part.file
    if os.path.lexists(beside):
        return str(beside), _of_file(part, beside)
    raise ModelError(
        f"{part.method} needs trained weights that do not come with {checkpoint.name}: it holds no {part.prefix}* "
        f"tensors, and no {part.file} lies beside it.",
        advice=f"Take a checkpoint that was trained with {part.method}, or name a safetensors file of them by "
        f'{{method="{part.method}:{part.option}=FILE"}}.',
    )


def _of_file(part: AuxNetwork, path: Path) -> dict[str, Path]:
    """The tensors with the prefix where some have it (the file may be a checkpoint's shard), else all."""
    names = list(read_header(part.method, path))
    return dict.fromkeys([name for name in names if _bare(name, part) != name] or names, path)


def _bare(name: str, part: AuxNetwork) -> str:
    """A tensor's name in the network: without the prefix, and the hub's before it."""
    short = name.removeprefix(THINKER)
    return short.removeprefix(part.prefix) if short.startswith(part.prefix) else name


def _check(where: str, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise ModelError(f"{where}{name} is missing.")
        if found[name].shape != tensor.shape:
            raise ModelError(
                f"{where}{name} is {list(found[name].shape)}, where this model needs {list(tensor.shape)}."
            )
        if not found[name].is_floating_point():
            raise ModelError(f"{where}{name} is of {str(found[name].dtype).removeprefix('torch.')}, not of floats.")
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        raise ModelError(f"{where}{quotable(unknown[0])} is none of the weights that are needed.")
