"""`omniqa plan`: how many tokens each decoder layer will hold, worked out without weights."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from omniqa.cli import console, options
from omniqa.errors import UsageError
from omniqa.media.sampling import CELL, PIXELS, Sampling, smart_resize
from omniqa.media.timeline import sample_times
from omniqa.model.checkpoint import HUB_7B, decoder_layers, pixel_bounds
from omniqa.model.work import ModelShape
from omniqa.pruning import registry
from omniqa.pruning.schedule import ClipTokens, Plan
from omniqa.sequence.units import POSITIONS_PER_SECOND

TEXT_TOKENS = 60  # system prompt, template and a short question


def plan(
    video: Annotated[
        str | None, typer.Argument(help="Plan for this file; without it, for a clip of the size given below.")
    ] = None,
    model: options.Model = None,
    method: options.Method = "omnidrop",
    retention: options.RetentionTarget = 0.3,
    method_options: options.MethodOptions = None,
    seconds: Annotated[float, typer.Option(help="Length of the clip.", rich_help_panel="The clip")] = 64.0,
    width: Annotated[int, typer.Option(help="Width of its picture.", rich_help_panel="The clip")] = 448,
    height: Annotated[int, typer.Option(help="Height of its picture.", rich_help_panel="The clip")] = 252,
    fps: options.Fps = 2.0,
    max_frames: options.MaxFrames = 128,
    no_audio: options.NoAudio = False,
    no_video: options.NoVideo = False,
    audio_track: options.AudioTrack = None,
    allow_network: options.AllowNetwork = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure what this machine computes a second, and predict the stages' seconds."),
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the schedule, layer by layer: what leaves after it, and what is left. No weights are needed."""
    pruner = registry.create(method, retention, **registry.parse_options(method, method_options or []))
    name = model or HUB_7B
    sampling = Sampling(
        fps=fps,
        max_frames=max_frames,
        audio=not no_audio,
        video=not no_video,
        audio_track=audio_track,
        allow_network=allow_network,
    )
    sampling = sampling.within(pixel_bounds(name))
    clip = _file_tokens(video, sampling) if video else _clip_tokens(seconds, width, height, seconds, sampling)
    layers = decoder_layers(name)
    planned = pruner.plan(clip, layers)
    if not pruner.counts_known_ahead:
        console.note(f"what {method} keeps depends on the clip's content; this is what it aims at")
    work = ModelShape.of(name).work(planned, TEXT_TOKENS)
    rate = _rate() if measure else None
    if as_json:
        head = {"model": name, "method": method, "target": pruner.target}
        console.print_json(head | _as_dict(clip, planned) | {"flop": work, "flop_per_s": rate})
        return
    rows = [
        (str(layer), str(alive), f"{alive / clip.n:.3f}", str(drops))
        for layer, (alive, drops) in enumerate(zip(planned.alive, [*planned.drops, 0], strict=True))
    ]
    console.result(
        f"{name}, {method}, retention {planned.retention:.4f} (asked {pruner.target:g}): "
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
        console.result(f"measured: {rate / 1e12:.3f} TFLOP/s; no stage can be faster than that allows")
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
    from omniqa.media.probe import probe

    info = probe(video, sampling.access)
    picture, sound = info.video, info.audio
    return _clip_tokens(
        seconds=float(picture.end) if picture else 0.0,
        width=picture.width if picture else 0,
        height=picture.height if picture else 0,
        audio_seconds=float(sound.end) if sound else 0.0,
        sampling=sampling,
    )


def _clip_tokens(seconds: float, width: int, height: int, audio_seconds: float, sampling: Sampling) -> ClipTokens:
    grids = hw = 0
    if sampling.video and seconds:
        frames = len(sample_times(0, seconds, sampling.fps, sampling.max_frames))
        rows, cols = smart_resize(height, width, *sampling.pixels(PIXELS))
        grids, hw = -(-frames // 2), rows * cols // CELL**2
    audio = round(POSITIONS_PER_SECOND * audio_seconds) if sampling.audio else 0
    if not grids and not audio:
        raise UsageError("There is neither picture nor sound to plan for.")
    return ClipTokens(audio, grids, hw)
