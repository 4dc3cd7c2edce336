"""A report as one table for a paper or a page: one row a method, the groups of one kind as columns."""

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from omniqa.errors import UsageError
from omniqa.terminal import one_line

ALL = "all"
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip

Rows = Sequence[Sequence[str]]


def paper_table(made: Mapping[str, Any], form: str, by: str | None = None) -> str:
    """The table as text.

    Args:
        made: a report, as `omniqa.eval.report.report` gives it.
        form: one of FORMS.
        by: what the columns between R and all questions are counted by, such as "task"; None has no such columns.

    Raises:
        UsageError: there is no such form, or the set has no such groups.
    """
    check_form(form)
    return _FORMS[form](_rows(made, by), _caption(made))


def check_form(form: str | None) -> None:
    """Raises UsageError for a form that is not in FORMS; None is no table."""
    if form is not None and form not in FORMS:
        raise UsageError(f"There is no table {form!r}: use {', '.join(FORMS)}.", field="table")


def check_groups(by: str | None, known: Collection[str]) -> None:
    """Raises UsageError for a way to group that is not known; None is none."""
    if by is not None and by not in known:
        names = ", ".join(name for name in known if name != ALL) or "nothing"
        raise UsageError(f"by {by!r} counts nothing here: use {names}.", field="by")


def _rows(made: Mapping[str, Any], by: str | None) -> list[list[str]]:
    """The head, and a row a column of the report."""
    groups = list(dict.fromkeys(cell["group"] for cell in made["cells"] if cell["by"] == by)) if by else []
    check_groups(by, dict.fromkeys(cell["by"] for cell in made["cells"]))
    found = {(cell["by"], cell["group"], cell["column"]): cell for cell in made["cells"]}
    rows = [["method", "R", *map(one_line, groups), ALL, "95 %", "n", "prefill ms", "device GB"]]
    for name in made["columns"]:
        whole = found[ALL, ALL, name]
        shares = [_percent(found[by, group, name]["accuracy"]) for group in groups]
        star = "*" * bool(whole["at_floor"])
        rows.append([
            one_line(name),
            _number(whole["achieved"], 1, 3) + star,
            *shares,
            _percent(whole["accuracy"]),
            f"{_percent(whole['clustered_low'])}-{_percent(whole['clustered_high'])}" if whole["n"] else "-",
            str(whole["n"]),
            _number(whole["prefill_s"], 1000, 1),
            _number(whole["peak_device_bytes"], 1e-9, 2),
        ])  # fmt: skip
    return rows


def _caption(made: Mapping[str, Any]) -> str:
    """What the numbers are of, and what they are comparable by."""
    named = (f"{what} {made[what]}" + f" ({made[f'{what}_task']})" * bool(made[f"{what}_task"]) for what in _PROTOCOL)
    asked = (
        f"{made['dataset']}, {made['questions']} questions about {made['clips']} clips, {made['model'] or 'no model'}"
    )
    star = "; * at the nearest reachable R on some clips" * any(cell["at_floor"] for cell in made["cells"])
    return f"{asked}, {', '.join(named)}; right answers in %, intervals clustered by clip{star}"


_PROTOCOL = ("prompt", "scoring")


def _percent(share: float | None) -> str:
    return _number(share, 100, 1)


def _number(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def _markdown(rows: Rows, caption: str) -> str:
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, f"|---|{'---:|' * (len(rows[0]) - 1)}")
    return "\n".join([*lines, "", f"{caption}."])


def _latex(rows: Rows, caption: str) -> str:
    def escaped(text: str) -> str:
        return "".join(_LATEX.get(char, char) for char in text)

    head, *body = [f"{' & '.join(map(escaped, row))} \\\\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    table = [
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([f"% {caption}", *table])


def _csv(rows: Rows, caption: str) -> str:
    """With the caption's text in each row, since a table in this form has nothing around it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head, *body = rows
    writer.writerows([[*head, "of"], *([*row, caption] for row in body)])
    return text.getvalue().rstrip("\n")


_FORMS: dict[str, Callable[[Rows, str], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
FORMS = tuple(_FORMS)
