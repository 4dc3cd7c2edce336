"""Quantised weights in a folder, a file for each model: written layer by layer, verified and then mapped."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from omniqa.cache.encodings import as_bytes, encoder_identity
from omniqa.cache.folder import CacheFolder
from omniqa.cache.weights_file import BLANK, LENGTH_BYTES, SCALES, check_digest, encode, file_digest
from omniqa.memory import is_out_of_memory
from omniqa.runtime.int8 import WEIGHT_ERROR, QuantizedWeight
from omniqa.runtime.quantize import INT8, Add, Scheme, Shapes, Stored
from omniqa.tensor_file import GROUP_BYTES, read_mapped


class WeightsCache:
    """Quantised weights in a folder, by key. Trouble with the folder costs time, and is reported in `notes`.

    Attributes:
        notes: a sentence for each file that was damaged or could not be written.
    """

    def __init__(self, folder: CacheFolder, model: str, scheme: Scheme = INT8) -> None:
        self.folder = folder
        self.scheme = scheme
        self.notes: list[str] = []
        self._model = model

    def key(self, parts: Sequence[nn.Module]) -> str:
        """See WeightStore. Of a large weight three runs of values are looked at, as for encoded clips."""
        return encoder_identity(parts, self.scheme.name, WEIGHT_ERROR)

    def find(self, key: str, shapes: Shapes) -> Stored | None:
        """See WeightStore. A file that is damaged is taken away. Values are mapped from it.

        Raises:
            MemoryError, RuntimeError, OSError: of the kinds that `is_out_of_memory` knows, and no others.
        """
        path = self.folder.path(key)
        try:
            with self.folder.open(path) as file:
                check_digest(file)
            stored = _read(path, key, shapes, self.scheme)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            self.folder.drop(path)
            reason = (isinstance(error, OSError) and error.strerror) or error
            self.notes.append(f"{path} is damaged and was removed ({reason}); the weights are quantised again.")
            return None
        self.folder.used(path)
        return stored

    @contextmanager
    def adding(self, key: str, shapes: Shapes) -> Iterator[Add]:
        """See WeightStore. If writing fails, the weights are not kept, and the block goes on."""
        path, writer = None, None
        try:
            path = self.folder.unfinished(key)
            told = {"format": self.scheme.name, "key": key, "name": self._model}
            writer = _Writer(path.open("xb"), shapes, told, self.scheme)
        except OSError as error:
            self._not_kept(path, error)

        def add(name: str, weight: QuantizedWeight | None) -> None:
            nonlocal writer
            if writer is not None:
                try:
                    writer.add(name, weight)
                except OSError as error:
                    writer.file.close()
                    writer = None
                    self._not_kept(path, error)

        try:
            yield add
            if writer is not None and path is not None:
                self._finish(writer, path, key)
        finally:
            if writer is not None:
                writer.file.close()
            if path is not None:
                self.folder.drop(path)  # gone already if all went well

    def _finish(self, writer: "_Writer", path: Path, key: str) -> None:
        try:
            writer.finish()
            path.replace(self.folder.path(key))
            self.folder.shrink()
        except OSError as error:
            self._not_kept(path, error)

    def _not_kept(self, path: Path | None, error: OSError) -> None:
        if is_out_of_memory(error):
            raise error
        where = self.folder.folder
        self.notes.append(f"The quantised weights could not be kept in {where} ({error.strerror or error}).")


class _Writer:
    """Writes a file's values as they come, then its scales and header in front of them."""

    def __init__(self, file: BinaryIO, shapes: Shapes, metadata: Mapping[str, str], scheme: Scheme) -> None:
        self.file = file
        self._metadata = metadata
        self._stored = scheme.stored
        self._sizes = {name: scheme.sizes(*shape) for name, shape in shapes.items()}
        self._values: dict[str, tuple[int, int]] = {}
        self._scales = torch.zeros(sum(count for _, count in self._sizes.values()))
        self._scales_at = 0
        self._digest = hashlib.sha256()
        whole = {name: values for name, (values, _) in self._sizes.items()}
        most = len(encode(whole, len(self._scales), metadata, self._stored))  # if every layer has values
        self._room = LENGTH_BYTES * -(-most // LENGTH_BYTES)  # what follows is aligned
        self.file.seek(LENGTH_BYTES + self._room + as_bytes(self._scales).nbytes)

    def add(self, name: str, weight: QuantizedWeight | None) -> None:
        """The next layer's weight. Raises OSError."""
        shape, count = self._sizes[name]
        if weight is not None:
            data = as_bytes(weight.values)
            self._digest.update(data)
            self.file.write(data)
            self._values[name] = shape
            self._scales[self._scales_at : self._scales_at + count] = weight.scales.cpu()
        self._scales_at += count

    def finish(self) -> None:
        """Write what comes in front. Raises OSError."""
        header = encode(self._values, len(self._scales), self._metadata, self._stored).ljust(self._room)
        scales = as_bytes(self._scales)
        digest = file_digest(header, scales, self._digest.digest())
        self.file.seek(0)
        self.file.write(self._room.to_bytes(LENGTH_BYTES, "little"))
        self.file.write(header.replace(BLANK.encode(), digest.encode(), 1))
        self.file.write(scales)
        self.file.close()


def _read(path: Path, key: str, shapes: Shapes, scheme: Scheme) -> dict[str, QuantizedWeight | None]:
    """The weights of a file whose digest is right.

    Raises:
        ValueError: other tensors than the model has.
    """
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
        if (told.get("key"), told.get("format")) != (key, scheme.name):
            raise ValueError("it is of another model or another version")
        sizes = {name: scheme.sizes(*shape) for name, shape in shapes.items()}
        names, counts = set(file.keys()), [count for _, count in sizes.values()]
        expected: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (scheme.stored, shape) for name, (shape, _) in sizes.items()
        }
        expected[SCALES] = ("F32", (sum(counts),))
        if SCALES not in names or not names <= set(expected):
            raise ValueError("it holds tensors that the model does not have")
        for name in names:
            part = file.get_slice(name)
            if (part.get_dtype(), tuple(part.get_shape())) != expected[name]:
                raise ValueError(f"{name} is {part.get_dtype()} of shape {part.get_shape()}")
        scales = dict(zip(shapes, file.get_tensor(SCALES).clone().split(counts), strict=True))
        _check_scales([scales[name] for name in shapes if name in names])
    values = read_mapped(path, (name for name in shapes if name in names), GROUP_BYTES)
    return {name: QuantizedWeight(values[name], scales[name]) if name in values else None for name in shapes}


def _check_scales(scales: Sequence[Tensor]) -> None:
    if not all(bool((one.isfinite() & (one > 0)).all()) for one in scales):
        raise ValueError("its scales are not positive numbers")
