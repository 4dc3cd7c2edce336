"""A line answers for the file that was there: one that has changed since is asked about again, and nothing else is."""

import json
import os
import shutil

import pytest

from omniqa.file_state import FileState, file_state, is_stale
from omniqa.jobs.jsonl_store import JSON_LINES, read_rows
from omniqa.jobs.table import COLUMNS, CsvCodec
from omniqa.pipeline.engine import OmniQA
from tests.jobs.test_runner import lines

QUESTION = ["What is seen?"]


@pytest.fixture
def folder(media, tmp_path):
    """Two clips that a test may write to."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("cam.mp4", "still.mp4"):
        shutil.copy(media / "a.mp4", folder / name)
    return folder


@pytest.fixture(params=["jsonl", "csv"])
def layout(request):
    return JSON_LINES if request.param == "jsonl" else CsvCodec.with_fields([])


@pytest.fixture
def answer(start, qa, folder, layout):
    """Run the batch over the folder: the videos that were asked about, and how many files had changed."""

    def call(names=None, **options):
        batch = start(names or [str(folder)], QUESTION, layout=layout, **options)
        return [os.path.basename(row["video"]) for row in batch.go_on(qa)], batch.results.changed

    return call


def touched(path, seconds=10):
    """The same content, written at another time."""
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_only_what_has_changed_is_asked_again_and_its_old_line_is_gone(answer, folder, media, layout, tmp_path):
    assert answer() == (["cam.mp4", "still.mp4"], 0)
    assert answer() == ([], 0)
    before = dict(zip(("cam", "still"), read_rows(tmp_path / "out.jsonl", layout), strict=True))
    shutil.copy(media / "b.mkv", folder / "cam.mp4")
    assert answer() == (["cam.mp4"], 1)
    still, cam = read_rows(tmp_path / "out.jsonl", layout)
    assert still == before["still"]
    assert cam["id"] == before["cam"]["id"]
    assert not is_stale(cam, file_state(folder / "cam.mp4"))
    assert is_stale(before["cam"], file_state(folder / "cam.mp4"))
    assert answer() == ([], 0)


def test_of_the_same_size_the_time_tells_and_at_the_same_time_the_size(answer, folder):
    answer()
    touched(folder / "cam.mp4")
    assert answer() == (["cam.mp4"], 1)
    kept = os.stat(folder / "still.mp4")
    with (folder / "still.mp4").open("ab") as file:
        file.write(b"\0")
    os.utime(folder / "still.mp4", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert answer() == (["still.mp4"], 1)


def test_a_file_that_changes_while_it_is_decoded_is_asked_again_next_time(answer, folder, monkeypatch):
    prepare = OmniQA.prepare

    def overwritten(self, path, *given, **rest):
        ready = prepare(self, path, *given, **rest)
        if path.endswith("cam.mp4"):
            touched(path)
        return ready

    with monkeypatch.context() as patch:
        patch.setattr(OmniQA, "prepare", overwritten)
        answer()
    assert answer() == (["cam.mp4"], 1)
    assert answer() == ([], 0)


def test_a_file_that_was_half_there_or_not_at_all_is_asked_again_once_it_is_whole(answer, folder, media):
    names = [str(folder / name) for name in ("cam.mp4", "late.mp4", "still.mp4")]
    (folder / "cam.mp4").write_bytes((media / "a.mp4").read_bytes()[:700])
    assert answer(names) == (["cam.mp4", "late.mp4", "still.mp4"], 0)
    assert answer(names) == ([], 0), "a failure is a result, too"
    for name in ("cam.mp4", "late.mp4"):
        shutil.copy(media / "a.mp4", folder / name)
    assert answer(names) == (["cam.mp4", "late.mp4"], 2)


def test_the_answer_about_a_file_that_is_gone_stays(answer, folder, tmp_path):
    names = [str(folder / "cam.mp4")]
    answer(names)
    before = (tmp_path / "out.jsonl").read_bytes()
    (folder / "cam.mp4").unlink()
    assert answer(names) == ([], 0)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_lines_with_other_settings_and_about_other_clips_are_left_alone(answer, folder, layout, tmp_path):
    answer()
    answer(tokens=4, append=True)
    touched(folder / "cam.mp4")
    touched(folder / "still.mp4")
    assert answer([str(folder / "cam.mp4")], tokens=4) == (["cam.mp4"], 1)
    assert len(list(read_rows(tmp_path / "out.jsonl", layout))) == 4
    assert answer() == (["cam.mp4", "still.mp4"], 2)


def test_lines_of_older_versions_do_not_say_and_stay_answered(start, qa, folder, tmp_path):
    path = tmp_path / "out.jsonl"
    list(start([str(folder)], QUESTION).go_on(qa))
    older = [{name: value for name, value in row.items() if name != "file"} for row in lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in older))
    touched(folder / "cam.mp4")
    assert list(start([str(folder)], QUESTION).go_on(qa)) == []
    assert lines(path) == older


def test_a_table_of_an_older_version_goes_on_with_the_columns_that_it_has(start, qa, folder, tmp_path):
    path = tmp_path / "out.csv"
    older = CsvCodec([name for name in COLUMNS if not name.startswith("file.") and name != "media.jumps"])
    list(start([str(folder / "still.mp4")], QUESTION, path=path, layout=older).go_on(qa))
    layout = CsvCodec.with_fields([]).like(path)
    assert layout.columns == older.columns
    list(start([str(folder)], QUESTION, path=path, layout=layout).go_on(qa))
    touched(folder / "cam.mp4")
    assert list(start([str(folder)], QUESTION, path=path, layout=layout).go_on(qa)) == []
    assert [row["video"] for row in read_rows(path, older)] == [str(folder / "still.mp4"), str(folder / "cam.mp4")]


def test_what_is_no_regular_file_has_no_state(tmp_path):
    (tmp_path / "file").write_bytes(b"four")
    os.utime(tmp_path / "file", ns=(0, 1_764_000_000_123_456_789))
    assert file_state(tmp_path / "file") == FileState(4, 1_764_000_000.123456789)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "gone", "https://example.org/a.mp4", "a\0b"):
        assert file_state(path) is None
