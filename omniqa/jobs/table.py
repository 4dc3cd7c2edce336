"""Results as CSV: a column for every number, lists as JSON."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omniqa import json_output
from omniqa.errors import UsageError
from omniqa.jobs.cells import read_cells
from omniqa.jobs.jsonl_store import Row

COLUMNS = (
    "id", "status", "error", "video", "question", "answer", "model", "method", "retention.target", "retention.achieved",
    "retention.audio", "retention.video", "retention.per_layer", "tokens.text", "tokens.audio", "tokens.video",
    "tokens.audio_kept", "tokens.video_kept", "tokens.generated", "timing_s.import", "timing_s.load", "timing_s.cache",
    "timing_s.decode", "timing_s.preprocess", "timing_s.vision_encoder", "timing_s.audio_encoder",
    "timing_s.input_pruning", "timing_s.prefill", "timing_s.generate", "timing_s.overlapped",
    "timing_s.time_to_first_token", "timing_s.total",
    "memory.device", "memory.peak_rss_bytes", "memory.peak_device_bytes", "media.duration_s", "media.frames",
    "media.fps", "media.width", "media.height", "media.audio_s", "media.warnings", "media.grids", "media.grids_reused",
    "media.tokens_reused", "media.jumps", "media.hdr", "media.pixel_aspect", "media.deinterlaced", "media.padded",
    "media.picture_width", "media.picture_height", "file.bytes", "file.mtime_s", "evidence", "evidence_spans",
    "evidence_gain.audio", "evidence_gain.video", "cuts", "report", "settings",
)  # fmt: skip
_LATER = {  # columns that tables of 0.1.0 may lack
    "timing_s.import", "media.jumps", "media.hdr", "media.pixel_aspect", "media.deinterlaced", "media.padded",
    "media.picture_width", "media.picture_height", "file.bytes", "file.mtime_s", "evidence_spans",
    "evidence_gain.audio", "evidence_gain.video", "cuts", "report",
}  # fmt: skip
_FIELDS = "fields"
_BYTES = ("utf-8", "surrogateescape")  # file names need not be UTF-8


class CsvCodec:
    """A layout for `omniqa.jobs.jsonl_store`.

    Its columns have names like retention.achieved, and those of the questions' fields.

    A cell may hold newlines; it is quoted then, so that a line ends at a newline after an even number of quotes.
    """

    kind = "row of this table"

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.header = self.opening = self._line(self.columns)

    @classmethod
    def with_fields(cls, names: Iterable[str]) -> "CsvCodec":
        """Room for the fields that come with questions."""
        return cls((*COLUMNS, *(f"{_FIELDS}.{name}" for name in names)))

    @classmethod
    def of(cls, path: Path) -> "CsvCodec":
        """The layout of a file that is there.

        Raises:
            UsageError: its first line names no columns.
        """
        with path.open(newline="", encoding=_BYTES[0], errors=_BYTES[1]) as file:
            try:
                return cls(next(csv.reader(file, strict=True), ()))
            except csv.Error as error:
                raise UsageError(f"Line 1 of {path} names no columns ({error}).") from error

    def like(self, path: Path) -> "CsvCodec":
        """This layout without columns that the table of an older version, which goes on, does not have."""
        if not path.is_file() or not path.stat().st_size:
            return self
        there = set(CsvCodec.of(path).columns)
        return CsvCodec([name for name in self.columns if name in there or name not in _LATER])

    def encode(self, row: Row) -> bytes:
        """The row's line; what a row has no value for stays empty."""
        cells = dict(_flat(row))
        return self._line([cells.get(name, "") for name in self.columns])

    def decode(self, line: bytes) -> Row | None:
        """A whole line's cells by their columns, all as text; None where their number is another."""
        try:
            rows = [cells for _, cells in read_cells(line.decode(*_BYTES))]
        except ValueError:
            return None
        if [len(row) for row in rows] != [len(self.columns)]:
            return None
        return dict(zip(self.columns, rows[0], strict=True))

    def is_whole(self, piece: bytes, quotes: int = 0) -> bool:
        """Whether this newline ends the line, and does not stand in a cell."""
        return piece.endswith(b"\n") and (quotes + piece.count(b'"')) % 2 == 0

    def _line(self, cells: Sequence[Any]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(cells)  # its own line end is \r\n, so that both are quoted inside a cell
        return text.getvalue().removesuffix("\r\n").encode(*_BYTES) + b"\n"


def _flat(row: Row) -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", _cell(inside)) for inner, inside in value.items())
        else:
            yield name, _cell(value)


def _cell(value: Any) -> Any:
    return (
        json_output.dumps(value, ascii_only=False)
        if isinstance(value, list | dict | bool)
        else json_output.finite(value)
    )
