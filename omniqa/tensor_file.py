"""What a safetensors file holds, read by safetensors once the sizes that it claims are known to be there.

Free of torch, but for `read_mapped`. Nothing is allocated for a tensor before its bytes are known to be there.
"""

import os
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import SafetensorError, safe_open

from omniqa import strict_json
from omniqa.errors import first_line
from omniqa.memory import is_out_of_memory
from omniqa.typed_json import quotable

if TYPE_CHECKING:
    from torch import Tensor

GROUP_BYTES = 2**28
_SMALL_BYTES = 2**20
HEADER_BYTES = 2**24  # published models have a sixtieth of it; the grid times of a million frames fill it
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class TensorFile:
    """A header that agrees with itself and with the file's size.

    Attributes:
        tensors: type, as safetensors calls it, and shape of each, in the order of their bytes. These follow each other
            without a gap and fill the file.
        metadata: what stands beside them.
        data_at: where the first tensor begins, in bytes.
    """

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, str]
    data_at: int


def read_header(file: BinaryIO) -> TensorFile:
    """The header of a file that is open at its start.

    Raises:
        OSError: the file can't be read.
        ValueError: the header is damaged, or does not fit the file; the message goes on after the file's name.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(_LENGTH.size)
    length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
    if not 0 < length <= size - _LENGTH.size:
        raise ValueError("is not a safetensors file, or is cut short")
    if length > HEADER_BYTES:
        raise ValueError(f"has a header of {length} bytes, more than {HEADER_BYTES}")
    try:
        # Of two tensors of one name, safetensors would take the last.
        strict_json.parse(file.read(length).decode("utf-8"), any_text=True, unique=True)
        with safe_open(f"/dev/fd/{file.fileno()}", framework="np") as opened:  # this file, whatever its path names now
            slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
            tensors = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
            return TensorFile(tensors, opened.metadata() or {}, _LENGTH.size + length)
    except (SafetensorError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = first_line(error).removeprefix("Error while deserializing header: ")
        raise ValueError(f"has a broken header: {quotable(reason)}") from error


def read_mapped(path: Path, names: Iterable[str], group_bytes: int | None = None) -> "dict[str, Tensor]":
    """Tensors by name, mapped from a file whose header is right.

    Args:
        path: the file.
        names: of tensors in it, in the order in which they will be used.
        group_bytes: about as many are mapped together, and their pages leave this process's memory once none of them is
            used any more; small tensors are copied. None maps all together: they stay as long as one of them does.

    Raises:
        SafetensorError, OSError: the file is another one by now.
    """
    found: dict[str, Tensor] = {}
    left = deque(names)
    while left:
        bytes = 0
        with safe_open(path, framework="pt") as file:
            while left and (group_bytes is None or bytes < group_bytes):
                name = left.popleft()
                tensor = file.get_tensor(name)
                bytes += tensor.nbytes
                found[name] = tensor.clone() if group_bytes and tensor.nbytes < _SMALL_BYTES else tensor
    return found
