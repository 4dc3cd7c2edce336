"""A file of lines survives a kill at any moment, and belongs to one run with one set of settings."""

import json
import os
import stat
import subprocess
import sys

import pytest

from omniqa.errors import UsageError
from omniqa.lines import LineStore, claim, write_whole

ROWS = [{"n": 1, "text": "é\n\u2028"}, {"n": 2, "text": ""}, {"n": 3, "list": [1.5, None]}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_lines_come_back_in_order(path):
    with LineStore(path) as store:
        for row in ROWS:
            store.append(row)
        assert store.rows == ROWS
    with LineStore(path) as store:
        assert store.rows == ROWS
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


def test_after_a_kill_at_any_byte_all_whole_lines_are_there_and_the_next_one_is_whole(path):
    with LineStore(path) as store:
        for row in ROWS:
            store.append(row)
    data = path.read_bytes()
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        with LineStore(path) as store:
            assert store.rows == ROWS[: data[:end].count(b"\n")]
            store.append({"last": end})
        lines = path.read_text().splitlines()
        assert [json.loads(line) for line in lines] == [*ROWS[: data[:end].count(b"\n")], {"last": end}]


def test_a_line_is_in_the_file_when_append_returns(path):
    with LineStore(path) as store:
        store.append(ROWS[0])
        assert json.loads(path.read_text()) == ROWS[0]


@pytest.mark.parametrize("broken", ["no json", "[1, 2]", "3", ""])
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(path, broken):
    path.write_text(f'{{"n": 1}}\n{broken}\n{{"n": 3}}\n')
    with pytest.raises(UsageError, match="Line 2 of"):
        LineStore(path)


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_two_runs_at_once_are_refused(path):
    code = f"from omniqa.lines import LineStore; from pathlib import Path; LineStore(Path({str(path)!r}))"
    with LineStore(path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "by another run" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_can_not_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    for write in (
        lambda: LineStore(tmp_path),
        lambda: claim(tmp_path / "file", {}),
        lambda: write_whole(tmp_path / "no" / "such.txt", ""),
    ):
        with pytest.raises(UsageError):
            write()


def test_a_folder_belongs_to_its_settings(tmp_path):
    folder = tmp_path / "new" / "out"
    claim(folder, {"model": "m", "seed": 0, "sizes": [1, 2.5], "none": None})
    claim(folder, {"none": None, "sizes": [1, 2.5], "seed": 0, "model": "m"})
    with pytest.raises(UsageError, match="seed was 0, not 1"):
        claim(folder, {"model": "m", "seed": 1, "sizes": [1, 2.5], "none": None})
    with pytest.raises(UsageError, match="hint was None, not 'x'"):
        claim(folder, {"model": "m", "seed": 0, "sizes": [1, 2.5], "none": None, "hint": "x"})
    with pytest.raises(UsageError, match="sizes was"):
        claim(folder, {"model": "m", "seed": 0, "none": None})
    claim(folder, {"model": "m", "seed": 0, "sizes": [1, 2.5], "none": None})


def test_lines_without_their_settings_belong_to_nobody(tmp_path):
    with LineStore(tmp_path / "results.jsonl") as store:
        store.append(ROWS[0])
    with pytest.raises(UsageError, match=r"settings\.json"):
        claim(tmp_path, {"seed": 0})


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, "old")
    write_whole(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert os.listdir(tmp_path) == ["report.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
