"""`omniqa plan`: how many tokens each decoder layer will hold, worked out without weights."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from omniqa.cli import console, options
from omniqa.cli.loading import check_clip
from omniqa.cli.progress import spinner
from omniqa.errors import UsageError
from omniqa.foreseen import expected_tokens, tokens_of
from omniqa.media.sampling import Sampling
from omniqa.model.checkpoint import HUB_7B, decoder_layers, pixel_bounds
from omniqa.model.work import ModelShape
from omniqa.pruning.budget import ClipTokens, Plan

TEXT_TOKENS = 60  # system prompt, template and a short question
_CLIP = "The clip"


@options.grouped
def plan(
    video: Annotated[
        str | None, typer.Argument(help="Plan for this file; without it, for a clip of the size given below.")
    ] = None,
    *,
    model: options.Model = None,
    dropping: options.Dropping,
    seconds: Annotated[float, typer.Option(help="Length of the clip.", rich_help_panel=_CLIP)] = 64.0,
    width: Annotated[int, typer.Option(help="Width of its picture.", rich_help_panel=_CLIP)] = 448,
    height: Annotated[int, typer.Option(help="Height of its picture.", rich_help_panel=_CLIP)] = 252,
    taken: options.TakenRange,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure what this machine computes a second, and predict the stages' seconds."),
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the schedule, layer by layer: what leaves after it, and what is left. No weights are needed."""
    pruner = dropping.pruner()
    name = model or HUB_7B
    sampling = taken.sampling().within(pixel_bounds(name))
    clip = _file_tokens(video, sampling) if video else tokens_of((height, width), seconds, seconds, sampling)
    if not clip.n:
        raise UsageError("There is neither picture nor sound to plan for.")
    with spinner(f"looking up {name}"):
        layers = decoder_layers(name)
    planned = pruner.plan(clip, layers)
    if not pruner.exact_plan:
        console.note(f"what {pruner.name} keeps depends on the clip's content; this is what it aims at")
    work = ModelShape.of(name).work(planned, TEXT_TOKENS)
    rate = _rate() if measure else None
    if as_json:
        head = {"model": name, "method": pruner.name, "target": pruner.target}
        console.print_json(head | _as_dict(clip, planned) | {"flop": work, "flop_per_s": rate})
        return
    rows = [
        (str(layer), str(alive), f"{alive / clip.n:.3f}", str(drops))
        for layer, (alive, drops) in enumerate(zip(planned.alive, [*planned.drops, 0], strict=True))
    ]
    console.remark(
        f"{name}, {pruner.name}, retention {planned.retention:.4f} (asked {pruner.target:g}): "
        f"{clip.n_video} video and {clip.n_audio} audio tokens"
    )
    console.results((">layer", ">alive", ">share", ">leave after it"), rows)
    _show_work(work, rate)


def _rate() -> float:
    """FLOP/s of the device that a model would run on, in the precision that is faster there."""
    import torch

    from omniqa.model.rate import matmul_rate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return max(matmul_rate(dtype, device) for dtype in (torch.bfloat16, torch.float32))


def _show_work(work: dict[str, float], rate: float | None) -> None:
    """Operations by stage; with a rate, the seconds that they take at least."""
    if rate is not None:
        console.remark(f"measured: {rate / 1e12:.3f} TFLOP/s; no stage can be faster than that allows")
    rows = [
        (console.STAGE_NAMES[stage], f"{flop / 1e12:.3f}", *([] if rate is None else [f"{flop / rate:.2f}"]))
        for stage, flop in work.items()
    ]
    console.results(("stage", ">TFLOP", *([] if rate is None else [">seconds"])), rows)


def _as_dict(clip: ClipTokens, planned: Plan) -> dict[str, Any]:
    return {
        "tokens": {"video": clip.n_video, "audio": clip.n_audio},
        "retention": planned.retention,
        "plan": asdict(planned) | {"drops": planned.drops},
    }


def _file_tokens(video: str, sampling: Sampling) -> ClipTokens:
    return expected_tokens(check_clip(video, sampling), sampling)
