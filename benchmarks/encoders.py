"""Both encoders alone: transformers' own modules and omniqa's drivers on the same frames and log-mel, in turn."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.rows import THEIRS, Rates
from omniqa.media.clip import sample
from omniqa.media.mel import log_mel
from omniqa.media.sampling import ClipOptions
from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.models.qwen2_5_omni.vision import IMAGE_MEAN, IMAGE_STD, PATCH, patchify
from omniqa.models.qwen2_5_omni.weights import read_tensors
from omniqa.pipeline.engine import OmniQA

OURS = "omniqa"
SIDES = (THEIRS, OURS)
WARM_MEL = 200  # frames of log-mel, one window


@dataclass(frozen=True)
class Case:
    """One encoder by both sides, ready to run.

    run: by side, embeddings (n, d) in the decoder's width. operations: by side; equal grids are one to omniqa.
    """

    stage: str
    run: dict[str, Callable[[], Tensor]]
    operations: dict[str, float]


class TheirModules:
    """transformers' encoders as transformers runs them, loaded apart from those that omniqa drives."""

    def __init__(self, qa: OmniQA) -> None:
        from transformers import Qwen2_5OmniThinkerForConditionalGeneration

        checkpoint, self._device, self._dtype = qa.model.checkpoint, qa.model.device, qa.model.dtype
        load: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained
        weights = {"state_dict": read_tensors(checkpoint.tensors), "dtype": self._dtype}
        module = load(None, config=checkpoint.config.for_transformers(), **weights).to(self._device)
        parts = {path.split(".")[-1]: part for path, part in module.named_modules()}
        self._visual, self._audio_tower = parts["visual"], parts["audio_tower"]

    def vision(self, frames: Any) -> Callable[[], Tensor]:
        """Ready to encode uint8 frames (F, H, W, 3): their patches are cut before the clock starts."""
        mean, std = (255 * torch.tensor(values) for values in (IMAGE_MEAN, IMAGE_STD))
        patches = patchify((torch.from_numpy(frames).float() - mean) / std).flatten(0, 2).to(self._device, self._dtype)
        rows, cols = (side // PATCH for side in frames.shape[1:3])
        grid = torch.tensor([[len(frames) // 2, rows, cols]], device=self._device)
        return lambda: self._visual(patches, grid_thw=grid).pooler_output

    def audio(self, mel: Any) -> Callable[[], Tensor]:
        """Ready to encode log-mel (bins, frames)."""
        features = torch.from_numpy(mel).to(self._device, self._dtype)
        lengths = torch.tensor([mel.shape[1]], device=self._device)
        return lambda: self._audio_tower(features, feature_lens=lengths).last_hidden_state


@torch.inference_mode()
def measure(qa: OmniQA, clip: Path, sampling: ClipOptions, runs: int) -> dict[str, Any]:
    """What both encoders take on the clip's frames and sound, by side; every single time, and floors."""
    cases, rates = _cases(qa, clip, sampling), Rates(qa.model.dtype, qa.model.device)
    rows: list[dict[str, Any]] = [
        {"stage": case.stage, "name": side, "seconds": []} for case in cases for side in SIDES
    ]
    results: dict[tuple[str, str], Tensor] = {}
    for _ in range(runs):
        rates.measure()
        for row, (case, side) in zip(rows, ((case, side) for case in cases for side in SIDES), strict=True):
            took, results[case.stage, side] = timed(case.run[side], qa.model.device)
            row["seconds"].append(took)
    for row in rows:
        case = next(case for case in cases if case.stage == row["stage"])
        row["median_s"] = statistics.median(row["seconds"])
        row["floor_s"] = case.operations[row["name"]] / rates.fastest
        row["above_floor"] = row["median_s"] / row["floor_s"]
        theirs = next(other for other in rows if other["stage"] == row["stage"])
        row["times_faster"] = theirs["median_s"] / row["median_s"]
    apart = {case.stage: difference(*(results[case.stage, side] for side in SIDES)) for case in cases}
    on_cpu = qa.model.device.type == "cpu"
    shares = {case.stage: operators(case.run[OURS]) for case in cases if on_cpu}
    return {"rates": rates.best, "rows": rows, "largest_difference": apart, "operators": shares}


def _cases(qa: OmniQA, clip: Path, sampling: ClipOptions) -> list[Case]:
    """The encoders that this clip needs; both sides have read their weights."""
    taken, theirs = sample(clip, sampling.within(qa.pixels)), TheirModules(qa)
    shape, cases = ModelShape.of(str(qa.model.checkpoint.folder)), []
    frames, waveform = taken.frames, taken.waveform
    if len(frames):
        see = qa.vision_encoder.encode
        _ = theirs.vision(frames[:2])(), see(frames[:2])
        tokens = frames.shape[1] * frames.shape[2] // (4 * PATCH**2)
        different = len({frames[number : number + 2].tobytes() for number in range(0, len(frames), 2)})
        run = {THEIRS: theirs.vision(frames), OURS: lambda: see(frames).flatten(0, 1)}
        grids = {THEIRS: len(frames) // 2, OURS: different}
        cases.append(Case("vision encoder", run, {side: shape.vision_encoder(grids[side], tokens) for side in SIDES}))
    if len(waveform):
        hear, mel = qa.audio_encoder.encode, log_mel(waveform)
        _ = theirs.audio(mel[:, :WARM_MEL])(), hear(mel[:, :WARM_MEL])
        run = {THEIRS: theirs.audio(mel), OURS: lambda: hear(mel).embeddings}
        cases.append(Case("audio encoder", run, dict.fromkeys(SIDES, shape.audio_encoder(mel.shape[1]))))
    return cases


def operators(run: Callable[[], Tensor]) -> dict[str, float]:
    """The share of a CPU's time that each of torch's operators takes, the largest first; from 1 % on."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        run()
    spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in found.key_averages()}
    shares = {name: seconds / sum(spent.values()) for name, seconds in spent.items()}
    return {name: shares[name] for name in sorted(shares, key=lambda name: -shares[name]) if shares[name] >= 0.01}


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds until the device has the result, and the result."""
    begun = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun, result


def difference(theirs: Tensor, ours: Tensor) -> float:
    """The largest difference, as a share of the standard deviation of transformers' values."""
    return float((theirs.float() - ours.float()).abs().max() / theirs.float().std())


def table(found: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = ["| | | s | floor s | over floor | times faster |", "|---|---|---:|---:|---:|---:|"]
    for row in found["rows"]:
        cells = (row["median_s"], row["floor_s"], row["above_floor"], row["times_faster"])
        lines.append(f"| {row['stage']} | {row['name']} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    for stage, apart in found["largest_difference"].items():
        lines.append(f"\n{stage}: largest difference of the two sides {apart:.2g} standard deviations")
    for stage, shares in found["operators"].items():
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(f"\n{stage}: omniqa's time by torch's operators: {parts}")
    return "\n".join(lines)
