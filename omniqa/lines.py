"""A file of results that grows by whole lines, one JSON object each, and survives a kill at any moment."""

import json
import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any

from omniqa.errors import UsageError

if sys.platform != "win32":
    import fcntl


class LineStore:
    """An append-only file of JSON objects, open for one process at a time.

    Each line is on the disk when `append` returns. A half line that a kill left at the end is dropped on opening.

    path: the file; made if it is not there.
    rows: what the file holds, in its order; `append` adds to it.

    Raises UsageError where the file can't be written, is open elsewhere, or holds a line that is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UsageError(f"{path} can't be written to ({error.strerror}).") from error
        try:
            self._lock()
            self.rows = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "LineStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, row: dict[str, Any]) -> None:
        """Write one line, whole and for good. Raises UsageError where the disk does not take it."""
        line = memoryview(json.dumps(row).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise UsageError(f"{self.path} can't be written to ({error.strerror}).") from error
        self.rows.append(row)

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{self.path} is being written to by another run.") from error

    def _read(self) -> list[dict[str, Any]]:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        return [self._parse(line, number) for number, line in enumerate(data[:whole].splitlines(), start=1)]

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"Line {number} of {self.path} is no JSON object. Remove it, or write to another folder.")
        return row


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make `folder` the home of results with these settings, kept in its settings.json.

    settings: all that lines of one file must have in common; values that JSON gives back as they were.

    Raises UsageError where the folder holds results with other settings, and says which, or can't be written.
    """
    path = folder / "settings.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read or made ({error}).") from error
    if known is None:
        if any(folder.glob("*.jsonl")):
            raise UsageError(f"{folder} holds results without their settings.json. Write to another folder.")
        write_whole(path, json.dumps(settings, indent=1) + "\n")
        return
    differ = [
        f"{name} was {known.get(name)!r}, not {settings.get(name)!r}"
        for name in [*settings, *known.keys() - settings.keys()]
        if known.get(name) != settings.get(name)
    ]
    if differ:
        raise UsageError(f"{folder} holds results with other settings: {'; '.join(differ)}. Write to another folder.")


def write_whole(path: Path, text: str) -> None:
    """Replace a file by `text`, such that it is never half there. Raises UsageError where it can't be written."""
    try:
        with NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False, encoding="utf-8") as new:
            new.write(text)
        os.chmod(new.name, 0o644)
        os.replace(new.name, path)
    except OSError as error:
        raise UsageError(f"{path} can't be written to ({error.strerror}).") from error
