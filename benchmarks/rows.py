"""What was measured, side by side: runs become rows of medians, beside the floors that their work has here."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from omniqa.models.qwen2_5_omni.flops import ModelShape
from omniqa.pruning.vision_rule import VisionRule
from omniqa.runtime.matmul_rate import matmul_rate

THEIRS = "transformers"
STAGES = (
    "decode", "preprocess", "vision_encoder", "audio_encoder", "input_pruning", "prefill", "time_to_first_token",
)  # fmt: skip
KINDS = ("text", "audio", "video")


@dataclass(frozen=True)
class Run:
    """One answer to one question.

    seconds: by stage. tokens: text, audio and video, before any pruning. first_token: its id; None where the answer
    was empty. peak_rss_bytes, peak_device_bytes: of this run; None where that can't be told.
    operations: of the stages whose work is known.
    """

    seconds: dict[str, float]
    tokens: dict[str, int]
    first_token: int | None
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    operations: dict[str, float]


@dataclass
class Rates:
    """The best matrix rates measured so far, in FLOP/s: in the model's dtype, and in float32.

    A floor takes the faster: numbers can be upcast for less than a product costs.
    """

    dtype: torch.dtype
    device: torch.device
    best: dict[str, float] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure anew; the best stays."""
        for dtype in {self.dtype, torch.float32}:
            name = str(dtype).removeprefix("torch.")
            self.best[name] = max(self.best.get(name, 0.0), matmul_rate(dtype, self.device))

    @property
    def fastest(self) -> float:
        """The one that floors are of."""
        return max(self.best.values())


def operations(
    shape: ModelShape,
    tokens: dict[str, int],
    grids: int,
    tokens_per_grid: int,
    lengths: Sequence[float],
    rule: VisionRule | None = None,
) -> dict[str, float]:
    """Operations by stage. grids: those encoded. lengths: tokens that each layer computed. rule: of their encoding."""
    return {
        "vision_encoder": shape.vision_encoder(grids, tokens_per_grid, rule),
        "audio_encoder": shape.audio_encoder(4 * tokens["audio"]),
        "prefill": shape.prefill(lengths),
    }


def make_rows(found: dict[str, list[Run]], rate: float, note: str = "") -> list[dict[str, Any]]:
    """A row for each name, transformers first.

    found: the runs by name, transformers among them where it ran. note: why it ran no further.
    """
    whole = _median(found[THEIRS], _first_token) if found.get(THEIRS) else None
    rows = [_row(name, runs, rate, whole) for name, runs in found.items() if runs]
    theirs = next((row for row in rows if row["name"] == THEIRS), None)
    if theirs is None and note:
        rows.insert(0, {"name": THEIRS, "runs": 0, "note": note})
    elif theirs:
        ours = next((row["tokens"] for row in rows if row is not theirs), theirs["tokens"])
        theirs["more_tokens"] = {kind: theirs["tokens"][kind] - ours[kind] for kind in KINDS}
        theirs["note"] = note
    return rows


def _row(name: str, runs: list[Run], rate: float, whole: float | None) -> dict[str, Any]:
    seconds = {stage: _median(runs, lambda run, stage=stage: run.seconds.get(stage, 0.0)) for stage in STAGES}
    floors = {stage: count / rate for stage, count in runs[0].operations.items() if count}
    return {
        "name": name,
        "runs": len(runs),
        "note": "",
        "seconds": seconds,
        "floor_s": floors,
        "above_floor": {stage: seconds[stage] / floor for stage, floor in floors.items()},
        "times_faster": whole and whole / seconds["time_to_first_token"],
        "tokens": runs[0].tokens,
        "first_tokens": sorted({run.first_token for run in runs if run.first_token is not None}),
        "peak_rss_bytes": _largest(run.peak_rss_bytes for run in runs),
        "peak_device_bytes": _largest(run.peak_device_bytes for run in runs),
    }


def _first_token(run: Run) -> float:
    return run.seconds["time_to_first_token"]


def _median(runs: list[Run], value: Callable[[Run], float]) -> float:
    return statistics.median(map(value, runs))


def _largest(values: Any) -> int | None:
    return max((value for value in values if value is not None), default=None)


COLUMNS = (
    "decode s", "preprocess s", "vision encoder s", "its floor s", "over floor", "audio encoder s", "pruning s",
    "prefill s", "its floor s", "over floor", "first token s", "times faster", "text + audio + video tokens",
    "first token", "peak GB",
)  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The rows in Markdown."""
    rows = found["rows"]
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    lines += [f"| {row['name']} | {' | '.join(_cells(row))} |" for row in rows]
    lines += [f"\n{row['name']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    if not row["runs"]:
        return ["-"] * len(COLUMNS)
    seconds, peak = row["seconds"], row["peak_device_bytes"] or row["peak_rss_bytes"]
    return [
        *(f"{seconds[stage]:.2f}" for stage in ("decode", "preprocess")),
        *_beside_floor(row, "vision_encoder"),
        f"{seconds['audio_encoder']:.2f}",
        f"{seconds['input_pruning']:.2f}",
        *_beside_floor(row, "prefill"),
        f"{seconds['time_to_first_token']:.2f}",
        "-" if row["times_faster"] is None else f"{row['times_faster']:.2f}",
        _counted(row),
        " ".join(map(str, row["first_tokens"])) or "-",
        "-" if peak is None else f"{peak / 1e9:.2f}",
    ]


def _beside_floor(row: dict[str, Any], stage: str) -> list[str]:
    """Seconds, the floor, and how many times that they are."""
    if stage not in row["floor_s"]:
        return [f"{row['seconds'][stage]:.2f}", "-", "-"]
    return [f"{value:.2f}" for value in (row["seconds"][stage], row["floor_s"][stage], row["above_floor"][stage])]


def _counted(row: dict[str, Any]) -> str:
    """Tokens by kind; of transformers, by how many they differ from omniqa's."""
    counts = " + ".join(str(row["tokens"][kind]) for kind in KINDS)
    differ = [f"{more:+d} {kind}" for kind, more in row.get("more_tokens", {}).items() if more]
    return f"{counts} ({', '.join(differ)} to omniqa's)" if differ else counts


def record(runs: dict[str, list[Run]]) -> dict[str, list[dict[str, Any]]]:
    """Every single run, for JSON."""
    return {name: [asdict(run) for run in each] for name, each in runs.items()}
