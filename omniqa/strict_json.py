"""JSON from files, read strictly: what it holds can be written again, and is as deep as people write it."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100  # levels; Python's own parser and writer give up at some hundreds, wherever they happen to be called
_SPACE = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUL = "\0"


def parse(text: str, any_text: bool = False, unique: bool = False) -> Any:
    """The value that a text stands for.

    Args:
        any_text: whether texts may hold what is no character, as names of files that are not UTF-8 do.
        unique: whether an object that names an entry twice is refused; else the last one counts.

    Raises:
        ValueError: the text is no JSON, or its value has a flaw; the message begins with the line, counted from 1.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique else None)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line 1: {_reason(error)}") from error
    wrong = flaw(value, any_text)
    if wrong:
        raise ValueError(f"line {_line_of_flaw(text, value)}: it {wrong}")
    return value


def _unique(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these entries.

    Raises:
        ValueError: it names one twice.
    """
    found = dict(entries)
    if len(found) < len(entries):
        raise ValueError("an object names an entry twice")
    return found


def parse_list(text: str) -> list[tuple[int, Any]] | None:
    """The values of a JSON list, each with the line that it begins in; None for a text that begins as no list.

    Raises:
        ValueError: as `parse` does.
    """
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        return None
    found, line, counted = [], 1, 0
    try:
        for at, value in _elements(text, start + 1):
            line, counted = line + text.count("\n", counted, at), at
            wrong = flaw(value)
            if wrong:
                raise ValueError(f"line {line}: it {wrong}")
            found.append((line, value))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ValueError(f"line {line}: {_reason(error)}") from error
    return found


def flaw(value: Any, any_text: bool = False) -> str:
    """What is wrong with a value that a parser gave, as "holds …"; nothing where all is well.

    Half a surrogate pair is no character, NUL ends names, NaN and Infinity are no JSON, and a value nested deeper than
    MAX_DEPTH can't be written again everywhere.
    """
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        here, depth = left.pop()
        if isinstance(here, dict):
            left += [(inner, depth + 1) for pair in here.items() for inner in pair]
        elif isinstance(here, list):
            left += [(inner, depth + 1) for inner in here]
        elif isinstance(here, str):
            if not any_text and (wrong := text_flaw(here)):
                return wrong
        elif isinstance(here, float) and not math.isfinite(here):
            return f"holds {here}, which is no number of JSON"
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH} levels"
    return ""


def text_flaw(text: str) -> str:
    """What makes a text unfit to be written as UTF-8 or used as a name, as "holds …"; nothing where all is well."""
    half = _SURROGATE.search(text)
    if half:
        return f"holds \\u{ord(half[0]):04x}, half of a surrogate pair, which is no character"
    return "holds a NUL character" if _NUL in text else ""


def line_of(text: str, name: str) -> int:
    """The line in which an object's entry is, as far as its name tells."""
    return 1 + text.count("\n", 0, max(0, text.find(json.dumps(name, ensure_ascii=False))))


def _elements(text: str, at: int) -> Iterator[tuple[int, Any]]:
    """The values of a list whose bracket opens before `at`, each with where it begins."""
    decoder, at = json.JSONDecoder(), _skip(text, at)
    if text[at : at + 1] != "]":
        while True:
            value, end = decoder.raw_decode(text, at)
            yield at, value
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    end = _skip(text, at + 1)
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _line_of_flaw(text: str, value: Any) -> int:
    """The line of the first entry of an object that has the flaw; 1 for all else."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if flaw({name: inner}):
            return line_of(text, name)
    return 1


def _reason(error: Exception) -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels" if isinstance(error, RecursionError) else str(error)
