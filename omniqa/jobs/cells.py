"""Tables of comma-separated cells, read strictly and whatever the length of a cell."""

import csv
import io
import sys
from collections.abc import Iterator

# What csv takes on every system; its default is 128 KiB. Whoever calls has the text in memory already, so that a long
# cell costs no more than that.
_LONGEST_CELL = min(sys.maxsize, 2**31 - 1)
csv.field_size_limit(_LONGEST_CELL)


def read_cells(text: str, delimiter: str = ",", first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Rows of cells, each with the line that it begins in; first: the number of the text's first line.

    Raises:
        ValueError: a cell's quotation marks do not match; the message begins with the line of its row.
    """
    rows, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), first
    try:
        for cells in rows:
            yield line, cells
            line = first + rows.line_num
    except csv.Error as error:
        raise ValueError(f"line {line}: its quotation marks do not match ({error})") from error
