"""Typed structures from JSON: a dataclass whose fields say how each entry is read, and within which bounds.

A reader takes a value of JSON and gives what it stands for; ValueError says what the value is instead. Entries that a
dataclass does not have are left alone: other programs put their own there.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omniqa.files import read_regular
from omniqa.strict_json import parse

Reader = Callable[[Any], Any]
T = TypeVar("T")
_MANY = 2**32  # values: more than any file that is read has
_SHOWN = 40  # characters of a wrong value that a message quotes


class WrongEntry(ValueError):
    """A value that is not what its entry takes; `path` leads to the entry from where reading began."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path} {reason}" if path else f"it {reason}")
        self.reason, self.path = reason, path

    def below(self, name: str) -> "WrongEntry":
        """The same seen from one level further out."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return WrongEntry(self.reason, f"{name}{joint}{self.path}")


def entry(reader: Reader, default: Any = MISSING, names: tuple[str, ...] = ()) -> Any:
    """A dataclass's field that `reader` reads; without a default, the entry must be there.

    Args:
        names: what else the entry may be called.
    """
    return field(default=default, metadata={"reader": reader, "names": names})


def record(kind: type[T]) -> Callable[[Any], T]:
    """Reads an object as the dataclass `kind`."""

    def read(value: Any) -> T:
        if not isinstance(value, Mapping):
            raise _wrong(value, "an object")
        found = {}
        for one in fields(kind):  # type: ignore[arg-type]
            names = (one.name, *one.metadata["names"])
            name = next((name for name in names if name in value), None)
            if name is not None:
                found[one.name] = _inside(one.metadata["reader"], value[name], name)
            elif one.default is MISSING:
                raise WrongEntry("is missing", one.name)
        return kind(**found)

    return read


def whole(low: int, high: int) -> Reader:
    """Reads a whole number from `low` to `high`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(value, f"a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Reader:
    """Reads a finite number from `low` to `high` as a float, also where it is written as a whole number."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _wrong(value, f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def only(*allowed: Any) -> Reader:
    """Reads one of the values that omniqa knows; numbers may differ from them by rounding."""

    def read(value: Any) -> Any:
        for known in allowed:
            if isinstance(value, bool) == isinstance(known, bool) and _equal(value, known):
                return known
        raise _wrong(value, f"{' or '.join(_shown(one) for one in allowed)}, which is all that omniqa runs")

    return read


def flag(value: Any) -> bool:
    """Reads true or false."""
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def text(value: Any) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise _wrong(value, "a text")
    return value


def optional(reader: Reader) -> Reader:
    """Reads null, too."""
    return lambda value: None if value is None else reader(value)


def list_of(reader: Reader, low: int, high: int) -> Reader:
    """Reads a list of `low` to `high` values as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            size = f"{low}" if low == high else f"{low} to {high}"
            raise _wrong(value, f"a list of {size} values")
        return tuple(_inside(reader, one, f"[{index}]") for index, one in enumerate(value))

    return read


def row_of(*readers: Reader) -> Reader:
    """Reads a list that has one value for each reader as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(readers):
            raise _wrong(value, f"a list of {len(readers)} values")
        return tuple(
            _inside(reader, one, f"[{index}]") for index, (reader, one) in enumerate(zip(readers, value, strict=True))
        )

    return read


def mapping_of(reader: Reader) -> Reader:
    """Reads an object of any names as a dictionary."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, "an object")
        return {name: _inside(reader, one, quotable(name)) for name, one in value.items()}

    return read


def of_type(kind: Any, basic: Mapping[Any, Reader]) -> Reader:
    """Reads by a type: one of `basic`, such a one or null, a tuple of any length, or a dataclass of these.

    An object has just the fields of its dataclass, for omniqa itself has written it.
    """
    if isinstance(kind, UnionType):
        return optional(of_type(get_args(kind)[0], basic))
    if get_origin(kind) is tuple:
        return list_of(of_type(get_args(kind)[0], basic), 0, _MANY)
    if is_dataclass(kind):
        return _exactly(kind, {name: of_type(inner, basic) for name, inner in get_type_hints(kind).items()})
    return basic[kind]


def _exactly(kind: Any, readers: Mapping[str, Reader]) -> Reader:
    """Reads an object as a dataclass, each of its fields by a reader, and no other."""

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping) or set(value) != set(readers):
            raise _wrong(value, f"an object of {', '.join(readers)}")
        return kind(**{name: _inside(readers[name], inner, name) for name, inner in value.items()})

    return read


def either(*readers: Reader) -> Reader:
    """Reads by the first reader that takes the value; the last one's message stands if none does."""

    def read(value: Any) -> Any:
        for reader in readers[:-1]:
            try:
                return reader(value)
            except WrongEntry:
                continue
        return readers[-1](value)

    return read


def read_file(path: Path, reader: Callable[[Any], T], max_bytes: int) -> T:
    """What a JSON file stands for.

    Raises:
        OSError: it can't be read, is no regular file, or is larger than `max_bytes`.
        ValueError: it is no JSON, or not what `reader` takes; the message goes on after the file's name.
    """
    return read_bytes(read_regular(path, max_bytes), reader)


def read_bytes(content: bytes, reader: Callable[[Any], T]) -> T:
    """What JSON in UTF-8 stands for. Raises ValueError as `read_file` does."""
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not valid JSON (byte {error.start} is no UTF-8)") from error
    try:
        value = parse(decoded)
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    return reader(value)


def quotable(name: str) -> str:
    """A name from a file as a message may quote it: short, on one line."""
    shown = json.dumps(name)[1:-1]
    return shown if len(shown) <= 2 * _SHOWN else f"{shown[: 2 * _SHOWN]}…"


def _inside(reader: Reader, value: Any, name: str) -> Any:
    try:
        return reader(value)
    except WrongEntry as error:
        raise error.below(name) from error


def _equal(value: Any, known: Any) -> bool:
    if isinstance(value, int | float) and isinstance(known, int | float):
        return -1e12 < value < 1e12 and math.isclose(value, known, rel_tol=1e-6)
    return bool(value == known)


def _wrong(value: Any, wanted: str) -> WrongEntry:
    return WrongEntry(f"is {_shown(value)}, not {wanted}")


def _shown(value: Any) -> str:
    """A value as JSON, short."""
    if isinstance(value, dict | list) and value:
        return "an object" if isinstance(value, dict) else f"a list of {len(value)} values"
    shown = json.dumps(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
