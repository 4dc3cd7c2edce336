"""The file of a model's quantised weights, and where it is. Free of torch.

It is a safetensors file: the scales of all layers as one tensor, then the values of each layer. What is kept in float
has no values. Its header begins with a digest of the whole file.
"""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO

from omniqa.cache.folder import CACHE_BYTES, CacheFolder
from omniqa.files import open_regular

SUFFIX = ".omniqa.weights.safetensors"
SCALES = "scales"
BLANK = "0" * 64  # stands for the digest while that is computed
LENGTH_BYTES = 8
_START = b'{"__metadata__":{"digest":"'
_HEADER_BYTES = 2**24
_PIECE = 2**22


def weights_folder(folder: str | Path | None = None) -> CacheFolder:
    """The folder of quantised weights; None is the one that the platform has for such things."""
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("omniqa") / "weights"
    return CacheFolder(Path(folder), CACHE_BYTES, SUFFIX, about)


def about(path: Path) -> dict[str, str]:
    """What a file's header says, for a list: format, key and the model's name; empty where it is damaged."""
    try:
        with open_regular(path) as file:
            metadata = json.loads(_header(file))["__metadata__"]
        return {name: str(metadata[name]) for name in ("format", "key", "name")}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def encode(shapes: Mapping[str, tuple[int, int]], scales: int, metadata: Mapping[str, str], stored: str) -> bytes:
    """A safetensors header, with zeros for the digest; `stored` is the type of the values, of one byte each."""
    header: dict[str, object] = {"__metadata__": {"digest": BLANK, SCALES: str(scales), **metadata}}
    header[SCALES] = {"dtype": "F32", "shape": [scales], "data_offsets": [0, 4 * scales]}
    at = 4 * scales
    for name, shape in shapes.items():
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [at, at + prod(shape)]}
        at += prod(shape)
    return json.dumps(header, separators=(",", ":")).encode()


def file_digest(header: bytes, scales: memoryview, values: bytes) -> str:
    """Of a whole file: its header with zeros for the digest, its scales, and SHA-256 of its values."""
    return hashlib.sha256(b"".join((header, scales, values))).hexdigest()


def _header(file: BinaryIO) -> bytes:
    """A file's header, read from its start.

    Raises:
        ValueError: the file is too short, or begins otherwise.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not len(_START) + len(BLANK) < length <= min(size, _HEADER_BYTES):
        raise ValueError("it is cut short, or no file of weights")
    header = file.read(length)
    if not header.startswith(_START):
        raise ValueError("it is no file of weights that omniqa wrote")
    return header


def check_digest(file: BinaryIO) -> None:
    """Check that the file is as it was written. Holds a piece at a time, and the scales.

    Raises:
        ValueError: it is not.
    """
    header = _header(file)
    at = slice(len(_START), len(_START) + len(BLANK))
    try:
        count = int(json.loads(header)["__metadata__"][SCALES])
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("its header is broken") from error
    left = file.seek(0, 2) - LENGTH_BYTES - len(header)
    file.seek(LENGTH_BYTES + len(header))
    if not 0 <= 4 * count <= left:
        raise ValueError("it is cut short")
    scales, values = file.read(4 * count), hashlib.sha256()
    while piece := file.read(_PIECE):
        values.update(piece)
    blank = header[: at.start] + BLANK.encode() + header[at.stop :]
    if file_digest(blank, memoryview(scales), values.digest()) != header[at].decode("latin-1"):
        raise ValueError("its content does not fit its digest")
