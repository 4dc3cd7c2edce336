"""What the answers come to: accuracies with intervals, by group and column, and which columns differ."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any

from omniqa.eval import evidence
from omniqa.eval.protocol import Protocol
from omniqa.eval.questions import SetQuestion
from omniqa.eval.statistics import Paired, clustered, paired_bootstrap, wilson
from omniqa.jobs.jsonl_store import Row
from omniqa.pruning.variants import MethodVariant

ALL = "all"
_CSV = (
    "by", "group", "column", "method", "retention", "n", "correct", "accuracy", "low", "high", "chance",
    "clustered_low", "clustered_high", "unparsed", "failed", "at_floor", "achieved", "encoders_s", "input_pruning_s",
    "prefill_s", "peak_device_bytes",
)  # fmt: skip

_DEFAULT, _PROTOCOL = Protocol(), ("prompt", "scoring")

_NO_ANSWER: Row = {}

Rows = Mapping[tuple[int, str], Row]


def report(
    dataset: str,
    questions: Sequence[SetQuestion],
    columns: Sequence[MethodVariant],
    rows: Rows,
    baseline: MethodVariant | None = None,
    protocol: Protocol = _DEFAULT,
) -> dict[str, Any]:
    """Everything that is known of a run, as JSON values; docs/eval.md has the fields.

    Args:
        dataset: its name.
        questions: those of the set that were asked.
        columns: the methods.
        rows: as `run.read_answers` gives them.
        baseline: the one column that all others are compared with; None compares all pairs.
        protocol: how questions were put and answers scored.
    """
    return {
        "dataset": dataset,
        **protocol.names,
        "model": next((row["model"] for row in rows.values() if "model" in row), None),
        "questions": len(questions),
        "clips": len({question.clip for question in questions}),
        "columns": [column.name for column in columns],
        "cells": [
            _cell(by, group, column, members, rows)
            for by, groups in groupings(questions).items()
            for group, members in groups.items()
            for column in columns
        ],
        "evidence": evidence.cells(questions, [column.name for column in columns], rows),
        "pairs": [_pair(first, second, questions, rows) for first, second in _to_compare(columns, baseline)],
        "peak_rss_bytes": max((row["peak_rss_bytes"] for row in rows.values() if "error" not in row), default=None),
        "failures": [
            {name: row[name] for name in ("question", "clip", "column", "error")}
            for row in rows.values()
            if "error" in row
        ],
        "warnings": [{"clip": clip, "warning": warning} for clip, warning in _warnings(rows)],
    }


def as_csv(made: Mapping[str, Any]) -> str:
    """The report's cells, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_CSV, *_PROTOCOL), lineterminator="\n")
    writer.writeheader()
    how = {name: made[name] for name in _PROTOCOL}
    writer.writerows(cell | how for cell in made["cells"])
    return text.getvalue()


def groupings(questions: Sequence[SetQuestion]) -> dict[str, dict[str, list[SetQuestion]]]:
    """By what questions are counted: all together, then each way to group them that tells any two apart."""
    found: dict[str, dict[str, list[SetQuestion]]] = {ALL: {ALL: list(questions)}}
    for by in dict.fromkeys(by for question in questions for by in question.groups):
        groups: dict[str, list[SetQuestion]] = {}
        for question in questions:
            for group in question.in_groups(by):
                groups.setdefault(group, []).append(question)
        if len(groups) > 1:
            found[by] = dict(sorted(groups.items()))
    return found


def _cell(by: str, group: str, column: MethodVariant, questions: Iterable[SetQuestion], rows: Rows) -> dict[str, Any]:
    """One number of the table and what belongs to it. Questions that failed or were not asked do not count in n."""
    members = list(questions)
    known = [rows[key] for question in members if (key := (question.number, column.name)) in rows]
    answered = [row for row in known if "error" not in row]
    correct, n = sum(row["correct"] for row in answered), len(answered)
    low, high = wilson(correct, n)
    by_clip = _by_clip(members, lambda question: rows.get((question.number, column.name), _NO_ANSWER).get("correct"))
    clustered_low, clustered_high = clustered(by_clip)
    chances = [question.chance for question in members if question.chance is not None]
    encoders = [row["encoders_s"] for row in answered if row.get("encoders_s") is not None]
    device = [row["peak_device_bytes"] for row in answered if row["peak_device_bytes"] is not None]
    return {
        "by": by,
        "group": group,
        "column": column.name,
        "method": column.pruner.name,
        "retention": column.pruner.target,
        "n": n,
        "correct": correct,
        "accuracy": correct / n if n else None,
        "low": low,
        "high": high,
        "clustered_low": clustered_low,
        "clustered_high": clustered_high,
        "chance": fmean(chances) if chances and len(chances) == len(members) else None,
        "unparsed": sum(row["said"] is None for row in answered),
        "failed": len(known) - n,
        "at_floor": sum(row["at_floor"] for row in answered),
        "achieved": fmean(row["achieved"] for row in answered) if n else None,
        "encoders_s": median(encoders) if encoders else None,
        "input_pruning_s": median(row["input_pruning_s"] for row in answered) if n else None,
        "prefill_s": median(row["input_pruning_s"] + row["prefill_s"] for row in answered) if n else None,
        "peak_device_bytes": max(device, default=None),
    }


def _to_compare(
    columns: Sequence[MethodVariant], baseline: MethodVariant | None
) -> list[tuple[MethodVariant, MethodVariant]]:
    if baseline is None:
        return list(combinations(columns, 2))
    return [(column, baseline) for column in columns if column is not baseline]


def _pair(first: MethodVariant, second: MethodVariant, questions: Sequence[SetQuestion], rows: Rows) -> dict[str, Any]:
    """Two columns on the questions that both have answered."""
    both = {
        question.number: (bool(rows[one]["correct"]), bool(rows[other]["correct"]))
        for question in questions
        if _answered(rows, one := (question.number, first.name))
        and _answered(rows, other := (question.number, second.name))
    }
    outcomes = list(both.values())
    paired = Paired(len(both), outcomes.count((True, False)), outcomes.count((False, True)))
    shared = [question for question in questions if question.number in both]
    resampled = paired_bootstrap(_by_clip(shared, lambda question: both[question.number][0] - both[question.number][1]))
    return {
        "first": first.name,
        "second": second.name,
        "n": paired.n,
        "first_only": paired.first_only,
        "second_only": paired.second_only,
        "difference": paired.difference,
        "mid_p": paired.mid_p,
        "exact_p": paired.exact_p,
        "low": resampled and resampled.low,
        "high": resampled and resampled.high,
        "bootstrap_p": resampled and resampled.p,
    }


def _by_clip(questions: Iterable[SetQuestion], count: Callable[[SetQuestion], int | None]) -> list[tuple[int, int]]:
    """Of each clip, the sum of what questions count for, and how many there are; None leaves a question out."""
    found: dict[str, tuple[int, int]] = {}
    for question in questions:
        value = count(question)
        if value is not None:
            total, size = found.get(question.clip, (0, 0))
            found[question.clip] = total + value, size + 1
    return list(found.values())


def _warnings(rows: Rows) -> list[tuple[str, str]]:
    """What the answers say is wrong with their clips, each once."""
    return list(dict.fromkeys((row["clip"], text) for row in rows.values() for text in row.get("warnings", ())))


def _answered(rows: Rows, key: tuple[int, str]) -> bool:
    return key in rows and "error" not in rows[key]
