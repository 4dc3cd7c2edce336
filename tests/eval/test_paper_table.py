"""A report as one table: right numbers under right heads, in each form's own escapes."""

import csv
import io

import pytest

from omniqa.errors import UsageError
from omniqa.eval.paper_table import FORMS, paper_table
from omniqa.eval.protocol import Protocol
from omniqa.eval.questions import SetQuestion
from omniqa.eval.report import report
from omniqa.pruning.variants import method_variants

COLUMNS = method_variants(["none", "random"], [0.3])
QUESTIONS = [
    SetQuestion(0, "a", "?", "x", groups={"task": "R&D_50%"}),
    SetQuestion(1, "a", "?", "x", groups={"task": "a|b"}),
    SetQuestion(2, "b", "?", "x", groups={"task": "a|b"}),
]


@pytest.fixture
def made():
    base = {"said": "x", "achieved": 0.3, "at_floor": False, "input_pruning_s": 0.001, "prefill_s": 0.0115,
            "peak_rss_bytes": 5, "peak_device_bytes": None, "model": "m_1"}  # fmt: skip
    right = {"none": (1, 1, 0), "random 0.3": (1, 0, 0)}
    rows = {
        (number, column.name): base | {"correct": bool(right[column.name][number])}
        for number in range(3)
        for column in COLUMNS
    }
    rows[2, "random 0.3"]["at_floor"] = True
    return report("set", QUESTIONS, COLUMNS, rows, None, Protocol("seats", "omnizip", "avut"))


def test_csv_has_a_number_for_each_group_and_says_what_it_is_of(made):
    first, second = csv.DictReader(io.StringIO(paper_table(made, "csv", "task")))
    assert (first["method"], first["R"], first["all"], first["n"], first["prefill ms"]) == (
        "none", "0.300", "66.7", "3", "12.5",
    )  # fmt: skip
    assert (first["R&D_50%"], first["a|b"], second["a|b"], second["R"]) == ("100.0", "50.0", "0.0", "0.300*")
    assert "prompt seats (videomme), scoring omnizip (avut)" in second["of"]


def test_markdown_is_a_table_with_escaped_bars(made):
    lines = paper_table(made, "markdown", "task").splitlines()
    assert lines[0] == r"| method | R | R&D_50% | a\|b | all | 95 % | n | prefill ms | device GB |"
    assert lines[1] == "|---|" + "---:|" * 8
    assert lines[2].startswith("| none | 0.300 | 100.0 | 50.0 | 66.7 |")
    assert lines[-1].endswith("* at the nearest reachable R on some clips.")


def test_latex_is_a_tabular_with_escapes(made):
    lines = paper_table(made, "latex", "task").splitlines()
    assert lines[1:5] == [
        r"\begin{tabular}{lrrrrrrrr}", r"\toprule",
        r"method & R & R\&D\_50\% & a|b & all & 95 \% & n & prefill ms & device GB \\", r"\midrule",
    ]  # fmt: skip
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


@pytest.mark.parametrize("form", FORMS)
def test_without_groups_there_are_no_columns_for_them(made, form):
    assert "a|b" not in paper_table(made, form).replace("\\", "")


def test_other_forms_and_groups_are_refused(made):
    with pytest.raises(UsageError, match="use markdown, latex, csv"):
        paper_table(made, "html")
    with pytest.raises(UsageError, match="use task"):
        paper_table(made, "csv", "duration")
