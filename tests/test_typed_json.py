"""Typed structures are read from JSON within bounds; a wrong entry is named by its path."""

from dataclasses import dataclass

import pytest

from omniqa.typed_json import (
    either,
    entry,
    flag,
    list_of,
    mapping_of,
    number,
    of_type,
    only,
    optional,
    read_bytes,
    record,
    row_of,
    text,
    whole,
)


@dataclass(frozen=True)
class Inner:
    size: int = entry(whole(1, 9))
    name: str = entry(text, "none", ("title",))


@dataclass(frozen=True)
class Outer:
    inner: Inner = entry(record(Inner))
    rest: tuple[Inner, ...] = entry(list_of(record(Inner), 0, 3), ())


def test_objects_become_dataclasses_and_what_they_lack_is_left_alone():
    read = record(Outer)({"inner": {"size": 3, "title": "a", "more": 1}, "rest": [{"size": 1}], "other": None})
    assert read == Outer(Inner(3, "a"), (Inner(1),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "it is null, not an object"),
        ({}, "inner is missing"),
        ({"inner": []}, r"inner is \[\], not an object"),
        ({"inner": {"size": 10}}, "inner.size is 10, not a whole number from 1 to 9"),
        ({"inner": {"size": 1}, "rest": [{"size": 1}, {"size": True}]}, r"rest\[1\].size is true"),
        ({"inner": {"size": 1}, "rest": [1] * 4}, "rest is a list of 4 values, not a list of 0 to 3 values"),
        ({"inner": {"size": 1, "name": "x" * 1000}, "rest": "y" * 1000}, 'rest is "y{39}…, not'),
    ],
)
def test_a_wrong_entry_is_named_by_its_path(value, message):
    with pytest.raises(ValueError, match=message):
        record(Outer)(value)


@pytest.mark.parametrize(
    ("reader", "taken", "refused"),
    [
        (number(0, 1), [0, 0.5, 1], [-1, 1.1, True, "1", float("nan"), float("inf"), 10**400]),
        (whole(-1, 2**70), [-1, 2**70], [1.0, False, None, 2**71]),
        (only("a", 3, False), ["a", 3, 3.0, False], [0, 4, "b", True, None, [], 10**400]),
        (flag, [True, False], [0, 1, "true", None]),
        (optional(text), [None, ""], [0, []]),
        (row_of(text, flag), [["a", True]], [["a"], ["a", 1], ["a", True, 1], {}]),
        (mapping_of(flag), [{}, {"a": True}], [[], {"a": 1}]),
        (either(flag, text), [True, "a"], [1, None]),
    ],
)
def test_readers_take_what_they_name_and_nothing_else(reader, taken, refused):
    for value in taken:
        reader(value)
    for value in refused:
        with pytest.raises(ValueError, match="is"):
            reader(value)


def test_a_number_is_a_float_however_it_is_written():
    assert isinstance(number(0, 9)(1), float)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1,", b"[NaN]", b"[" * 10**5, b"9" * 10**4])
def test_what_is_no_json_is_told(content):
    with pytest.raises(ValueError, match="not valid JSON"):
        read_bytes(content, list_of(flag, 0, 9))


@dataclass(frozen=True)
class Line:
    name: str
    counts: tuple[int, ...]
    share: float | None


@dataclass(frozen=True)
class Page:
    lines: tuple[Line, ...]


PAGE = of_type(Page, {str: text, int: whole(0, 9), float: number(0, 1)})


def test_a_dataclass_of_plain_types_is_read_by_its_types():
    value = {"lines": [{"name": "a", "counts": [1, 2], "share": 1}, {"name": "b", "counts": [], "share": None}]}
    assert PAGE(value) == Page((Line("a", (1, 2), 1.0), Line("b", (), None)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"name": 3, "counts": [], "share": None}, r"lines\[0\]\.name is 3, not a text"),
        ({"name": "a", "counts": [1, 10], "share": None}, r"lines\[0\]\.counts\[1\] is 10"),
        ({"name": "a", "counts": None, "share": None}, r"lines\[0\]\.counts is null"),
        ({"name": "a", "counts": []}, r"lines\[0\] is an object, not an object of name, counts, share"),
        ({"name": "a", "counts": [], "share": 0, "more": 0}, r"lines\[0\] is an object, not an object of name"),
        ([], r"lines\[0\] is \[\], not an object"),
    ],
)
def test_such_an_object_has_just_the_fields_of_its_dataclass(line, said):
    with pytest.raises(ValueError, match=said):
        PAGE({"lines": [line]})
