"""Help, completion, and values as people write them."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from omniqa.cli import values
from omniqa.cli.app import app
from omniqa.cli.command import EXAMPLES
from omniqa.errors import UsageError
from omniqa.pruning import registry
from tests.conftest import ROOT


def commands(command, path=("omniqa",)):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands(get_command(app)))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_help_has_three_examples_and_words_for_types(omniqa, path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = omniqa(*path[1:], "--help")
    assert code == 0
    examples = EXAMPLES[path[-1]]
    assert len(set(examples)) == 3
    assert all(example in out for example in examples)
    assert not re.search(r"<(str|int|float|bool|class|list|Path|function)", out)


@pytest.mark.parametrize("example", [example for lines in EXAMPLES.values() for example in lines])
def test_every_example_is_parsed(example):
    words = [word for word in shlex.split(example.partition(" > ")[0]) if not re.match(r"[A-Z_]+=", word)]
    assert words.pop(0) == "omniqa"
    command = get_command(app)
    context = command.make_context("omniqa", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    os.environ["OMNIQA_CACHE"] = "."
    try:
        command.make_context(command.name, words, parent=context)
    finally:
        del os.environ["OMNIQA_CACHE"]


@pytest.mark.parametrize(
    "example", [line for name in ("ask", "plan", "methods") for line in EXAMPLES[name]] + [EXAMPLES["batch"][1]]
)
def test_examples_on_bundled_clips_run(omniqa, example, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, err = omniqa(*shlex.split(example)[1:])
    assert (code, bool(out)) == (0, True), err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90.0), ("90.5", 90.5), ("1:30", 90.0), ("1:02:03.5", 3723.5), ("0:02", 2.0), ("2m", 120.0),
        ("45s", 45.0), ("1h2m3s", 3723.0), ("1.5 min", 90.0), (".5", 0.5), ("100:00", 6000.0), ("-1", -1.0), (3.5, 3.5),
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(text, expected):
    assert values.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "1:75", "1:99:00", "nan", "inf", "1e3", "5x", "1 2", "s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(typer.BadParameter, match="no time"):
        values.seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("30%", 0.3), ("0.3", 0.3), ("100 %", 1.0), ("12.5%", 0.125), (1, 1.0)])
def test_shares_are_read_as_people_write_them(text, expected):
    assert values.share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "%", "much", "nan", "inf%", "30%%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(typer.BadParameter, match="no share"):
        values.share(text)


def test_times_shares_and_a_methods_options_reach_the_plan(omniqa):
    def plan(*arguments):
        code, out, err = omniqa("plan", "--json", *arguments)
        assert code == 0, err
        return {name: value for name, value in json.loads(out).items() if name != "memory"}  # what is free changes

    assert plan("--retention", "20%") == plan("--retention", "0.2")
    assert plan("--method", "omnidrop:curve=exp") == plan("--set", "curve=exp") != plan()
    clip = ROOT / "sample_media" / "hello.mp4"
    assert plan(clip, "--start", "0:01", "--end", "3s") == plan(clip, "--start", "1", "--end", "3")


def test_a_wrong_time_is_one_line(omniqa):
    code, out, err = omniqa("plan", "--start", "soon")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "1:02:03.5" in err


def test_methods_are_listed_with_floor_and_options(omniqa):
    code, out, _ = omniqa("methods", "--json")
    found = {method["name"]: method for method in json.loads(out)}
    assert code == 0
    assert set(found) == set(registry.methods())
    assert found["none"]["floor"] == "1.00"
    assert found["fastv"]["floor"] == "0.07"
    _, table, _ = omniqa("methods")
    assert all(name in table and method["summary"] in table for name, method in found.items())
    _, one, _ = omniqa("methods", "omnidrop")
    assert registry.get("omnidrop").paper in one
    assert all(option.name in one for option in registry.options("omnidrop"))
    code, out, err = omniqa("methods", "fastest")
    assert (code, out, "omnidrop" in err) == (UsageError.exit_code, "", True)


def complete(*words, cwd=ROOT, **environment):
    given = {
        "PYTHONPATH": str(ROOT),
        "_OMNIQA_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; from omniqa.cli.app import main\ntry: main()\nfinally: sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given, **environment},
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert not {"torch", "transformers", "numpy"} & set(done.stderr.split())
    return done.stdout.split()


def test_methods_devices_models_and_files_are_completed_without_torch(tmp_path):
    assert complete("omniqa", "ask", "--method", "omni") == ["omnidrop", "omnifocus", "omnisift", "omnizip"]
    assert "tds=" in complete("omniqa", "ask", "--set", "t")
    assert complete("omniqa", "ask", "--device", "c") == ["cpu", "cuda", "cuda:0", "cuda:1"]
    assert complete("omniqa", "ask", "--dtype", "f") == ["float32"]
    assert complete("omniqa", "ask", "sample_media/h") == ["sample_media/hello.mp4"]
    assert complete("omniqa", "batch", "sample_m") == ["sample_media/"]
    snapshot = tmp_path / "models--some--model" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    found = complete("omniqa", "ask", "--model", "", HF_HUB_CACHE=str(tmp_path))
    assert {"nano", "some/model", "Qwen/Qwen2.5-Omni-7B"} <= set(found)
