"""A method in a user's own file is used by every command that takes a method."""

import json

import pytest

from tests.pruning.test_discovery import EXAMPLE


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """What a user writes: the docs' example in the working folder."""
    (tmp_path / "mine.py").write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "./mine.py:Uniform"


def test_ask_prunes_by_it(ask_json, clip, mine):
    (answer,) = ask_json(clip, "What?", "--method", f"{mine}:at_least=2", "--retention", 0.5)
    assert answer["method"] == "uniform"
    assert answer["retention"]["achieved"] == pytest.approx(0.5, abs=0.01)


def test_plan_methods_and_bench_know_it(omniqa, clip, checkpoint, mine):
    code, out, err = omniqa("plan", "--model", checkpoint, clip, "--method", mine, "--retention", 0.25, "--json")
    assert (code, json.loads(out)["method"], round(json.loads(out)["retention"], 2)) == (0, "uniform", 0.25), err
    code, out, err = omniqa("methods", mine, "--json")
    assert (code, json.loads(out)[0]["options"][0]["name"]) == (0, "at_least"), err
    quick = ("--repeats", 1, "--warmup", 0, "--max-new-tokens", 1, "--min-pixels", 784, "-q", "--json")
    code, out, err = omniqa("bench", "--model", checkpoint, *quick, clip, "What?", "--method", mine, "--retention", 0.5)
    assert code == 0, err
    assert [row["method"] for row in json.loads(out)["rows"]] == ["none", "uniform"]


def test_batch_and_eval_know_it(omniqa, clip, checkpoint, mine, tmp_path):
    model = ("--model", checkpoint, "--max-new-tokens", 1, "--min-pixels", 784, "-q", "--method", mine)
    code, _, err = omniqa("batch", clip, "-Q", "What?", *model, "-o", tmp_path / "answers.jsonl")
    assert code == 0, err
    assert json.loads((tmp_path / "answers.jsonl").read_text())["method"] == "uniform"
    (tmp_path / "set.jsonl").write_text(json.dumps({"video": str(clip), "question": "What?", "answer": "this"}) + "\n")
    code, out, err = omniqa("eval", tmp_path / "set.jsonl", *model, "--retention", 0.5, "--json")
    assert code == 0, err
    assert json.loads(out)["columns"] == ["uniform 0.5"]


@pytest.mark.parametrize(
    "wrong", ["./mine.py:Other", "./mine.py:dataclass", "./gone.py:Uniform", "./broken.py:Uniform"]
)
@pytest.mark.parametrize("command", ["ask", "plan"])
def test_a_file_that_holds_no_method_is_one_line_and_exit_code_2(omniqa, clip, mine, wrong, command):
    with open("broken.py", "w") as file:
        file.write("1 / 0\n")
    code, out, err = omniqa(command, clip, *(["What?"] if command == "ask" else []), "--method", wrong)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
