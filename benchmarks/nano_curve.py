"""Draws a training log of nano.

python benchmarks/nano_curve.py .cache/nano/training/log.jsonl docs/nano-training.svg
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

TASKS = {  # kinds of question drawn as one line
    "seen": ("seen", "colour", "shape", "is_seen"),
    "heard": ("heard", "is_heard"),
    "word": ("word",),
    "source localisation": ("seen_while_heard", "colour_while_heard", "shape_while_heard", "heard_while_seen"),
    "order": ("first_last_seen", "first_last_heard", "next_seen", "next_heard", "order_seen", "order_heard"),
    "counting": ("count_seen", "count_heard", "count_while_heard"),
    "description": ("description",),
}


def main(log: Path, plot: Path) -> None:
    """Loss and accuracy by time; and, where the log ends with it, accuracy by depth."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, (loss, accuracy, depth) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    draw_loss(loss, lines)
    draw_accuracy(accuracy, [line for line in lines if "accuracy" in line and "test_of_stage" not in line])
    draw_depth(depth, [line for line in lines if "text_without_media_from_layer" in line])
    figure.savefig(plot)


def draw_loss(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """A line a stage: their losses are of different things."""
    for stage in sorted({line["stage"] for line in lines}):
        drawn = [line for line in lines if "loss" in line and line["stage"] == stage]
        axes.plot([line["seconds"] / 60 for line in drawn], [line["loss"] for line in drawn], label=f"stage {stage}")
    axes.set(xlabel="minutes", ylabel="loss", yscale="log")
    axes.legend()


def draw_accuracy(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """A line a task, on the test clips of the stage that was being trained."""
    for task, kinds in TASKS.items():
        points = []
        for line in lines:
            asked = [line["accuracy"][kind] for kind in kinds if kind in line["accuracy"]]
            if asked:
                right = sum(share * count for share, count in asked) / sum(count for _, count in asked)
                points.append((line["seconds"] / 60, right))
        if points:
            axes.plot(*zip(*points, strict=True), label=task)
    for before, after in pairwise(lines):
        if before["stage"] != after["stage"]:
            axes.axvline(after["seconds"] / 60, color="lightgrey", zorder=0)
    axes.set(xlabel="minutes", ylabel="right, of the stage's test clips", ylim=(0, 1))
    axes.legend(fontsize="small")


def draw_depth(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """What is right where text sees audio and video tokens in the first layers only."""
    axes.plot([line["text_without_media_from_layer"] for line in lines], [line["right"] for line in lines], marker="o")
    axes.set(xlabel="layers in which text sees audio and video", ylabel="right", ylim=(0, 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
