"""Run files and lines of results that were damaged are refused with their line, and left as they are."""

import json
import os
import sys

import pytest

from omniqa.errors import UsageError
from omniqa.eval.run import known_answer
from omniqa.jobs import runfile
from omniqa.jobs.clips import Shard
from omniqa.jobs.jsonl_store import JSON_LINES, JsonlStore
from omniqa.jobs.merge import check
from omniqa.jobs.results import ResultFile
from omniqa.jobs.runfile import RunFile

SETTINGS = {"model": "m"}
NAME = runfile.name_of(SETTINGS)
LINE = {"id": "1", "status": "ok", "error": None, "video": "a", "model": "m", "settings": NAME}
DEEP = "[" * 5000 + "]" * 5000


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(LINE) + "\n")
    RunFile(asked={"questions": 1, "digest": "x"}, settings={NAME: SETTINGS}, finished={NAME: 1}).write(path)
    return path


def go_on(path):
    return ResultFile(path, JSON_LINES, SETTINGS, shard=Shard(), asked={"questions": 1, "digest": "x"})


def test_results_as_they_were_written_are_gone_on_with(results):
    assert check([results]).lines == 1
    with go_on(results) as there:
        assert list(there.known) == [("1", "")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "line 1: Expecting value"),
        ("{", "line 1: "),
        ("[]", "no object"),
        ("null", "no object"),
        ("{}", "'shard' is missing"),
        (DEEP, "nested deeper than 100 levels"),
        (b"\xff\xfe", "decode"),
        ({"shard": 3}, "line 2: 'shard' must be"),
        ({"shard": "5/3"}, "'shard' must be"),
        ({"asked": [1]}, "'asked' must be"),
        ({"asked": {"questions": "many", "digest": "x"}}, "'asked' must be"),
        ({"settings": {"a": 1}}, "'settings' must be"),
        ({"settings": None}, "'settings' must be"),
        ({"finished": {"a": -1}}, "'finished' must be"),
        ({"finished": {"a": True}}, "'finished' must be"),
        ({"version": 1}, "'version' must be"),
        ({"more": 1}, "line 16: there is no entry 'more'"),
    ],
)
def test_a_run_file_of_no_use_is_refused(results, content, reason):
    path = runfile.path_of(results)
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content, indent=1)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for use in (go_on, lambda path: check([path])):
        with pytest.raises(UsageError, match=reason) as raised:
            use(results)
        assert str(path) in str(raised.value)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
def test_a_pipe_in_place_of_a_run_file_is_refused_at_once(results):
    path = runfile.path_of(results)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="a pipe, not a file"):
        go_on(results)


@pytest.mark.parametrize(
    "line",
    [
        {"id": 5},
        {"id": None},
        {"status": "fine"},
        {"status": ["ok"]},
        {"settings": 1},
        {"model": None},
        {"video": None, "status": "failed"},
        {"file": 3},
        {"file": {}},
        {"file": {"bytes": -1, "mtime_s": 0}},
        {"file": {"bytes": True, "mtime_s": 0}},
        {"file": {"bytes": 1, "mtime_s": "1"}},
    ],
)
def test_a_line_that_is_no_result_is_named(results, line):
    with results.open("a") as file:
        file.write(json.dumps(LINE | {"id": "2"} | line) + "\n")
    before = results.read_bytes()
    for use in (go_on, lambda path: check([path])):
        with pytest.raises(UsageError, match=r"Line 2 of .* its "):
            use(results)
    assert results.read_bytes() == before


@pytest.mark.parametrize("text", [f'{{"id": {DEEP}}}', '{"id": NaN}', '{"id": -Infinity}', "nul"])
def test_a_line_that_is_no_json_is_named(results, text):
    with results.open("a") as file:
        file.write(f"{text}\n")
    for use in (go_on, lambda path: check([path])):
        with pytest.raises(UsageError, match=r"Line 2 of .* (is no JSON object|is no result)"):
            use(results)


def test_a_question_that_has_two_lines_is_named(results):
    with results.open("a") as file:
        file.write(json.dumps(LINE | {"settings": "other"}) + "\n" + json.dumps(LINE) + "\n")
    with pytest.raises(UsageError, match=r"Line 3 of .* has the id '1' of an earlier one"):
        go_on(results)


@pytest.mark.parametrize(
    "line", [{}, {"question": "1"}, {"column": None}, {"error": 5}, {"said": 4}, {"achieved": "x"}, {"file": [1]}]
)
def test_a_line_that_is_no_answer_of_an_evaluation_is_named(tmp_path, line):
    head = {"id": "1", "settings": "s", "model": "m", "question": 1, "clip": "a", "column": "none"}
    good = head | {"status": "failed", "error": "gone"}
    answered = {"said": "B", "correct": True, "achieved": 0.3, "at_floor": False, "input_pruning_s": 0, "prefill_s": 1,
                "peak_device_bytes": None}  # fmt: skip
    whole = head | {"status": "ok"} | answered
    bad = {} if not line else (good if "error" in line else whole) | line
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, whole, bad)))
    with pytest.raises(UsageError, match=r"Line 3 of .* (no result of an evaluation|its 'file')"):
        JsonlStore(path, keep=known_answer)
