"""Does pruning adapt to the task? The share of audio and video tokens that each layer computes, by what is asked for.

As Figure 4 of OmniDrop's paper (arXiv 2605.14458), on nano: questions of hearing, of seeing, and of both.

python benchmarks/retained_by_task.py --clips 20 --plot docs/retained-by-task.svg
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omniqa.eval.nano import NanoClips
from omniqa.eval.statistics import Z95
from omniqa.models.base import AUDIO, VIDEO
from omniqa.nano import world
from omniqa.pipeline.engine import OmniQA
from omniqa.pipeline.load import load
from omniqa.pipeline.trace import Trace
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod

TASKS = {"audio": "hearing", "video": "seeing", "both": "both"}  # by a question's modality
TOKENS = {"audio": AUDIO, "video": VIDEO}
Array = NDArray[np.float64]


@dataclass
class Shares:
    """Retained shares of one kind of token.

    Attributes:
        by_task: of each task, one (L,) for each clip: the mean over its questions.
    """

    by_task: dict[str, list[Array]] = field(default_factory=lambda: {task: [] for task in TASKS.values()})

    def mean(self, task: str) -> Array:
        """(L,) over the clips."""
        return np.mean(self.by_task[task], axis=0)

    def difference(self, one: str, other: str) -> tuple[float, float]:
        """By how much more is retained in one task than in another, over the layers; and the 95 % interval's half."""
        by_clip = np.array([a.mean() - b.mean() for a, b in zip(self.by_task[one], self.by_task[other], strict=True)])
        return float(by_clip.mean()), float(Z95 * by_clip.std(ddof=1) / np.sqrt(len(by_clip)))


def retained(trace: Trace, kind: int) -> Array:
    """(L,) the share of a kind of token that each layer computed."""
    return trace.alive[:, trace.modality == kind].mean(axis=1)


def measure(qa: OmniQA, clips: NanoClips, seeds: Iterable[int], method: AnyMethod) -> dict[str, Shares]:
    """Prefill all questions about the clips; clips that lack a task do not count."""
    found = {tokens: Shares() for tokens in TOKENS}
    for seed in seeds:
        encoded = qa.encode(clips.source(str(seed), qa.pixels), method=method)
        traces: dict[str, list[Trace]] = {task: [] for task in TASKS.values()}
        for question in world.questions(clips.script(seed)):
            prefilled = qa.prefiller.prefill(encoded, question.prompt, method, reuse_prefix=True)
            traces[TASKS[question.modality]].append(prefilled.trace)
        if not all(traces.values()):
            continue
        for tokens, kind in TOKENS.items():
            for task, of_task in traces.items():
                found[tokens].by_task[task].append(np.mean([retained(trace, kind) for trace in of_task], axis=0))
    return found


def table(found: dict[str, Shares]) -> list[str]:
    """A row a kind of token and task: the share in the first layer, after each third of the depth, and over all."""
    rows = ["| tokens | task | layer 1 | a third | two thirds | last | mean |", "|---|---|---:|---:|---:|---:|---:|"]
    for tokens, shares in found.items():
        for task in shares.by_task:
            mean = shares.mean(task)
            last = len(mean) - 1
            places = [mean[round(last * third / 3)] for third in range(4)]
            cells = " | ".join(f"{100 * share:.1f} %" for share in (*places, mean.mean()))
            rows.append(f"| {tokens} | {task} | {cells} |")
    return rows


def draw(found: dict[str, Shares], plot: Path, title: str) -> None:
    """The shares by layer: a panel a kind of token, a line a task."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "omniqa", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        panels = figure.subplots(1, len(found), sharey=True)
        for axes, (tokens, shares) in zip(panels, found.items(), strict=True):
            for task, dashes in zip(shares.by_task, ("-", "--", ":"), strict=True):
                mean = shares.mean(task)
                axes.plot(range(1, len(mean) + 1), 100 * mean, dashes, marker=".", label=f"questions of {task}")
            axes.set(title=f"{tokens} tokens", xlabel="layer", ylim=(0, 105))
        panels[0].set_ylabel("retained, %")
        panels[0].legend(fontsize="small")
        figure.suptitle(title, fontsize="medium")
        figure.savefig(plot, format="svg", metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--method", default="omnidrop")
    parser.add_argument("--retention", type=float, default=0.3)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    method = registry.resolve(given.method, given.retention)
    clips = NanoClips(seconds=given.seconds, scenes=given.scenes)
    found = measure(load("nano", "cpu"), clips, range(given.clips), method)
    counted = len(found["audio"].by_task["both"])
    title = f"{method.name}, R = {given.retention:g}, {counted} clips of nano's test set"
    print(title, *table(found), sep="\n")
    for tokens, shares in found.items():
        more, half = shares.difference("hearing", "seeing")
        print(f"{tokens} tokens, hearing less seeing: {100 * more:+.1f} ± {100 * half:.1f} points")
    if given.plot:
        draw(found, given.plot, title)


if __name__ == "__main__":
    main()
