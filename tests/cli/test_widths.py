"""At 60, 80 and 120 columns, no method's name and no number is cut."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from omniqa.cli import tables
from omniqa.cli.console import console
from omniqa.cli.tables import Column, Table
from omniqa.cli.words import about, span
from tests.eval.conftest import nano  # noqa: F401 (a fixture)

WIDTHS = (60, 80, 120)
METHODS = ("omnidrop:curve=exp,tds=false", "random", "fastv")


@pytest.fixture(params=WIDTHS)
def width(request, monkeypatch):
    """The width that the command line is told."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    console.hush(False)
    return request.param


def is_whole(text, width):
    """Whether nothing is cut: no line is too long, and none ends in an ellipsis."""
    return "…" not in text and all(cell_len(line) <= width for line in text.splitlines())


def test_ask_fits(ask, clip, width):
    code, _, err = ask(clip, "What is seen?", "--method", METHODS[0])
    assert (code, is_whole(err, width)) == (0, True)
    assert re.search(r"^\d+\.\d s · kept 30 % of 245 tokens · looked at \d.\d s · \d+\.\d GB$", err, re.MULTILINE)
    code, _, err = ask(clip, "What is seen?", "-v")
    assert (code, is_whole(err, width)) == (0, True)
    assert re.search(r"prefill +\d+\.\d{3}$", err, re.MULTILINE)
    assert "245" not in err.split("120 video and 125 audio")[0]


def test_bench_fits(omniqa, checkpoint, clip, width):
    quick = ("--max-new-tokens", 2, "--min-pixels", 784, "--repeats", 1, "--warmup", 0)
    chosen = [word for method in METHODS for word in ("--method", method)]
    code, out, err = omniqa("bench", "--model", checkpoint, *quick, clip, "What?", *chosen, "--retention", "40%")
    assert code == 0, err
    assert is_whole(out, width)
    lines = out.splitlines()
    for method in METHODS:
        assert any(re.search(rf"(^|\s){re.escape(method)}(\s|$)", line) for line in lines)
    assert len(re.findall(r"\d+\.\d\dx", out)) >= 4, "how much faster each is"
    assert "KL nats" in " ".join(out.split()) or "not shown" in out


def test_batch_fits(omniqa, nano, clip, tmp_path, width):  # noqa: F811
    (tmp_path / "a file of no use whose name is long enough to go over several lines.mp4").write_bytes(b"no video")
    options = ("--model", nano, "--max-new-tokens", 2, "--fps", 1)
    code, out, err = omniqa("batch", clip, tmp_path, "-Q", "What?", "-Q", "Who?", *options)
    assert code == 6
    assert [json.loads(line)["status"] for line in out.splitlines()].count("failed") == 2
    *shown, last = err.splitlines()
    assert is_whole("\n".join(shown), width)
    assert last.startswith("omniqa: 2 of 4 questions failed")
    assert "cause" in err
    assert "questions" in err


def test_eval_fits(omniqa, nano, width):  # noqa: F811
    chosen = [word for method in ("none", *METHODS) for word in ("--method", method)]
    options = ("--model", nano, "--max-new-tokens", 2, "--clips", 1, "--seconds", 3, "--scenes", 1, "--size", 112)
    code, out, err = omniqa("eval", "nano", *options, *chosen, "--retention", "40%", "--limit", 3, "-q")
    assert code == 0, err
    assert is_whole(out, width)
    for name in ("none", *(f"{method} 0.4" for method in METHODS)):
        assert any(name in line for line in out.splitlines())


NAMES = st.text("abcdefgh:=,.0", min_size=1, max_size=30)
NUMBERS = st.floats(0, 1e6, allow_nan=False).map(lambda value: f"{value:.4f}")


@given(
    st.lists(st.tuples(NAMES, NUMBERS, NUMBERS, st.text(max_size=60), NUMBERS), min_size=1, max_size=4),
    st.integers(20, 200),
)
@example([("00000000000", "0.0000", "0.0000", "000000000000", "0.0000")], 20)
@example([("a", "0.0000", "0.0000", "a", "1000000.0000")], 20)
@example([("00000000000", "0.0000", "0.0000", "0000000\x1b𠀀", "0.0000")], 20)
@example([("00000000000", "0.0000", "0.0000", "動画が壊れている" * 4, "0.0000")], 40)
@example([("omnidrop:tds=false,curve=exp 0.3", "0.3000", "1.0000", "words " * 9, "2.0000")], 60)
def test_what_a_table_shows_is_whole(rows, width):
    columns = (
        tables.name("method"),
        tables.number("R achieved"),
        tables.number("prefill s", rank=2),
        tables.text("cause", rank=1),
        tables.number("peak GB", rank=3),
    )
    screen = Console(width=width, highlight=False, markup=False, emoji=False)
    with screen.capture() as caught:
        Table.of(columns, rows).show(screen, width)
    shown = caught.get()
    for row in rows:
        assert row[0] in shown
        assert row[1] in shown
    longest = max(len(column.title) for column in columns) + 2
    unbroken = (len(cell) for row in rows for cell in (*row[:3], row[4]))
    longest += max(tables._TEXT_WIDTH, *unbroken)  # words are broken, but not more narrowly
    assert all(cell_len(line.rstrip()) <= max(width, longest) for line in shown.splitlines())


def test_columns_give_way_by_rank_and_are_named():
    columns = (Column("method", "name"), Column("first", "number", 1), Column("second", "number", 2))
    screen = Console(width=20, highlight=False)
    with screen.capture() as caught:
        Table.of(columns, [("omnidrop", "1.2345", "6.7890")]).show(screen, 20)
    shown = " ".join(caught.get().split())
    assert "1.2345" in shown
    assert "6.7890" not in shown
    assert "not shown at this width: second" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(20, "less than a minute"), (65, "about 1 minute"), (130, "about 2 minutes"), (9000, "about 2 hours")],
)
def test_what_is_left_is_said_in_words(seconds, words):
    assert about(seconds) == words


def test_a_part_of_a_clip_is_named_by_its_length():
    assert span(2.0, 4.0) == "2\N{EN DASH}4 s"
    assert span(62, 64) == "1:02\N{EN DASH}1:04"
    assert span(3600, 3723) == "1:00:00\N{EN DASH}1:02:03"
