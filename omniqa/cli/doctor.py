"""`omniqa doctor`: what this machine can do, and what to install."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from omniqa import __version__
from omniqa.cli import console, options, tables
from omniqa.model.checkpoint import HUB_3B, HUB_7B, cached, default_model

GB = 1e9
BFLOAT16_BYTES = {HUB_7B: 17.9e9, HUB_3B: 9.4e9}


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and what to do about it (empty: nothing)."""

    subject: str
    found: str
    advice: str = ""


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Say what this machine can run, and what would help."""
    findings = list(_examine())
    if as_json:
        console.print_json([vars(finding) for finding in findings])
        return
    rows = [(finding.subject, finding.found, finding.advice or "ok") for finding in findings]
    console.results((tables.name("what"), "found", "advice"), rows)


def _examine() -> Iterator[Finding]:
    yield Finding("omniqa", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield from _packages()
    memory, size = psutil.virtual_memory(), BFLOAT16_BYTES[HUB_3B] / GB
    yield Finding(
        "memory",
        f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free",
        ""
        if memory.total > BFLOAT16_BYTES[HUB_3B]
        else f"too little for {HUB_3B}, whose weights alone are {size:.0f} GB",
    )
    yield from _compute()
    yield from _models()


def _packages() -> Iterator[Finding]:
    for package in ("torch", "transformers", "av", "librosa", "soxr", "safetensors"):
        try:
            yield Finding(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "missing", f"pip install {package}")


def _compute() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    from omniqa.model.attention import select_attention
    from omniqa.model.rate import matmul_rate
    from omniqa.model.widen import float32_is_faster

    float32, bfloat16 = (matmul_rate(dtype) for dtype in (torch.float32, torch.bfloat16))
    rates = f"{bfloat16 / 1e12:.2f} TFLOP/s in bfloat16, {float32 / 1e12:.2f} in float32"
    widened = ", so weights in bfloat16 are multiplied in float32" if float32_is_faster() else ""
    yield Finding("CPU", f"{torch.get_num_threads()} threads, {rates}{widened}")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use", "slow without one; for an NVIDIA GPU install torch for CUDA")
        yield Finding("attention", select_attention("auto", torch.device("cpu"), torch.bfloat16).title)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", f"{properties.name}, {properties.total_memory / GB:.0f} GB")
        attention = select_attention("auto", torch.device("cuda", index), torch.bfloat16)
        hopper = " or, for this GPU, fa3-fwd" if properties.major == 9 else ""
        advice = f"pip install 'omniqa[flash]'{hopper}" if attention.name == "sdpa" else ""
        yield Finding(f"attention on GPU {index}", attention.title, advice)


def _models() -> Iterator[Finding]:
    gpu = None
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    for model in (HUB_7B, HUB_3B):
        size = f"{BFLOAT16_BYTES[model] / GB:.1f} GB in bfloat16"
        here = "downloaded" if cached(model) else "not downloaded; the first `omniqa ask` will"
        default = ", the default here" if model == default_model(gpu) else ""
        yield Finding(model, f"{size}, {here}{default}")
