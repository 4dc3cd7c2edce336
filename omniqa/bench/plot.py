"""Draws a report: time, and agreement with full tokens, against the retention achieved."""

import importlib.util
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from omniqa.bench.report import Measured, Report
from omniqa.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
MARKERS = "osD^vP*X"

Line = list[Measured]


def check_plot(path: Path) -> None:
    """Raises UsageError where no plot can be written to `path`: no matplotlib, another format, no such folder."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("plot needs matplotlib: pip install 'omniqa[plot]'.", field="plot")
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"plot: {path.name} must end with {', '.join(FORMATS)}.", field="plot")
    if not path.parent.is_dir():
        raise UsageError(f"plot: there is no folder {path.parent}.", field="plot")


def save_plot(report: Report, path: Path) -> None:
    """Write the drawing to `path`, in the format that it ends with; see check_plot.

    Left: seconds of input pruning and prefill, the median with the lowest and the highest. Right: KL of the first
    token's distribution from full tokens', its marker hollow where the answer is another. One line a method.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    time, agreement = figure.subplots(1, 2)
    for (name, line), marker in zip(_lines(report).items(), cycle(MARKERS)):
        _draw_times(time, name, line, marker)
        _draw_agreement(agreement, name, line, marker)
    full = report.rows[0].measured
    if full:
        time.axhline(full.pruned_prefill.median, color="black", linestyle="--", label="full tokens")
    time.set(xlabel="retention achieved", ylabel="input pruning and prefill, s", ylim=(0, None))
    agreement.set(xlabel="retention achieved", ylabel="KL(full ‖ method), mean along the answer, nats")
    agreement.set_title("hollow: another answer than with full tokens", fontsize="small")
    if all(got.kl for line in _lines(report).values() for got in line):
        agreement.set_yscale("log")
    figure.legend(*time.get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(f"{report.model}, {report.video_tokens} video and {report.audio_tokens} audio tokens")
    figure.savefig(path, dpi=150)


def _lines(report: Report) -> dict[str, Line]:
    """What was measured of each method but full tokens, by ascending retention; a run that rows share, once."""
    lines: dict[str, Line] = {}
    for row in report.rows[1:]:
        if row.measured:
            lines.setdefault(row.label, []).append(row.measured)
    return {
        name: sorted({got.achieved: got for got in line}.values(), key=lambda got: got.achieved)
        for name, line in lines.items()
    }


def _draw_times(axes: "Axes", name: str, line: Line, marker: str) -> None:
    seconds = [got.pruned_prefill for got in line]
    medians = [spread.median for spread in seconds]
    below = [spread.median - spread.low for spread in seconds]
    above = [spread.high - spread.median for spread in seconds]
    axes.errorbar(
        [got.achieved for got in line], medians, (below, above), marker=marker, markersize=5, capsize=2, label=name
    )


def _draw_agreement(axes: "Axes", name: str, line: Line, marker: str) -> None:
    known = [(got.achieved, got.kl, got.same_answer) for got in line if got.kl is not None]
    (drawn,) = axes.plot([x for x, _, _ in known], [kl for _, kl, _ in known], label=name)
    for x, kl, same in known:
        colour = drawn.get_color()
        axes.plot(x, kl, marker, color=colour, markersize=5, markerfacecolor=colour if same else "white")
