"""A file of lines survives a kill at any moment, and belongs to one run with one set of settings."""

import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from omniqa.errors import UsageError
from omniqa.jobs.jsonl_store import JSON_LINES, JsonlStore, read_rows, write_line, write_whole
from omniqa.jobs.table import CsvCodec

ROWS = [{"n": 1, "text": "é\n\u2028"}, {"n": 2, "text": ""}, {"n": 3, "list": [1.5, None]}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def visible(folder):
    """What a folder shows: not the lock."""
    return [name for name in os.listdir(folder) if not name.endswith(".lock")]


def test_lines_come_back_in_order(path):
    with JsonlStore(path) as store:
        for row in ROWS:
            store.append(row)
        assert store.rows == ROWS
    with JsonlStore(path) as store:
        assert store.rows == ROWS
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


def test_after_a_kill_at_any_byte_all_whole_lines_are_there_and_the_next_one_is_whole(path):
    with JsonlStore(path) as store:
        for row in ROWS:
            store.append(row)
    data = path.read_bytes()
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        with JsonlStore(path) as store:
            assert store.rows == ROWS[: data[:end].count(b"\n")]
            store.append({"last": end})
        lines = path.read_text().splitlines()
        assert [json.loads(line) for line in lines] == [*ROWS[: data[:end].count(b"\n")], {"last": end}]


def test_a_line_is_in_the_file_when_append_returns(path):
    with JsonlStore(path) as store:
        store.append(ROWS[0])
        assert json.loads(path.read_text()) == ROWS[0]


@pytest.mark.parametrize("broken", ["no json", "[1, 2]", "3", ""])
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(path, broken):
    path.write_text(f'{{"n": 1}}\n{broken}\n{{"n": 3}}\n')
    with pytest.raises(UsageError, match="Line 2 of"):
        JsonlStore(path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits there")
@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_leaves_whole_lines_and_the_next_run_goes_on(path, room):
    code = f"""
import resource, signal
from pathlib import Path
from omniqa.errors import UsageError
from omniqa.jobs.jsonl_store import JsonlStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with JsonlStore(Path({str(path)!r})) as store:
    store.append({{"n": 1}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (9 + {room}, -1))
    try:
        store.append({{"n": 2, "text": "x" * 100}})
    except UsageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} can't be written to (File too large).\n"
    assert path.read_text() == '{"n": 1}\n'
    with JsonlStore(path) as store:
        store.append({"n": 2})
    assert list(read_rows(path, JSON_LINES)) == [{"n": 1}, {"n": 2}]


def test_an_interrupt_in_the_middle_of_a_line_leaves_none_of_it(path, monkeypatch):
    write = os.write

    def interrupted(file, line):
        write(file, bytes(line)[:4])
        raise KeyboardInterrupt

    with JsonlStore(path) as store:
        store.append(ROWS[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.append(ROWS[1])
        store.append(ROWS[2])
    assert list(read_rows(path, JSON_LINES)) == [ROWS[0], ROWS[2]]


def test_a_pipe_takes_lines_as_well(path):
    reader, writer = os.pipe()
    write_line(writer, b"one\n")
    assert os.read(reader, 10) == b"one\n"
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        write_line(writer, b"two\n")
    os.close(writer)


def test_only_what_is_wanted_of_each_row_is_kept_in_memory(path):
    with JsonlStore(path, keep=lambda row: row["n"]) as store:
        for row in ROWS:
            store.append(row)
        assert store.rows == [1, 2, 3]
    with JsonlStore(path, keep=lambda row: row["n"]) as store:
        assert store.rows == [1, 2, 3]


def test_lines_are_taken_out_all_at_once_and_the_file_stays_this_runs(path):
    with JsonlStore(path) as store:
        for row in ROWS:
            store.append(row)
        store.drop(lambda row: row["n"] == 2)
        assert store.rows == [ROWS[0], ROWS[2]]
        with pytest.raises(UsageError, match="by another run"):
            JsonlStore(path)
        store.append({"n": 4})
    assert list(read_rows(path, JSON_LINES)) == [ROWS[0], ROWS[2], {"n": 4}]
    assert visible(path.parent) == [path.name]


def test_lines_are_all_there_where_taking_some_out_was_broken_off(path, monkeypatch):
    with JsonlStore(path) as store:
        for row in ROWS:
            store.append(row)

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.drop(lambda row: True)
        store.append({"n": 4})
    assert list(read_rows(path, JSON_LINES)) == [*ROWS, {"n": 4}]
    assert visible(path.parent) == [path.name]


@pytest.mark.parametrize("layout", [JSON_LINES, CsvCodec(("id", "answer"))])
def test_a_line_that_is_too_long_is_named_and_not_read_on(path, monkeypatch, layout):
    with JsonlStore(path, layout) as store:
        for text in ("short", "a\nb", "x" * 500):
            store.append({"id": "1", "answer": text})
    before = path.read_bytes()
    monkeypatch.setattr("omniqa.jobs.jsonl_store.LINE_BYTES", 100)
    number = before[: before.index(b"xxx")].count(b"\n") + 1
    for read in (lambda: JsonlStore(path, layout), lambda: list(read_rows(path, layout))):
        with pytest.raises(UsageError, match=rf"Line {number} of .* has more than 100 bytes, so it is no"):
            read()
    path.write_bytes(b"\0" * 500)
    with pytest.raises(UsageError, match="holds something else than results"):
        JsonlStore(path, layout)
    assert path.read_bytes() == b"\0" * 500


@pytest.mark.parametrize("content", [b"one line of text", b"\x00\x00\x00\x1cftypisom", b"text\nand {"])
def test_a_file_that_holds_something_else_is_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(UsageError):
        JsonlStore(path)
    assert path.read_bytes() == content


def test_two_runs_at_once_are_refused(path):
    code = f"from omniqa.jobs.jsonl_store import JsonlStore; from pathlib import Path; JsonlStore(Path({str(path)!r}))"
    with JsonlStore(path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "by another run" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_second_store_in_the_same_process_is_refused_by_whatever_name(path):
    other = path.with_name("other.jsonl")
    other.symlink_to(path)
    for name in (path, other):
        with JsonlStore(path), pytest.raises(UsageError, match="by another run"):
            JsonlStore(name)
    JsonlStore(other).close()


def test_a_file_that_is_refused_is_not_kept_locked(path):
    path.write_text("something else\n")
    for _ in range(2):
        with pytest.raises(UsageError, match="is no JSON object"):
            JsonlStore(path)


def test_a_killed_run_leaves_the_file_to_the_next(path):
    code = (
        "import sys; from omniqa.jobs.jsonl_store import JsonlStore; from pathlib import Path\n"
        f"store = JsonlStore(Path({str(path)!r})); store.append({{'n': 1}}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        with pytest.raises(UsageError, match="by another run"):
            JsonlStore(path)
        run.kill()
        run.wait()
    with JsonlStore(path) as store:
        assert store.rows == [{"n": 1}]


def test_a_folder_in_which_nothing_can_be_made_is_said(path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    path.touch()
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(UsageError, match=r"results.jsonl can't be written to \(Permission denied\)"):
        JsonlStore(path)


def test_what_can_not_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    for write in (
        lambda: JsonlStore(tmp_path),
        lambda: write_whole(tmp_path / "no" / "such.txt", ""),
    ):
        with pytest.raises(UsageError):
            write()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, "old")
    write_whole(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert os.listdir(tmp_path) == ["report.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
