"""Files of questions from anywhere are read as they are meant, or refused with their line."""

import csv
import io
import json
import os
import sys

import pytest

from omniqa.errors import UsageError
from omniqa.jobs.clips import ClipPath
from omniqa.jobs.question_files import load
from omniqa.jobs.questions import for_all, from_file

ROWS = [{"video": "a.mp4", "question": "What, then?"}, {"video": "b.mp4", "question": "Wer „hört“ das?"}]


@pytest.fixture
def write(tmp_path):
    def call(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return call


def table(delimiter, end="\n", quote=""):
    lines = [list(ROWS[0]), *([row["video"], f"{quote}{row['question']}{quote}"] for row in ROWS)]
    return end.join(delimiter.join(cells) for cells in lines) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "delimiter", "quote"),
    [("q.csv", ",", '"'), ("q.csv", ";", ""), ("q.csv", ";", '"'), ("q.csv", "\t", ""), ("q.tsv", "\t", "")],
)
def test_tables_as_programs_write_them(write, encoding, end, name, delimiter, quote):
    assert load(write(name, table(delimiter, end, quote).encode(encoding))) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_json_lines_as_programs_write_them(write, encoding, end):
    text = end.join([json.dumps(ROWS[0]), "", json.dumps(ROWS[1], ensure_ascii=False), ""])
    assert load(write("q.jsonl", text.encode(encoding))) == ROWS


def test_quotation_marks_in_tab_separated_values_are_characters(write):
    asked = ['"Hello" is said by whom?', '"Stop is on the sign, why?', "What is heard?", 'Who says "no"?', '"Go"', '""']
    got = load(write("q.tsv", "video\tquestion\n" + "".join(f"a.mp4\t{text}\n" for text in asked)))
    assert [row["question"] for row in got] == asked
    assert [row.line for row in got] == [2, 3, 4, 5, 6, 7]


def test_tab_separated_values_whose_names_are_quoted_are_csv_between_tabs(write):
    assert load(write("q.tsv", '"video"\t"question"\n"a.mp4"\t"Who says ""no""?"\n')) == [
        {"video": "a.mp4", "question": 'Who says "no"?'}
    ]


def test_a_tsv_in_which_only_cells_with_quotation_marks_are_quoted_is_read_as_csv_wrote_it(write):
    rows = [["a.mp4", 'Who says "no"?', """['A. it', "B. it's"]"""], ["b.mp4", "What?", "['A. x', 'B. y']"]]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([["video", "question", "candidates"], *rows])
    assert [list(row.values()) for row in load(write("q.tsv", text.getvalue()))] == rows


def test_csv_cells_hold_line_ends_quotation_marks_and_other_delimiters(write):
    text = 'video,question,id\na.mp4,"Who, \n""really""; then?",1\n\nb.mp4,"a\tb",2\n,,\n'
    got = load(write("q.csv", text))
    assert [row["question"] for row in got] == ['Who, \n"really"; then?', "a\tb"]
    assert [row.line for row in got] == [2, 5]


def test_a_delimiter_that_the_file_names_itself(write):
    assert load(write("q.csv", "sep=|\nvideo|question\na.mp4|What; then, say?\n")) == [
        {"video": "a.mp4", "question": "What; then, say?"}
    ]


def test_long_cells_are_read_whole(write):
    long = "x" * 10_000_000
    for name, text in (("q.csv", f'video,question\na.mp4,"{long}"\n'), ("q.tsv", f"video\tquestion\na.mp4\t{long}\n")):
        assert load(write(name, text))[0]["question"] == long


def test_spaces_around_names_and_empty_cells_at_the_end_mean_nothing(write):
    assert load(write("q.csv", "video, question\na.mp4,What?,,\n")) == [{"video": "a.mp4", "question": "What?"}]


def test_the_lines_of_a_json_lists_objects_are_known(write):
    got = load(write("q.json", '\n[\n {"a": "\\u00e9"},\n\n {"a":\n  [1, {}]}, {"a": null}\n]\n'))
    assert got == [{"a": "é"}, {"a": [1, {}]}, {"a": None}]
    assert [row.line for row in got] == [3, 5, 6]
    assert load(write("q.json", " [ ] ")) == []


DEEP = "[" * 5000 + "]" * 5000
BROKEN = [
    ("q.csv", 'video,question\na.mp4,"What?\nb.mp4,Who?\n', "line 2: its quotation marks"),
    ("q.csv", 'video,question\na.mp4,What?\nb.mp4,"Who" then?\n', "line 3: its quotation marks"),
    ("q.csv", "video,question\na.mp4,What, then?\n", "line 2: it has 3 cells, and the first line names 2"),
    ("q.csv", "video;question;id\na.mp4,What?,3\n", "line 2: it has 1 cells"),
    ("q.csv", "video,question\na.mp4\n", "line 2: it has 1 cells"),
    ("q.tsv", 'video\tquestion\na.mp4\t"What\nis it?"\n', "line 3: it has 1 cells"),
    ("q.csv", "video,question,question\na.mp4,What?,Who?\n", "line 1: it names the column 'question' twice"),
    ("q.csv", b"video,question\na.mp4,What\xe9?\n", "line 2: it is not UTF-8"),
    ("q.csv", "video,question\na.mp4,What\0?\n", "line 2: it holds a NUL"),
    ("q.csv", "video,question\na.mp4,What?\n".encode("utf-16-le"), "line 1: it holds a NUL"),
    ("q.jsonl", '{"video": "a"}\n{"video": \n', "line 2: Expecting value"),
    ("q.jsonl", '{"video": "a"}\n{"x": "\\ud800"}\n', r"line 2: it holds \\ud800, half of a surrogate pair"),
    ("q.jsonl", '{"x": {"\\udfff": 1}}\n', r"line 1: it holds \\udfff"),
    ("q.jsonl", '\n{"x": "a\\u0000b"}\n', "line 2: it holds a NUL"),
    ("q.jsonl", '{"x": NaN}\n', "line 1: it holds nan, which is no number of JSON"),
    ("q.jsonl", '{"x": [-1e999]}\n', "line 1: it holds -inf"),
    ("q.jsonl", f'{{"a": 1}}\n{{"x": {DEEP}}}\n', "line 2: it is nested deeper than 100 levels"),
    ("q.jsonl", '{"a": 1}\n{"x": ' + "[" * 200 + "]" * 200 + "}\n", "line 2: it is nested deeper than 100"),
    ("q.jsonl", '{"a": 1}\n["b"]\n', "line 2: it is no object"),
    ("q.jsonl", '{"x": ' + "9" * 5000 + "}\n", "line 1: Exceeds the limit"),
    ("q.jsonl", b'{"x": "\xff"}\n', "line 1: it is not UTF-8"),
    ("q.json", '[{"a": 1},\n{"a": "\\ud800"}]', r"line 2: it holds \\ud800"),
    ("q.json", '[{"a": 1}\n{"a": 2}]', "line 2: Expecting ','"),
    ("q.json", '[{"a": 1}]\n]', "line 2: Extra data"),
    ("q.json", '[{"a": 1},\n', "line 2: Expecting value"),
    ("q.json", DEEP, "line 1: it is nested deeper than 100 levels"),
    ("q.json", '{"a": 1,\n "b": NaN}', "line 2: it holds nan"),
    ("q.json", "", "line 1: Expecting value"),
    ("q.parquet", b"PAR1 no such thing", "can't be read"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BROKEN)
def test_what_is_broken_is_refused_with_its_line(write, name, content, reason):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = write(name, content)
    with pytest.raises(UsageError, match=reason) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv"])
def test_pipes_and_devices_are_refused_at_once(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    for name, words in (("pipe", "a pipe"), ("device", "a device")):
        with pytest.raises(UsageError, match=f"it is {words}, not a file"):
            load(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([{"task": "a"}], "line 1, question 1, has no question"),
        ([{"question": "A?", "id": 7}, {"question": "B?", "id": "7"}], "line 2, .* has the id '7', which .*line 1, "),
        ([{"question": "A?", "id": True}], "line 1, .* has the id True"),
        ([{"question": "A?", "id": ["x"]}], r"line 1, .* has the id \['x'\]"),
        ([{"question": "A?", "id": " "}], "line 1, .* An id is a text or a number"),
    ],
)
def test_records_of_no_use_are_named_by_their_line(write, records, reason):
    path = write("q.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UsageError, match=reason):
        from_file(path, [ClipPath("a.mp4", "a.mp4")], None)


@pytest.mark.parametrize("text", ["What \udcff?", "\ud800", "a\0b"])
def test_a_question_that_is_no_text_is_refused_wherever_it_comes_from(text):
    with pytest.raises(UsageError, match="A question holds"):
        for_all([ClipPath("a.mp4", "a.mp4")], [text])
