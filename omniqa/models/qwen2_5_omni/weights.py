"""Reading a checkpoint's tensors, mapped from its files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from omniqa.errors import ModelError, first_line
from omniqa.memory import is_out_of_memory
from omniqa.tensor_file import read_mapped


def read_tensors(stored: Mapping[str, Path], group_bytes: int | None = None) -> dict[str, torch.Tensor]:
    """Tensors by name, each from the file that `stored` says, and still mapped there; `group_bytes`: see `read_mapped`.

    Raises:
        ModelError: safetensors does not read a file, though its header was found to be right.
    """
    by_shard: dict[Path, list[str]] = {}
    for name, path in stored.items():
        by_shard.setdefault(path, []).append(name)
    tensors: dict[str, torch.Tensor] = {}
    for path, names in by_shard.items():
        try:
            tensors |= read_mapped(path, names, group_bytes)
        except (SafetensorError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{path.parent}: {path.name} can't be read ({first_line(error)}).") from error
    return tensors
