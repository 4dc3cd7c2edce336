"""`omniqa plan`: how many tokens each decoder layer will hold, and how much memory it takes, without weights."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from omniqa.cli import options
from omniqa.cli.console import console
from omniqa.cli.loading import check_clip
from omniqa.cli.progress import spinner
from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.models.families import ModelShape, decoder_layers, pixel_bounds
from omniqa.pipeline.fit import (
    GIB,
    LONGEST,
    TEXT_TOKENS,
    Choice,
    ModelRequest,
    Need,
    in_gib,
    longest_clip,
    need,
    pick,
    place,
)
from omniqa.pipeline.stages import STAGE_NAMES
from omniqa.pipeline.token_estimate import estimate_tokens, tokens_of
from omniqa.pruning.budget import ClipTokens, Plan
from omniqa.runtime import machine
from omniqa.runtime.device import check_quantize

_CLIP = "The clip"
MEMORY_PARTS = {
    "weights": "weights", "kv_cache": "KV cache", "activations": "activations", "overhead": "libraries",
}  # fmt: skip


@options.grouped
def plan(
    video: Annotated[
        str | None, typer.Argument(help="Plan for this file; without it, for a clip of the size given below.")
    ] = None,
    *,
    model: options.Model = None,
    dropping: options.PruningFlags,
    seconds: Annotated[float, typer.Option(help="Length of the clip.", rich_help_panel=_CLIP)] = 64.0,
    width: Annotated[int, typer.Option(help="Width of its picture.", rich_help_panel=_CLIP)] = 448,
    height: Annotated[int, typer.Option(help="Height of its picture.", rich_help_panel=_CLIP)] = 252,
    taken: options.ClipRangeFlags,
    quantize: options.Quantize = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure what this machine computes a second, and predict the stages' seconds."),
    ] = False,
    longest: Annotated[
        bool, typer.Option("--longest", help="Name the longest clip of that size that fits this machine.")
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the schedule, layer by layer: what leaves after it, and what is left. No weights are needed.

    Below it: the work, and the memory that it takes beside what is free here.
    """
    pruner = dropping.pruner()
    check_quantize(quantize)
    if longest and video:
        raise UsageError("longest looks for a length; a file has its own.", field="longest")
    choice = pick(machine.read_machine(), ModelRequest(model, quantize=quantize))
    name = choice.model
    sampling = taken.sampling().within(pixel_bounds(name))
    clip = _file_tokens(video, sampling) if video else tokens_of((height, width), seconds, seconds, sampling)
    if not clip.n:
        raise UsageError("There is neither picture nor sound to plan for.")
    with spinner(f"looking up {name}"):
        layers = decoder_layers(name)
    planned = pruner.plan(clip, layers)
    if not pruner.exact_plan:
        console.note(f"what {pruner.name} keeps depends on the clip's content; this is what it aims at")
    shape = ModelShape.of(name)
    work = shape.work(planned, TEXT_TOKENS, pruner.vision_rule(planned))

    def need_of(planned: Plan) -> Need:
        return need(shape, planned, choice.device, quantize=quantize, rule=pruner.vision_rule(planned))

    memory = need_of(planned)
    if longest:
        _show_longest(
            choice, as_json, lambda s: need_of(pruner.plan(tokens_of((height, width), s, s, sampling), layers))
        )
        return
    rate = _rate(quantize == "int8" and choice.device == "cpu") if measure else None
    if as_json:
        head = {"model": name, "method": pruner.name, "target": pruner.target}
        console.print_json(
            head | _as_dict(clip, planned) | {"flop": work, "flop_per_s": rate, "memory": _memory(choice, memory)}
        )
        return
    rows = [
        (str(layer), str(kept), f"{kept / clip.n:.3f}", str(drops))
        for layer, (kept, drops) in enumerate(zip(planned.kept, [*planned.drops, 0], strict=True))
    ]
    console.remark(
        f"{name}, {pruner.name}, retention {planned.retention:.4f} (asked {pruner.target:g}): "
        f"{clip.n_video} video and {clip.n_audio} audio tokens"
    )
    if parameters := _parameters(planned):
        console.remark(parameters)
    console.results((">layer", ">kept", ">share", ">leave after it"), rows)
    _show_work(work, rate)
    _show_memory(choice, memory)


def _parameters(planned: Plan) -> str:
    """The plan's numbers beside its counts, with all of their digits, so that they reproduce the counts."""
    numbers = {name: value for name, value in vars(planned).items() if isinstance(value, int | float)}
    return ", ".join(f"{name}={value!r}" for name, value in numbers.items())


def _memory(choice: Choice, memory: Need) -> dict[str, Any]:
    """What the clip needs, and what is free, in bytes."""
    parts = {f"{part}_bytes": size for part, size in asdict(memory).items()}
    return parts | {"total_bytes": memory.total, "free_bytes": choice.free, "device": choice.device}


def _show_memory(choice: Choice, memory: Need) -> None:
    rows = [(name, f"{getattr(memory, part) / GIB:.2f}") for part, name in MEMORY_PARTS.items()]
    console.results(("memory", ">GiB"), [*rows, ("in all", f"{memory.total / GIB:.2f}")])
    free = choice.free or 0
    word = "fits" if memory.total <= free else "does not fit"
    console.remark(f"it {word}: {in_gib(free)} are free {place(choice.device)}")


def _show_longest(choice: Choice, as_json: bool, need_of: Callable[[int], Need]) -> None:
    """The longest clip that fits, by what one of so many seconds needs."""
    free = choice.free or 0
    seconds = longest_clip(lambda seconds: need_of(seconds).total <= free)
    if as_json:
        console.print_json(
            {"model": choice.model, "longest_s": seconds, "memory": _memory(choice, need_of(seconds or 1))}
        )
        return
    where = f"{in_gib(free)} are free {place(choice.device)}"
    if not seconds:
        console.result(f"none: a clip of one second needs {in_gib(need_of(1).total)}, and {where}")
        return
    more = "or more" if seconds == LONGEST else f"of {in_gib(need_of(seconds).total)}"
    console.result(f"{timedelta(seconds=seconds)} {more}")
    console.remark(f"hours, minutes and seconds that fit {choice.model}: {where}")


def _rate(int8: bool) -> float:
    """FLOP/s of the device that a model would run on, in 8 bits or in the float type that is faster there."""
    import torch

    from omniqa.runtime.matmul_rate import int8_rate, matmul_rate

    if int8 and (rate := int8_rate()) is not None:
        return rate
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return max(matmul_rate(dtype, device) for dtype in (torch.bfloat16, torch.float32))


def _show_work(work: dict[str, float], rate: float | None) -> None:
    """Operations by stage; with a rate, the seconds that they take at least."""
    if rate is not None:
        console.remark(f"measured: {rate / 1e12:.3f} TFLOP/s; no stage can be faster than that allows")
    rows = [
        (STAGE_NAMES[stage], f"{flop / 1e12:.3f}", *([] if rate is None else [f"{flop / rate:.2f}"]))
        for stage, flop in work.items()
    ]
    console.results(("stage", ">TFLOP", *([] if rate is None else [">seconds"])), rows)


def _as_dict(clip: ClipTokens, planned: Plan) -> dict[str, Any]:
    return {
        "tokens": {"video": clip.n_video, "audio": clip.n_audio},
        "retention": planned.retention,
        "plan": asdict(planned) | {"drops": planned.drops},
    }


def _file_tokens(video: str, sampling: ClipOptions) -> ClipTokens:
    return estimate_tokens(check_clip(video, sampling).info, sampling)
