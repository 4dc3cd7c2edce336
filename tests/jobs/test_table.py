"""Results as CSV come back as they were written, also after a kill at any byte."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniqa.errors import UsageError
from omniqa.jobs.jsonl_store import JsonlStore, read_rows
from omniqa.jobs.table import COLUMNS, CsvCodec

TABLE = CsvCodec(("id", "answer", "fields.note"))
ROWS = [
    {"id": "1", "answer": 'a "word", and\na line\r\nmore', "fields": {"note": ["x", 1]}},
    {"id": "2", "answer": None, "fields": {}},
    {"id": "3", "answer": "\udcff\n", "fields": {"note": '"'}},
]
CELLS = [
    {"id": "1", "answer": 'a "word", and\na line\r\nmore', "fields.note": '["x", 1]'},
    {"id": "2", "answer": "", "fields.note": ""},
    {"id": "3", "answer": "\udcff\n", "fields.note": '"'},
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out.csv"
    with JsonlStore(path, TABLE) as store:
        for row in ROWS:
            store.append(row)
    return path


def test_rows_come_back(path):
    assert list(read_rows(path, TABLE)) == CELLS
    assert CsvCodec.of(path).columns == TABLE.columns
    with path.open(newline="", errors="surrogateescape") as file:
        assert list(csv.DictReader(file)) == CELLS


def test_after_a_kill_at_any_byte_all_whole_rows_are_there(path):
    data = path.read_bytes()
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        with JsonlStore(path, TABLE) as store:
            kept = list(store.rows)
            assert kept == CELLS[: len(kept)]
            store.append({"id": "last"})
        assert list(read_rows(path, TABLE)) == [*CELLS[: len(kept)], {"id": "last", "answer": "", "fields.note": ""}]
        assert path.read_bytes().startswith(TABLE.header)
    assert len(kept) == 3


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_comes_back(texts):
    table = CsvCodec([f"c{index}" for index in range(len(texts))])
    line = table.encode({f"c{index}": text for index, text in enumerate(texts)})
    assert table.is_whole(line)
    assert list(table.decode(line).values()) == texts


def test_a_table_with_other_columns_is_refused(path):
    with pytest.raises(UsageError, match="other columns"):
        JsonlStore(path, CsvCodec.with_fields(["note"]))
    assert CsvCodec.with_fields(["note"]).columns == (*COLUMNS, "fields.note")


def test_cells_of_any_length_come_back(tmp_path):
    path = tmp_path / "out.csv"
    long = {"id": "1", "answer": "a\n" * 500_000 + '"' + "x" * 4_000_000, "fields.note": "=1+1"}
    with JsonlStore(path, TABLE) as store:
        store.append({"id": "1", "answer": long["answer"], "fields": {"note": "=1+1"}})
    with JsonlStore(path, TABLE) as store:
        assert store.rows == [long]
    assert path.read_bytes().endswith(b",=1+1\n"), "cells are written unchanged, whatever a spreadsheet makes of them"


def test_a_quotation_mark_too_many_is_named_and_costs_no_line_behind_it(path):
    whole = path.read_bytes().replace(b"2,,", b'2,",')
    path.write_bytes(whole)
    for read in (lambda: JsonlStore(path, TABLE), lambda: list(read_rows(path, TABLE))):
        with pytest.raises(UsageError, match=r"Line 5 of .* is no row of this table"):
            read()
    assert path.read_bytes() == whole
