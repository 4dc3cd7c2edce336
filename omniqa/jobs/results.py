"""Where a job's lines go: a file that the next run goes on with, or a stream."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from omniqa.errors import UsageError
from omniqa.file_state import FileState
from omniqa.interrupts import interrupts_held
from omniqa.jobs import runfile
from omniqa.jobs.clips import Shard
from omniqa.jobs.jsonl_store import JsonlStore, Row, RowCodec, line_of, write_line
from omniqa.jobs.rows import Key, Known, clip_field, known
from omniqa.jobs.runfile import RunFile, Settings
from omniqa.terminal import for_file


class Results:
    """The lines of a job.

    Attributes:
        settings: the name of this run's settings, in every line.
        known: lines with them that are there, by id and column.
        changed: how many files have changed since lines were written about them; these lines are gone.
    """

    changed = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = runfile.name_of(settings)
        self.known: dict[Key, Known] = {}

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def model(self) -> str | None:
        """The model that all lines are of; None where there is no line yet."""
        return next((line.model for line in self.known.values()), None)

    def add(self, row: Row) -> None:
        """Take in a line, for good.

        Raises:
            UsageError: there is no room for it.
        """
        line = known(row)
        self.known[line.key] = line

    def finish(self) -> None:
        """Say that all that was asked for is there."""

    def close(self) -> None:
        """Give back what was opened."""


class ResultFile(Results):
    """Lines in a file, with its run file beside it, open for one run at a time.

    Args:
        append: lines with other settings may be there.
        retry: failures with these settings are taken out first.
        read: `known`, or what checks more of a line.
        now: the file of a clip, by its name, as it is now. Lines that answer for another one are taken out, too.

    Raises:
        UsageError: the file can't be written, or holds other results.
    """

    def __init__(
        self,
        path: Path,
        layout: RowCodec,
        settings: Settings,
        *,
        shard: Shard,
        asked: dict[str, Any],
        append: bool = False,
        retry: bool = False,
        read: Callable[..., Known] = known,
        now: Callable[[str], FileState | None] = lambda video: None,
    ) -> None:
        super().__init__(settings)
        self._read = partial(read, now=now)
        self._store = JsonlStore(path, layout, self._read)
        try:
            self._check_ids(layout)
            before = self._before(shard, append)
            self._run_file = replace(before, shard=str(shard), asked=asked).claimed(path, settings, append)
            self._run_file.write(path)
            self._drop(retry)
        except BaseException:
            self.close()
            raise
        self.known = {line.key: line for line in self._store.rows if line.settings == self.settings}

    def _drop(self, retry: bool) -> None:
        """Take out lines with these settings that answer for other files than are there, and failures if asked to."""
        if not any(line.settings == self.settings and (line.stale or retry) for line in self._store.rows):
            return
        changed = set()

        def unwanted(row: Row) -> bool:
            line = self._read(row)
            if line.settings != self.settings:
                return False
            if line.stale:
                changed.add(row[clip_field(row)])
            return line.stale or (retry and line.failed)

        self._store.drop(unwanted)
        self.changed = len(changed)

    def _check_ids(self, layout: RowCodec) -> None:
        """Whether no question has two lines with the same settings. Raises UsageError, which names the second."""
        times = Counter((*line.key, line.settings) for line in self._store.rows)
        twice = next((key for key, count in times.items() if count > 1), None)
        if twice is not None:
            path = self._store.path
            number = line_of(path, layout, lambda row: (*known(row).key, row["settings"]) == twice)
            raise UsageError(
                f"Line {number} of {path} has the id {twice[0]!r} of an earlier one. Remove one of them, or write to "
                "another file."
            )

    def _before(self, shard: Shard, append: bool) -> RunFile:
        """The run file of earlier runs; one left behind by lines that are gone does not count."""
        path = self._store.path
        if not self._store.rows:
            return RunFile()
        before = runfile.read(path)
        if before is None and not append:
            where = runfile.path_of(path).name
            raise UsageError(f"{path} holds results without {where} beside it. Write to another file.")
        if before is not None and before.shard != str(shard):
            raise UsageError(f"{path} holds shard {before.shard}, not {shard}. Write to another file.")
        return before or RunFile()

    def add(self, row: Row) -> None:
        """Write a line, whole and for good.

        Raises:
            UsageError: there is no room for it.
        """
        with interrupts_held():  # what is on the disk and what is known of it never differ
            self._store.append(row)
            super().add(row)

    def finish(self) -> None:
        """Write into the run file how many lines make it whole."""
        finished = {**self._run_file.finished, self.settings: len(self.known)}
        replace(self._run_file, finished=finished).write(self._store.path)

    def close(self) -> None:
        """Let other runs have the file."""
        self._store.close()


class Stream(Results):
    """Lines on stdout, or in whatever else can't be read again; nothing is known from earlier runs."""

    def __init__(self, path: Path | None, layout: RowCodec, settings: Settings) -> None:
        """`path`: a pipe or a device; None is stdout, which stays open."""
        super().__init__(settings)
        self._name, self._layout, self._is_stdout = str(path or "stdout"), layout, path is None
        self._file = sys.stdout.fileno() if path is None else os.open(path, os.O_WRONLY)

    def add(self, row: Row) -> None:
        """Write a line.

        Raises:
            UsageError: there is no room.
            BrokenPipeError: nobody reads any more.
        """
        try:
            if not self.known:
                write_line(self._file, for_file(self._layout.header, self._file))
            write_line(self._file, for_file(self._layout.encode(row), self._file))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"{self._name} can't be written to ({error.strerror}).") from error
        super().add(row)

    def close(self) -> None:
        """Close the pipe or the device."""
        if not self._is_stdout:
            os.close(self._file)
