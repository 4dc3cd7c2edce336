"""Where a model runs and in which precision, as the user names it. Free of torch: arguments are checked at once."""

import re

from omniqa.errors import UsageError

DTYPES = ("auto", "bfloat16", "float32")  # auto keeps what is stored
QUANTIZATIONS = ("int8", "fp8", "nf4")  # of weights, as a model is loaded
OFFLOADS = ("encoders",)  # what waits in the machine's memory until it is needed on the GPU
ATTENTIONS = ("auto", "flash", "sdpa")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


def check_device(name: str) -> None:
    """Raise UsageError unless `name` is auto, cpu, cuda or cuda:N."""
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"There is no device {name!r}: use auto, cpu, cuda or cuda:N.", field="device")


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
