"""What `omniqa eval` prints: its report as tables, and what went wrong."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import typer

from omniqa.cli import tables
from omniqa.cli.console import console
from omniqa.cli.words import counted
from omniqa.errors import SOME_FAILED
from omniqa.eval.report import ALL

SHOWN_FAILURES = 10
UNKNOWN = "-"


def show(made: Mapping[str, Any]) -> None:
    """The tables of a report: by method, by group, and pairs of methods."""
    cells = made["cells"]
    asked = f"{counted(made['questions'], 'question')} about {counted(made['clips'], 'clip')}"
    console.remark(f"{made['dataset']}: {asked}, {made['model']}")
    console.remark(", ".join(f"{what} {_named(made, what)}" for what in ("prompt", "scoring")))
    _show_columns([cell for cell in cells if cell["by"] == ALL])
    for by in dict.fromkeys(cell["by"] for cell in cells if cell["by"] != ALL):
        _show_groups(by, [cell for cell in cells if cell["by"] == by], made["columns"])
    if made["evidence"]:
        _show_evidence(made["evidence"])
    if made["pairs"]:
        _show_pairs(made["pairs"])
    if made["peak_rss_bytes"] is not None:
        console.remark(f"peak memory of the process: {made['peak_rss_bytes'] / 1e9:.2f} GB")


def _show_columns(cells: list[dict[str, Any]]) -> None:
    columns = [
        tables.name("method"),
        tables.number("right %"),
        tables.number("95 %", rank=1),
        tables.number("right", rank=3),
        tables.number("chance %", rank=4),
        tables.number("no letter", rank=5),
        tables.number("failed", rank=2),
        tables.number("R", rank=1),
        tables.number("encoders s", rank=7),
        tables.number("prefill s", rank=6),
    ]
    rows: list[tuple[str, ...]] = [
        (
            cell["column"],
            _percent(cell["accuracy"]),
            _interval(cell),
            f"{cell['correct']}/{cell['n']}",
            _percent(cell["chance"]),
            str(cell["unparsed"]),
            str(cell["failed"]),
            UNKNOWN if cell["achieved"] is None else f"{cell['achieved']:.4f}{'*' * bool(cell['at_floor'])}",
            UNKNOWN if cell["encoders_s"] is None else f"{cell['encoders_s']:.3f}",
            UNKNOWN if cell["prefill_s"] is None else f"{cell['prefill_s']:.4f}",
        )
        for cell in cells
    ]
    if any(cell["peak_device_bytes"] for cell in cells):
        columns.append(tables.number("device GB", rank=6))
        rows = [(*row, f"{(cell['peak_device_bytes'] or 0) / 1e9:.2f}") for row, cell in zip(rows, cells, strict=True)]
    console.results(columns, rows)
    if any(cell["at_floor"] for cell in cells):
        console.remark("* does not reach the asked retention on some clips; asked there at the nearest that it reaches")


def _show_groups(by: str, cells: list[dict[str, Any]], columns: list[str]) -> None:
    """One row a group, one column a method."""
    found = {(cell["group"], cell["column"]): cell for cell in cells}
    rows = []
    for group in dict.fromkeys(cell["group"] for cell in cells):
        mine = [found[group, column] for column in columns]
        shares = [f"{_percent(cell['accuracy'])} ({_interval(cell)})" if cell["n"] else UNKNOWN for cell in mine]
        rows.append((group, str(max(cell["n"] for cell in mine)), _percent(mine[0]["chance"]), *shares))
    heads = (tables.name(by), tables.number("questions", rank=2), tables.number("chance %", rank=1))
    console.results((*heads, *map(tables.number, columns)), rows)


def _show_evidence(cells: list[dict[str, Any]]) -> None:
    """How often the evidence of right answers points to the true moment, chance in parentheses."""
    columns = (
        tables.name("evidence of right answers"),
        tables.name("method"),
        tables.number("questions", rank=2),
        tables.number("top chunk % (chance)"),
        tables.number("95 %", rank=3),
        tables.number("top three % (chance)", rank=1),
        tables.number("mean rank (chance)", rank=4),
        tables.number("IoU % (chance)", rank=5),
        tables.number("first chunk % (chance)", rank=6),
        tables.number("to picture %", rank=2),
    )
    rows = [
        (
            cell["group"],
            cell["column"],
            str(cell["n"]),
            _with_chance(cell, "top"),
            f"{100 * cell['top_low']:.1f}-{100 * cell['top_high']:.1f}",
            _with_chance(cell, "top3"),
            f"{cell['rank']:.2f} ({cell['rank_chance']:.2f})",
            _with_chance(cell, "iou"),
            _with_chance(cell, "first"),
            _percent(cell["to_video"]),
        )
        for cell in cells
    ]
    console.results(columns, rows)


def _with_chance(cell: Mapping[str, Any], name: str) -> str:
    return f"{_percent(cell[name])} ({_percent(cell[f'{name}_chance'])})"


def _show_pairs(pairs: list[dict[str, Any]]) -> None:
    columns = (
        tables.name("method"),
        tables.name("against"),
        tables.number("questions", rank=4),
        tables.number("difference %"),
        tables.number("95 %", rank=1),
        tables.number("only first right", rank=2),
        tables.number("only second right", rank=2),
        tables.number("mid-p"),
        tables.number("exact p", rank=3),
        tables.number("bootstrap p", rank=1),
    )
    rows = [
        (
            pair["first"],
            pair["second"],
            str(pair["n"]),
            f"{100 * pair['difference']:+.1f}",
            UNKNOWN if pair["low"] is None else f"{100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}",
            str(pair["first_only"]),
            str(pair["second_only"]),
            f"{pair['mid_p']:.3g}",
            f"{pair['exact_p']:.3g}",
            UNKNOWN if pair["bootstrap_p"] is None else f"{pair['bootstrap_p']:.3g}",
        )
        for pair in pairs
    ]
    console.results(columns, rows)


def _named(made: Mapping[str, Any], what: str) -> str:
    """A prompt's or scoring's name, with the task whose text or rule was taken."""
    task = made[f"{what}_task"]
    return f"{made[what]} ({task})" if task else str(made[what])


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f}"


def _interval(cell: Mapping[str, Any]) -> str:
    return f"{100 * cell['clustered_low']:.1f}-{100 * cell['clustered_high']:.1f}" if cell["n"] else UNKNOWN


def end(made: Mapping[str, Any]) -> None:
    """Say what was wrong with clips, and end with the exit code for it where that cost answers."""
    warned = {warning["clip"] for warning in made["warnings"]}
    if warned:
        console.note(f"{counted(len(warned), 'clip')} with warnings, in the report: {made['warnings'][0]['warning']}")
    failures = Counter((failure["clip"], failure["error"]) for failure in made["failures"])
    if not failures:
        return
    for (clip, error), count in list(failures.items())[:SHOWN_FAILURES]:
        console.note(f"{clip}: {error} ({counted(count, 'answer')})")
    if len(failures) > SHOWN_FAILURES:
        console.note(f"and {len(failures) - SHOWN_FAILURES} more, all of them in the report's failures")
    total = made["questions"] * len(made["columns"])
    console.error(f"{len(made['failures'])} of {total} answers failed; the same command tries them again")
    raise typer.Exit(SOME_FAILED)
