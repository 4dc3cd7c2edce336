"""Reading a checkpoint's tensors, mapped from its files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from omniqa.errors import ModelError, first_line
from omniqa.memory import is_out_of_memory


def read_tensors(stored: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """Tensors by name, each from the file that `stored` says, and still mapped there.

    Raises:
        ModelError: safetensors does not read a file, though its header was found to be right.
    """
    by_shard: dict[Path, list[str]] = {}
    for name, path in stored.items():
        by_shard.setdefault(path, []).append(name)
    tensors: dict[str, torch.Tensor] = {}
    for path, names in by_shard.items():
        try:
            with safe_open(path, framework="pt") as shard:
                tensors |= {name: shard.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{path.parent}: {path.name} can't be read ({first_line(error)}).") from error
    return tensors
