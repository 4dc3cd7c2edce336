"""Lines, records and files of questions have limits: what exceeds one is refused with its line, and not read on."""

import itertools
import json

import pytest

from omniqa.errors import UsageError
from omniqa.jobs import question_files as files
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.question_files import LINE_BYTES, join, load
from omniqa.jobs.questions import from_file

CLIPS = [ClipPath("a.mp4", "a.mp4")]
PIECE = 2**20


def in_pieces(data, size=PIECE):
    return (data[at : at + size] for at in range(0, len(data), size))


def test_of_a_line_without_end_no_more_is_read_than_the_limit():
    taken = []
    endless = (taken.append(1) or b"x" * PIECE for _ in itertools.count())
    with pytest.raises(ValueError, match=r"line 1: it has more than 16,777,216 bytes"):
        join(endless)
    assert len(taken) == LINE_BYTES // PIECE + 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_line_that_is_too_long_is_named(end, encoding):
    text = end.join(["one", "zwei: ü", "", "y" * (LINE_BYTES + 1), "five"])
    with pytest.raises(ValueError, match="line 4: it has more"):
        join(in_pieces(text.encode(encoding)))


@pytest.mark.parametrize("size", [1, 7, PIECE])
def test_what_is_within_the_limit_comes_as_it_is(monkeypatch, size):
    monkeypatch.setattr(files, "LINE_BYTES", 10)
    data = b"0123456789\n0123456789\r\n\n0123456789"
    assert join(in_pieces(data, min(size, 10))) == data
    with pytest.raises(ValueError, match="line 2: it has more"):
        join(in_pieces(b"0123456789\n0123456789x\n", min(size, 10)))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_a_file_with_such_a_line_is_refused_with_its_name_and_line(tmp_path, suffix):
    path = tmp_path / f"questions{suffix}"
    path.write_bytes(b'{"question": "What?"}\n' + b"z" * (LINE_BYTES + 1))
    with pytest.raises(
        UsageError, match=rf"questions{suffix} can't be read: line 2: it has more than 16,777,216 bytes"
    ):
        load(path)


def test_a_file_as_a_whole_has_a_limit_too(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FILE_BYTES", 100)
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text('{"question": "What?"}\n' * 5)
        with pytest.raises(UsageError, match="it has more than 100 bytes"):
            load(tmp_path / name)


def test_json_without_lines_may_be_long_but_no_record_of_it(tmp_path, monkeypatch):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([{"question": "What?", "note": "n" * 1000}] * 20_000))
    assert path.stat().st_size > LINE_BYTES
    assert len(from_file(path, CLIPS, None)[0].questions) == 20_000
    monkeypatch.setattr("omniqa.jobs.questions._RECORD_BYTES", 1000)
    with pytest.raises(UsageError, match=r"questions\.json, line 1, question 1, takes more than 1,000 bytes as JSON"):
        from_file(path, CLIPS, None)


def test_a_question_of_a_file_is_as_long_as_any_other_at_most(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "What?"}\n' + json.dumps({"question": "w" * 20_001}))
    with pytest.raises(UsageError, match=r"line 2, question 2, has 20,001 characters; at most 20,000 are taken"):
        from_file(path, CLIPS, None)
