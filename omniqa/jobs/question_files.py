"""What a file of questions holds, as JSON values: JSON, JSON lines, CSV, TSV, Parquet."""

import codecs
import csv
import importlib.util
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from omniqa import strict_json
from omniqa.errors import UsageError
from omniqa.files import open_regular
from omniqa.jobs.cells import read_cells

LINE_BYTES = 2**24  # of a line of JSON lines, CSV or TSV
FILE_BYTES = 2**30  # of a file, all of which is held in memory
_PIECE = 2**20
_ENDS_LINE = re.compile(rb"[\r\n]")
_LINE_END = re.compile(r"\r\n|\n|\r")  # JSON and tables may hold other line separators of Unicode
_DELIMITERS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')
_DECLARED = re.compile(r'"?sep=(.)"?')  # a first line with which Excel names the delimiter
_ENCODINGS = {  # by their byte order marks; the longer ones come first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

Rows = Iterable[tuple[int, list[str]]]


class QuestionRecord(dict[str, Any]):
    """An object of a file.

    Args:
        line: where in the file it begins, counted from 1.
    """

    def __init__(self, fields: dict[str, Any], line: int) -> None:
        super().__init__(fields)
        self.line = line


def place(fields: object, number: int) -> str:
    """What messages call a record: "line 7, question 3", or "question 3" where the line is not known."""
    return f"line {fields.line}, question {number}" if isinstance(fields, QuestionRecord) else f"question {number}"


def load(path: Path) -> Any:
    """The file's content, read by its suffix: for .json what it holds, for all others a list of objects.

    Raises:
        UsageError: the file is not found, no regular file, of another kind, or broken; the message names the line.
    """
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[bytes], Any]] = {
        ".json": lambda data: _json(decode(data)),
        ".jsonl": lambda data: json_lines(decode(data)),
        ".csv": lambda data: _records(_csv(decode(data))),
        ".tsv": lambda data: _records(_tsv(decode(data))),
        ".parquet": _parquet,
    }
    reader = readers.get(suffix)
    if reader is None:
        raise UsageError(f"{path}: a set of questions is a file that ends in {', '.join(readers)}, or the word nano.")
    if reader is _parquet and importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{path}: reading Parquet takes pyarrow, which is not installed: pip install pyarrow")
    try:
        with open_regular(path) as file:
            pieces = iter(lambda: file.read(_PIECE), b"")
            data = join(pieces, lines=suffix not in (".json", ".parquet"))
        return reader(data)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UsageError(f"{path} can't be read: {error}.") from error


def join(pieces: Iterable[bytes], lines: bool = True) -> bytes:
    """All pieces of a file together.

    Args:
        pieces: of at most LINE_BYTES each.
        lines: whether the file has lines, and not one value as a whole.

    Raises:
        ValueError: a line has more than LINE_BYTES, or the file more than FILE_BYTES. What follows is not read.
    """
    joined: list[bytes] = []
    size = line = 0  # bytes of all, and of the line that has no end yet
    for piece in pieces:
        end = _ENDS_LINE.search(piece)
        line += end.start() if end else len(piece)
        if lines and line > LINE_BYTES:
            began = size - line + (end.start() if end else len(piece))
            number = _lines_in(b"".join([*joined, piece]), began) + 1
            raise ValueError(f"line {number}: it has more than {LINE_BYTES:,} bytes")
        line = line if end is None else len(piece) - 1 - max(piece.rfind(b"\n"), piece.rfind(b"\r"))
        size += len(piece)
        if size > FILE_BYTES:
            raise ValueError(f"it has more than {FILE_BYTES:,} bytes")
        joined.append(piece)
    return b"".join(joined)


def _lines_in(data: bytes, end: int) -> int:
    """How many lines of a file end in its first `end` bytes, the character at the end of which counts whole."""
    encoding = _encoding(data)
    unit = {"utf-16": 2, "utf-32": 4}.get(encoding, 1)
    return len(_LINE_END.findall(data[: end + -end % unit].decode(encoding, "replace")))


def _encoding(data: bytes) -> str:
    return next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), "utf-8")


def decode(data: bytes) -> str:
    """Text in UTF-8, or in what its byte order mark says. Raises ValueError, which names the line, for other bytes."""
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = _lines_in(data, error.start) + 1
        raise ValueError(f"line {line}: it is not {encoding.removesuffix('-sig').upper()} ({error.reason})") from error
    if "\0" in text:
        line = len(_LINE_END.findall(text, 0, text.index("\0"))) + 1
        raise ValueError(f"line {line}: it holds a NUL character, so it is no text in UTF-8")
    return text


def json_lines(text: str) -> list[QuestionRecord]:
    """The objects of a text with one JSON object a line. Raises ValueError, with the line's number, for all else."""
    entries = []
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip():
            try:
                value = strict_json.parse(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {str(error).removeprefix('line 1: ')}") from error
            if not isinstance(value, dict):
                raise ValueError(f"line {number}: it is no object with named fields")
            entries.append(QuestionRecord(value, number))
    return entries


def _json(text: str) -> Any:
    elements = strict_json.parse_list(text)
    if elements is None:
        return strict_json.parse(text)
    return [QuestionRecord(value, line) if isinstance(value, dict) else value for line, value in elements]


def _csv(text: str) -> Rows:
    """Cells between commas, semicolons or tabs, whichever the first line has most of."""
    head, *rest = _LINE_END.split(text, maxsplit=1)
    declared = _DECLARED.fullmatch(head)
    if declared:
        return read_cells("".join(rest), declared[1], first=2)
    names = _QUOTED.sub("", _first_line(text))
    return read_cells(text, max(_DELIMITERS, key=names.count))


def _tsv(text: str) -> Rows:
    """Cells between tabs, in which quotation marks are characters.

    Where the names themselves are in quotation marks, or each line with a quotation mark is as CSV would write it, the
    table was written with CSV's quoting, and is read so.
    """
    if all(len(name) > 1 and name[0] == name[-1] == '"' for name in _first_line(text).split("\t")):
        return read_cells(text, "\t")
    quoted = [line for line in _LINE_END.split(text) if '"' in line]
    if quoted and all(map(_is_quoted_as_csv, quoted)):
        return read_cells(text, "\t")
    return ((number, line.split("\t")) for number, line in enumerate(_LINE_END.split(text), start=1))


def _is_quoted_as_csv(line: str) -> bool:
    """Whether a line with quotation marks in it is what CSV's writer makes of what its reader finds there."""
    try:
        ((_, cells),) = read_cells(line, "\t")
    except ValueError:
        return False
    written = io.StringIO()
    csv.writer(written, delimiter="\t", lineterminator="").writerow(cells)
    return written.getvalue() == line


def _first_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line for line in _LINE_END.split(text.lstrip("\r\n"), maxsplit=1)), "")


def _records(rows: Rows) -> list[QuestionRecord]:
    """Rows by the names in the first one; an empty cell is a field that is not there, an empty row none at all."""
    names: list[str] = []
    entries = []
    for line, cells in rows:
        if not any(cells):
            continue
        if not names:
            names = _names(line, cells)
            continue
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise ValueError(
                f"line {line}: it has {len(cells)} cells, and the first line names {len(names)}. Quotation marks can "
                "hold a cell together in .csv, but not in .tsv"
            )
        entries.append(
            QuestionRecord({name: cell for name, cell in zip(names, cells, strict=False) if name and cell}, line)
        )
    return entries


def _names(line: int, cells: list[str]) -> list[str]:
    """The columns' names; there may be some without."""
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"line {line}: it names the column {twice!r} twice")
    return names


def _parquet(data: bytes) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(str(error).rstrip(".")) from error
    return rows
