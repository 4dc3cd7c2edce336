"""Loading a model: which one, where it goes, and whether it fits."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from omniqa.cache.encodings import EncodingCache
from omniqa.cache.folder import CACHE_BYTES, CacheFolder
from omniqa.cache.weights import WeightsCache
from omniqa.cache.weights_file import weights_folder
from omniqa.errors import UsageError, first_line
from omniqa.memory import memory_errors
from omniqa.models.disk import require_disk
from omniqa.models.families import ModelShape, find_checkpoint, load_model, stored_dtype
from omniqa.pipeline.engine import OmniQA
from omniqa.pipeline.fit import ModelRequest, choose, layer_counts, require_weights, weight_bytes
from omniqa.runtime import machine
from omniqa.runtime.device import check_device, check_dtype, check_offload, check_quantize, devices_of
from omniqa.runtime.quantize import scheme_of

_DTYPES = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}


def load(
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    *,
    cache: str | Path | None = None,
    cache_bytes: int = CACHE_BYTES,
    reuse_static: float | None = None,
    quantize: str | None = None,
    weights_cache: str | Path | None = None,
    offload: str | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> OmniQA:
    """Load a model.

    Args:
        model: a folder, a hub id, or "nano", which comes with the package; None takes the 7B on a GPU that fits it,
            else the 3B (`omniqa.pipeline.fit`).
        device: "auto" (CUDA if the model fits there), "cpu", "cuda" or "cuda:N"; "cuda:0,cuda:1" puts the decoder's
            layers on several GPUs, one after the other, and all else on the first.
        dtype: "auto" (as stored), "bfloat16" or "float32".
        attention: "auto", "flash" or "sdpa".
        cache: a folder where encoded clips are kept for other runs; None keeps none.
        cache_bytes: how many bytes of them at most.
        reuse_static: 0 to 255, see `OmniQA`.
        quantize: "int8", "fp8" or "nf4": 8 or 4 bits for each weight of the decoder's layers, with int8 on a CPU of the
            encoders and `lm_head`, too (docs/models.md); None keeps them as floats of `dtype`.
        weights_cache: a folder where quantised weights are kept for other runs; None is the platform's.
        offload: "encoders" keeps both encoders in the machine's memory, and on the GPU while a clip is encoded only.
        on_step: gets the name of each step that takes long, as it begins: looking up, downloading, loading.

    Raises:
        ModelError: the model is not found, or can't be loaded.
        OutOfMemoryError: its weights do not fit.
        StorageError: the disk has no room for a download.
        UsageError: a value makes no sense here.
    """
    start = time.perf_counter()
    check_dtype(dtype)
    check_device(device)
    check_quantize(quantize)
    check_offload(offload, device)
    if device != "auto":
        _devices(device)  # that it is not there comes before what would fit
    choice = choose(machine.read_machine(device), ModelRequest(model, device, dtype, quantize))
    devices = _devices(choice.device)
    where = devices[0]
    check_offload(offload, where.type)
    checkpoint = find_checkpoint(choice.model, on_step, require_disk)
    if quantize is not None and checkpoint.quantization is not None:
        raise UsageError(
            f"quantize {quantize} can't be applied: {checkpoint.name} is quantised already.", field="quantize"
        )
    on_step(f"loading {checkpoint.name}")
    with _torch_errors(where), memory_errors():
        precision = _DTYPES[dtype] or stored_dtype(checkpoint)
        scheme = None if quantize is None else scheme_of(quantize, where)
        store = None if scheme is None else WeightsCache(weights_folder(weights_cache), checkpoint.name, scheme)
        shape = ModelShape.of_config(checkpoint.config, quantization=checkpoint.quantization)
        request = ModelRequest(checkpoint.name, choice.device, str(precision).removeprefix("torch."), quantize)
        _require_memory(shape, request)
        layers = _layer_devices(shape, request, devices)
        loaded = load_model(checkpoint, where, precision, scheme=scheme, store=store, layer_devices=layers)
    kept = None if cache is None else EncodingCache(CacheFolder(Path(cache), cache_bytes))
    qa = OmniQA(checkpoint.name, loaded, attention, time.perf_counter() - start, kept, reuse_static, offload)
    qa.notes = tuple(store.notes) if store else ()
    return qa


def _require_memory(shape: ModelShape, request: ModelRequest) -> None:
    dtype: torch.dtype = getattr(torch, request.dtype)
    size = weight_bytes(shape, dtype.itemsize, request.quantize, request.device.partition(":")[0])
    require_weights(machine.read_machine(request.device), request, size)


def _layer_devices(
    shape: ModelShape, request: ModelRequest, devices: Sequence[torch.device]
) -> tuple[torch.device, ...]:
    """Where each layer of the decoder goes; empty if there is one device."""
    if len(devices) == 1:
        return ()
    free = [machine.read_machine(str(device)).gpu_free_bytes or 0 for device in devices]
    counts = layer_counts(shape, request.dtype, request.quantize, free)
    return tuple(device for device, count in zip(devices, counts, strict=True) for _ in range(count))


@contextmanager
def _torch_errors(device: torch.device) -> Iterator[None]:
    """Make what torch can't do on this device a UsageError."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # torch's own; a build without CUDA asserts
        raise UsageError(f"torch can't use {device}: {first_line(error)}") from error


def _devices(name: str) -> list[torch.device]:
    return [_device(one) for one in devices_of(name)]


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "No CUDA device can be used here (see `omniqa doctor`).", field="device", advice='Use {device="cpu"}.'
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"There is no {name}: this machine has {torch.cuda.device_count()}, counted from cuda:0.", field="device"
        )
    return device
