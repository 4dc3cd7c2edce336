"""`omniqa doctor`: whether omniqa works here, by a run; what fits this machine; and what to install."""

import importlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from omniqa import __version__
from omniqa.cli import options, tables, versions
from omniqa.cli.console import console
from omniqa.cli.flags import describe
from omniqa.cli.progress import spinner
from omniqa.errors import ModelError, OmniqaError, first_line
from omniqa.models.disk import thinker_bytes
from omniqa.models.families import HUB_3B, HUB_7B, NANO, ModelShape, cached
from omniqa.models.licence import licence
from omniqa.pipeline.fit import Choice, Need, in_gib, minute, need, pick, requirements
from omniqa.runtime import machine
from omniqa.runtime.machine import Machine

# world.draw(24, 4, 1) of nano's world, as nano.clips.write_clip writes it, at 112 pixels and H.264's CRF 36.
CLIP = Path(__file__).parents[1] / "nano" / "check.mp4"
CHECKS = {"Which coloured shape is shown while you hear the voice?": "yellow star", "What does the voice say?": "hello"}
LOOKS = ("psutil", "huggingface-hub")  # what looking at the machine needs
HUB_SECONDS = 3.0  # that the hub has to answer
IMPORTED = ("numpy", "torch", "transformers", "safetensors", "av", "librosa", "soxr")  # what answering needs

State = Literal["ok", "advice", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        found: what was found.
        advice: what to do about it; empty if nothing.
        state: failed if omniqa can't work like this.
    """

    subject: str
    found: str
    advice: str = ""
    state: State = "ok"


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Try omniqa on a clip that comes with it, and say what this machine can run.

    Exit code 0 if the answers are right; 4 if they are wrong, or something that is needed is missing.
    """
    with spinner("looking around") as step:
        findings = list(_examine(step))
    if as_json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        rows = [(finding.subject, finding.found, finding.advice or "ok") for finding in findings]
        console.results((tables.name("what"), "found", "advice"), rows)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(ModelError.exit_code)


def _examine(step: Callable[[str], None]) -> Iterator[Finding]:
    yield _version("omniqa", f"{__version__}, {platform.platform()}")
    yield _version("Python", platform.python_version(), versions.untested("python", platform.python_version()))
    packages = list(_packages(step))
    yield from packages
    broken = [finding.subject for finding in packages if finding.state == "failed"]
    if broken:
        yield Finding("a run", "not tried", f"it needs {', '.join(broken)}", "failed")
    else:
        yield _run(step)
    blind = [package for package in LOOKS if package in broken]
    if blind:
        yield Finding("machine", "not looked at", f"that needs {', '.join(blind)}", "failed")
        return
    here = machine.read_machine()
    yield from _machine(here, step, "torch" not in broken)
    yield from _models(here)
    yield _hub(step)


def _version(subject: str, found: str, untested: str = "") -> Finding:
    return Finding(subject, found, untested, "advice" if untested else "ok")


def _packages(step: Callable[[str], None]) -> Iterator[Finding]:
    """Each package that omniqa needs: its version, and whether it can be imported at all."""
    for package in versions.PACKAGES:
        version = versions.installed(package)
        if version is None:
            yield Finding(package, "missing", f"pip install {package}", "failed")
            continue
        step(f"importing {package}")
        trouble = _import_trouble(package) if package in IMPORTED else ""
        if trouble:
            yield Finding(package, f"{version}, can't be imported: {trouble}", f"pip install -U {package}", "failed")
        else:
            yield _version(package, version, versions.untested(package, version))


def _import_trouble(package: str) -> str:
    """Why a package can't be imported; empty if it can."""
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: a library of its own that does not load
        return first_line(error)
    return ""


def _run(step: Callable[[str], None]) -> Finding:
    """nano's answers about the clip that comes with the package, beside the true ones."""
    step("asking nano")
    begun = time.perf_counter()
    try:
        answers, device = _ask_nano(step)
    except OmniqaError as error:
        return Finding("a run", describe(error), "", "failed")
    except Exception as error:  # noqa: BLE001  # a fault of whatever kind is what is looked for
        said = f"{type(error).__name__}: {first_line(error)}"
        return Finding("a run", f"failed by {said}", "report this, with the lines above", "failed")
    seconds = time.perf_counter() - begun
    wrong = [f"{got!r}, not {right!r}" for got, right in zip(answers, CHECKS.values(), strict=True) if got != right]
    if wrong:
        return Finding("a run", f"nano says {', '.join(wrong)}", "report this, with the lines above", "failed")
    count = f"{len(answers)} of {len(CHECKS)} answers about a clip right"
    return Finding("a run", f"{count}, {seconds:.1f} s with loading, on {device}")


def _ask_nano(step: Callable[[str], None]) -> tuple[list[str], str]:
    """What nano says to each of CHECKS, and where it ran."""
    from omniqa.pipeline.load import load
    from omniqa.pruning import registry

    qa = load(NANO, on_step=step)
    answers = qa.ask_all(CLIP, list(CHECKS), registry.create("omnidrop", 0.3))
    return [answer.text for answer in answers], str(qa.model.device)


def _machine(here: Machine, step: Callable[[str], None], with_torch: bool) -> Iterator[Finding]:
    yield Finding("memory", f"{in_gib(here.ram_available_bytes)} free")
    if with_torch:
        step("measuring")
        yield from _compute(here)
    elif here.gpu_name is not None:
        yield Finding("GPU", f"{here.gpu_name}, {in_gib(here.gpu_free_bytes or 0)} free")
    yield Finding("cache folder", f"{machine.hub_cache()}, {in_gib(here.disk_free_bytes)} of disk free")


def _compute(here: Machine) -> Iterator[Finding]:
    import torch

    from omniqa.runtime.attention import select_attention
    from omniqa.runtime.matmul_rate import int8_rate, matmul_rate
    from omniqa.runtime.upcast import float32_is_faster

    float32, bfloat16 = (matmul_rate(dtype) for dtype in (torch.float32, torch.bfloat16))
    rates = f"{bfloat16 / 1e12:.2f} TFLOP/s in bfloat16, {float32 / 1e12:.2f} in float32"
    upcasted = ", so weights in bfloat16 are multiplied in float32" if float32_is_faster() else ""
    yield Finding("CPU", f"{torch.get_num_threads()} threads, {rates}{upcasted}")
    int8 = int8_rate()
    if int8 is None:
        yield Finding("int8 on the CPU", "not in this torch: --quantize can't be used")
    else:
        yield Finding("int8 on the CPU", f"{int8 / 1e12:.2f} TFLOP/s with --quantize int8; {_int8_models()}")
    if torch.backends.mps.is_available():
        yield Finding("MPS", "there, and not used: omniqa runs on CUDA and on the CPU")
    if not torch.cuda.is_available():
        yield _no_gpu(here)
        yield Finding("attention", select_attention("auto", torch.device("cpu"), torch.bfloat16).title)
        return
    for index in range(torch.cuda.device_count()):
        properties, free = torch.cuda.get_device_properties(index), torch.cuda.mem_get_info(index)[0]
        yield Finding(f"GPU {index}", f"{properties.name}, {in_gib(free)} of {in_gib(properties.total_memory)} free")
        attention = select_attention("auto", torch.device("cuda", index), torch.bfloat16)
        hopper = " or, for this GPU, fa3-fwd" if properties.major == 9 else ""
        advice = f"pip install 'omniqa[flash]'{hopper}" if attention.name == "sdpa" else ""
        yield Finding(f"attention on GPU {index}", attention.title, advice, "advice" if advice else "ok")


def _int8_models() -> str:
    """What the published models take in 8 bits, in words."""
    shapes = [(model, ModelShape.of(model)) for model in (HUB_7B, HUB_3B)]
    needs = [(model, need(shape, minute(shape.layers), quantize="int8").total) for model, shape in shapes]
    return ", ".join(f"{model} takes {in_gib(size)}" for model, size in needs)


def _no_gpu(here: Machine) -> Finding:
    if machine.torch_build() is None:
        return Finding("GPU", "none: this torch is built for the CPU", "with an NVIDIA GPU, install torch for CUDA")
    return Finding("GPU", "none that torch can use", "with an NVIDIA GPU, look at its driver")


def _models(here: Machine) -> Iterator[Finding]:
    """What fits, and what is known of the models that omniqa takes by itself."""
    choice = pick(here)
    warning = describe(choice.warning) if choice.warning else ""
    yield Finding("model that fits", _fits(choice), warning, "advice" if warning else "ok")
    for model in (HUB_7B, HUB_3B):
        yield _model(model, here)
    yield Finding(NANO, f"comes with omniqa; licence: {licence(NANO)}")


def _model(model: str, here: Machine) -> Finding:
    """Whether a model is downloaded, and its licence; else whether the disk has room for it."""
    needs = (requirements()[model, device].total for device in ("cuda", "cpu"))
    takes = "{} on a GPU, {} on the CPU".format(*map(in_gib, needs))
    if cached(model):
        return Finding(model, f"{takes}; downloaded; licence: {licence(model)}")
    size = thinker_bytes(model)
    found = f"{takes}; not downloaded: at least {in_gib(size)}, at the first `omniqa ask` with it"
    if size > here.disk_free_bytes:
        return Finding(model, found, f"free disk space, or set HF_HOME to a folder with {in_gib(size)}", "advice")
    return Finding(model, found)


def _fits(choice: Choice) -> str:
    """The default model, and what a minute takes of what is free."""
    where = "the CPU" if choice.device == "cpu" else "the GPU"
    name = f"{choice.model} on {where}" if choice.weights_fit else "none but nano"
    return f"{name}: {parts(choice.need)}; {in_gib(choice.free or 0)} free"


def parts(need: Need) -> str:
    """A need in words: its parts, and their sum."""
    return (
        f"{in_gib(need.weights)} weights, {in_gib(need.kv_cache)} KV cache, {in_gib(need.activations)} activations, "
        f"{in_gib(need.overhead)} libraries, {in_gib(need.total)} in all for a one-minute clip"
    )


def _hub(step: Callable[[str], None]) -> Finding:
    """Whether the hub answers. Nothing needs it once a model is downloaded."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "not tried: HF_HUB_OFFLINE is set")
    step("asking the hub")
    return Finding("hub", f"{constants.ENDPOINT}: {_reach(constants.ENDPOINT)}")


def _reach(address: str) -> str:
    """How an address answers, within HUB_SECONDS; looking up its name may hang, so another thread does it."""
    from queue import Empty, SimpleQueue
    from threading import Thread

    said: SimpleQueue[str] = SimpleQueue()
    Thread(target=lambda: said.put(_head(address)), daemon=True).start()
    try:
        return said.get(timeout=HUB_SECONDS + 1)
    except Empty:
        return f"no answer within {HUB_SECONDS:g} s"


def _head(address: str) -> str:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return "reachable"
    except HTTPError as error:
        error.close()
        return f"reachable, and says {error.code}"
    except (URLError, OSError, ValueError) as error:
        return f"can't be reached ({first_line(str(getattr(error, 'reason', error)))})"
