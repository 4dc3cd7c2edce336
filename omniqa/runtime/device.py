"""Where a model runs and in which precision, as the user names it. Free of torch: arguments are checked at once."""

import re
from collections.abc import Sequence

from omniqa.errors import UsageError

DTYPES = ("auto", "bfloat16", "float32")  # auto keeps what is stored
QUANTIZATIONS = ("int8", "fp8", "nf4")  # of weights, as a model is loaded
OFFLOADS = ("encoders",)  # what waits in the machine's memory until it is needed on the GPU
ATTENTIONS = ("auto", "flash", "sdpa")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
_GPU = re.compile(r"cuda:(0|[1-9][0-9]{0,2})")


def check_device(name: str) -> None:
    """Raise UsageError unless `name` is auto, cpu, cuda or cuda:N, or several GPUs as cuda:0,cuda:1."""
    names = devices_of(name)
    if len(names) == 1 and not _DEVICE.fullmatch(name):
        raise UsageError(
            f"There is no device {name!r}: use auto, cpu, cuda, cuda:N or several as cuda:0,cuda:1.", field="device"
        )
    if len(names) > 1 and not (all(map(_GPU.fullmatch, names)) and len(set(names)) == len(names)):
        raise UsageError(
            f"{name!r} is no list of devices: it names GPUs by number, each once, as cuda:0,cuda:1.", field="device"
        )


def devices_of(name: str) -> list[str]:
    """The devices that `name` names, in the order in which a model's layers run on them."""
    return name.split(",")


def split_layers(layers: int, layer_bytes: float, first_bytes: float, free: Sequence[int]) -> list[int]:
    """How many layers each of several devices gets, in a row, so that they have about as much left.

    Args:
        layers: how many there are.
        layer_bytes: what one takes.
        first_bytes: what the first device holds besides.
        free: bytes that each device has.

    Returns:
        A count for each device; they sum to `layers`. A device that has less than its part of the rest gets none.
    """
    taken = [first_bytes, *[0.0] * (len(free) - 1)]
    counts = [0] * len(free)
    for _ in range(layers):
        most = max(range(len(free)), key=lambda device: free[device] - taken[device] - counts[device] * layer_bytes)
        counts[most] += 1
    return counts


def check_dtype(name: str) -> None:
    """Raise UsageError unless `name` is one of DTYPES."""
    if name not in DTYPES:
        raise UsageError(f"There is no dtype {name!r}: use {', '.join(DTYPES)}.", field="dtype")


def check_quantize(name: str | None) -> None:
    """Raise UsageError unless `name` is None or one of QUANTIZATIONS."""
    if name is not None and name not in QUANTIZATIONS:
        raise UsageError(f"quantize {name!r} is not known: use {', '.join(QUANTIZATIONS)}.", field="quantize")


def check_offload(name: str | None, device: str) -> None:
    """Raise UsageError unless `name` is None or one of OFFLOADS, and `device`, which may be auto, is no CPU."""
    if name is not None and name not in OFFLOADS:
        raise UsageError(f"offload {name!r} is not known: use {', '.join(OFFLOADS)}.", field="offload")
    if name is not None and device == "cpu":
        raise UsageError(f"offload {name} moves weights between a GPU and the machine; there is none.", field="offload")


def check_attention(name: str) -> None:
    """Raise UsageError unless `name` is one of ATTENTIONS."""
    if name not in ATTENTIONS:
        raise UsageError(f"There is no attention backend {name!r}: use auto, flash or sdpa.", field="attn")
