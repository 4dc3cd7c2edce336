"""The study of where to prune reads what an evaluation keeps, and compares by moments."""

import json

import pytest

from benchmarks import inside_or_before
from omniqa.eval.nano import NanoClips

CLIPS = 6
WRONG = {"omnidrop": 0, "random": 3, "dycoke": 1}  # of four questions each


@pytest.fixture
def folder(tmp_path):
    """An evaluation of three methods at one retention; dycoke does not reach it."""
    rows = []
    for question in NanoClips().questions(CLIPS):
        for method in ("none", *WRONG):
            asked = {"method": method, "retention": 1.0 if method == "none" else 0.3}
            right = question.number % 4 >= WRONG.get(method, 0)
            found = {"correct": right, "achieved": 0.55 if method == "dycoke" else asked["retention"]}
            rows.append(asked | found | {"question": question.number, "clip": question.clip, "status": "ok"})
    rows.append(rows[0] | {"status": "failed", "correct": False})
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"0": {"seconds": 8.0, "scenes": 2, "size": 168}}
    (tmp_path / "results.jsonl.run.json").write_text(json.dumps({"settings": settings}))
    return tmp_path


def test_the_best_of_those_that_reach_the_retention_is_compared(folder, capsys):
    inside_or_before.main([str(folder)])
    printed = capsys.readouterr().out
    assert "8 s, 2 scenes, one moment:" in printed
    assert "8 s, 2 scenes, several moments:" in printed
    assert printed.count("| omnidrop | inside | 100.0 |") == 2
    assert printed.count("(0.55) |") == 2
    assert printed.count(", random |") == 2  # dycoke has more right, and holds more tokens


def test_all_answered_questions_are_in_one_of_both_panels(folder):
    panels = inside_or_before.read(folder)
    counted = [len(panel.right["omnidrop", 0.3]) for panel in panels]
    assert sum(counted) == len(NanoClips().questions(CLIPS))
    assert min(counted) > 0


def test_a_plot_is_drawn(folder, tmp_path):
    inside_or_before.main([str(folder), "--plot", str(tmp_path / "plot.svg")])
    assert (tmp_path / "plot.svg").stat().st_size > 10_000
