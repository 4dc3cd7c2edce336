"""When is it better to prune inside the decoder than before it? Reads what evaluations of nano's test set have kept.

    omniqa eval nano --model nano --seconds 16 --scenes 4 --method omnidrop --method random … --out results/16
    python -m benchmarks.inside_or_before results/8 results/16 --plot docs/inside-or-before.svg

A table for each evaluation, by how many moments of the clip tell the answer: one (a needle), or several, which have to
be compared or counted. Then omnidrop less the best of the methods that prune before layer 0 alone, at each retention,
with the interval of a paired bootstrap by clip.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from omniqa.eval.nano import NanoClips
from omniqa.eval.questions import SetQuestion
from omniqa.eval.statistics import paired_bootstrap
from omniqa.pruning import registry
from omniqa.pruning.contract import Method

MOMENTS = ("one", "several")
INSIDE = "omnidrop"
MARKERS = "osD^vP*X<>"

Variant = tuple[str, float]  # a method's name, and the retention asked for


@dataclass(frozen=True)
class Panel:
    """Answers of one evaluation to questions of one kind.

    right: by method and retention, whether each question was answered rightly. achieved: the mean retention.
    """

    title: str
    moments: str
    right: dict[Variant, dict[int, bool]]
    achieved: dict[Variant, float]
    clips: dict[int, str]

    def share(self, variant: Variant) -> float:
        """Right answers of one method, 0 to 1."""
        found = self.right[variant].values()
        return sum(found) / len(found)

    def retentions(self) -> list[float]:
        """Those asked for, the largest first."""
        return sorted({retention for name, retention in self.right if name != "none"}, reverse=True)

    def methods(self) -> list[str]:
        """Those that prune, in the order in which they were asked."""
        return list(dict.fromkeys(name for name, _ in self.right if name != "none"))


def read(folder: Path) -> list[Panel]:
    """What an evaluation kept, questions about one moment first."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    (settings,) = json.loads((folder / "results.jsonl.run.json").read_text(encoding="utf-8"))["settings"].values()
    clips = NanoClips(settings["seconds"], settings["scenes"], settings["size"])
    last = max(int(row["clip"]) for row in rows)
    asked = {question.number: question for question in clips.questions(last + 1)}
    title = f"{settings['seconds']:g} s, {settings['scenes']} scenes"
    return [_panel(title, moments, rows, asked) for moments in MOMENTS]


def _panel(title: str, moments: str, rows: Iterable[dict[str, Any]], asked: dict[int, SetQuestion]) -> Panel:
    right: dict[Variant, dict[int, bool]] = defaultdict(dict)
    achieved: dict[Variant, list[float]] = defaultdict(list)
    clips = {}
    for row in rows:
        number, variant = row["question"], (row["method"], row["retention"])
        if row["status"] == "ok" and asked[number].groups["moments"] == moments:
            right[variant][number] = row["correct"]
            achieved[variant].append(row["achieved"])
            clips[number] = row["clip"]
    means = {variant: sum(found) / len(found) for variant, found in achieved.items()}
    return Panel(title, moments, dict(right), means, clips)


def prunes_inside(name: str) -> bool:
    """Whether a method drops tokens after a layer."""
    return type(registry.create(name, 0.3)).prune_layer is not Method.prune_layer


def best_before(panel: Panel, retention: float) -> str | None:
    """The best of the methods that prune before layer 0 alone and reach the retention within 0.01."""
    names = [
        name
        for name in panel.methods()
        if not prunes_inside(name) and panel.achieved.get((name, retention), 2.0) <= retention + 0.01
    ]
    return max(names, key=lambda name: panel.share((name, retention)), default=None)


def table(panel: Panel) -> Iterator[str]:
    """Right answers in %, a row a method; behind those that miss a retention by over 0.01, what they reach."""
    retentions = panel.retentions()
    questions = len(next(iter(panel.right.values())))
    yield f"\n{panel.title}, {panel.moments} moment{'s' if panel.moments != 'one' else ''}: {questions} questions"
    none = panel.share(("none", 1.0))
    yield f"of {len(set(panel.clips.values()))} clips; with all tokens {none:.1%} right\n"
    yield "| method | prunes | " + " | ".join(f"R = {retention:g}" for retention in retentions) + " |"
    yield "|---|---|" + "---:|" * len(retentions)
    for name in panel.methods():
        place = "inside" if prunes_inside(name) else "before"
        yield f"| {name} | {place} | " + " | ".join(_cell(panel, (name, one), one) for one in retentions) + " |"
    yield f"| {INSIDE} less the best before | | " + " | ".join(_lead(panel, one) for one in retentions) + " |"


def _cell(panel: Panel, variant: Variant, retention: float) -> str:
    if variant not in panel.right:
        return "-"
    reached = panel.achieved[variant]
    note = "" if abs(reached - retention) <= 0.01 else f" ({reached:.2f})"
    return f"{100 * panel.share(variant):.1f}{note}"


def _lead(panel: Panel, retention: float) -> str:
    best = best_before(panel, retention)
    if best is None or (INSIDE, retention) not in panel.right:
        return "-"
    ours, theirs = panel.right[INSIDE, retention], panel.right[best, retention]
    more: dict[str, list[int]] = defaultdict(list)
    for number in ours.keys() & theirs.keys():
        more[panel.clips[number]].append(ours[number] - theirs[number])
    found = paired_bootstrap([(sum(by_clip), len(by_clip)) for by_clip in more.values()])
    lead = 100 * (panel.share((INSIDE, retention)) - panel.share((best, retention)))
    interval = f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})" if found else ""
    return f"{lead:+.1f}{interval}, {best}"


def plot(panels: list[Panel], path: Path) -> None:
    """A panel an evaluation and number of moments; methods that prune inside the decoder are drawn through."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    columns = len(panels) // len(MOMENTS)
    figure = Figure(figsize=(4.2 * columns, 7), layout="constrained")
    axes = figure.subplots(len(MOMENTS), columns, sharex=True, sharey=True, squeeze=False)
    for panel, place in zip(panels, (axes[row, column] for column in range(columns) for row in range(2)), strict=True):
        for name, marker in zip(panel.methods(), cycle(MARKERS)):
            points = sorted((panel.achieved[one], panel.share(one)) for one in panel.right if one[0] == name)
            style = "-" if prunes_inside(name) else ":"
            place.plot(*zip(*points, strict=True), marker=marker, linestyle=style, markersize=4, label=name)
        place.axhline(panel.share(("none", 1.0)), color="black", linestyle="--", linewidth=0.8, label="all tokens")
        place.set_title(f"{panel.title}, {panel.moments} moment{'s' if panel.moments != 'one' else ''}", fontsize=9)
        place.set_xscale("log")
        place.set_xticks([0.05, 0.1, 0.2, 0.3, 0.5], ["0.05", "0.1", "0.2", "0.3", "0.5"])
        place.xaxis.set_minor_locator(NullLocator())
    figure.supxlabel("retention achieved")
    figure.supylabel("right")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="what --out of an evaluation of nano names")
    parser.add_argument("--plot", type=Path, help="draw it here")
    given = parser.parse_args(arguments)
    panels = [panel for folder in given.folders for panel in read(folder)]
    for panel in panels:
        print("\n".join(table(panel)))
    if given.plot:
        plot(panels, given.plot)


if __name__ == "__main__":
    main()
