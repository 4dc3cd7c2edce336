"""What a dataset's file holds, as JSON values: JSON, JSON lines, CSV, TSV, Parquet."""

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omniqa.errors import UsageError


def load(path: Path) -> Any:
    """The file's content, read by its suffix: for .json what it holds, for all others a list of objects.

    Raises UsageError where the file is not found, of another kind, or broken.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": _json,
        ".jsonl": lambda path: json_lines(path.read_text(encoding="utf-8-sig")),
        ".csv": lambda path: _table(path, ","),
        ".tsv": lambda path: _table(path, "\t"),
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: a set of questions is a file that ends in {', '.join(readers)}, or the word nano.")
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{path} can't be read: {error}.") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def json_lines(text: str) -> list[Any]:
    """The values of a text with one JSON value a line. Raises ValueError, with the line's number, for anything else."""
    values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return values


def _table(path: Path, delimiter: str) -> list[dict[str, Any]]:
    """Rows by the names in the first line; an empty cell is a field that is not there."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        return [{name: cell for name, cell in row.items() if name and cell} for row in rows]


def _parquet(path: Path) -> list[dict[str, Any]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{path}: reading Parquet takes pyarrow, which is not installed: pip install pyarrow")
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()
