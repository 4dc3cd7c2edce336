"""Joins the shards of a job, once it is certain that nothing is missing and nothing there twice."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from omniqa.errors import UsageError
from omniqa.jobs import runfile
from omniqa.jobs.clips import Shard
from omniqa.jobs.jsonl_store import JSON_LINES, Row, RowCodec, differences, read_rows
from omniqa.jobs.rows import known
from omniqa.jobs.runfile import RunFile
from omniqa.jobs.table import CsvCodec
from omniqa.terminal import BinaryStdout


@dataclass(frozen=True)
class Checked:
    """Shards that belong together and are whole.

    Attributes:
        lines and failed: how many there are.
        run_file: that of the joined file.
    """

    paths: Sequence[Path]
    layout: RowCodec
    run_file: RunFile
    lines: int
    failed: int

    def rows(self) -> Iterator[Row]:
        """All lines, shard after shard."""
        for path in self.paths:
            yield from read_rows(path, self.layout)


def check(paths: Sequence[Path]) -> Checked:
    """Look whether these are all the shards of one job, every one finished, no question twice.

    Raises UsageError, which says what is wrong with which file, where they are not.
    """
    shards = {path: _run_file(path) for path in paths}
    ordered = sorted(shards, key=lambda path: Shard.parse(shards[path].shard).index)
    first = ordered[0]
    _check_parts(ordered, shards)
    for path in ordered[1:]:
        _check_same(first, shards[first], path, shards[path])
    layout = _layout(ordered)
    lines, failed = _check_lines(ordered, shards, layout)
    finished = {name: sum(run.finished[name] for run in shards.values()) for name in shards[first].settings}
    joined = replace(shards[first], shard=str(Shard()), finished=finished)
    return Checked(ordered, layout, joined, lines, failed)


def write(checked: Checked, file: BinaryIO | BinaryStdout, name: str) -> None:
    """Write all lines.

    Raises:
        UsageError: there is no room.
        BrokenPipeError: nobody reads any more.
    """
    try:
        file.write(checked.layout.header)
        for row in checked.rows():
            file.write(checked.layout.encode(row))
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{name} can't be written to ({error.strerror}).") from error


def join(checked: Checked, out: Path) -> None:
    """Write the joined file, whole or not at all, with a run file: the job can go on with it.

    Raises:
        UsageError: it is there already, or can't be written.
    """
    if out.exists():
        raise UsageError(f"{out} is there already. Merge into a new file.")
    new = out.with_name(f".new-{out.name}")
    try:
        with new.open("wb") as file:
            write(checked, file, str(out))
            os.fsync(file.fileno())
        checked.run_file.write(out)
        new.replace(out)
    except OSError as error:
        raise UsageError(f"{out} can't be written to ({error.strerror}).") from error
    finally:
        new.unlink(missing_ok=True)


def _run_file(path: Path) -> RunFile:
    if not path.is_file():
        raise UsageError(f"{path} is no file.")
    run = runfile.read(path)
    if run is None:
        raise UsageError(f"{path} lacks {runfile.path_of(path).name} beside it, which tells what it holds.")
    return run


def _check_parts(ordered: Sequence[Path], shards: dict[Path, RunFile]) -> None:
    """Whether there is every part from 1/N to N/N, once."""
    parts = {path: Shard.parse(shards[path].shard) for path in ordered}
    count = parts[ordered[0]].count
    for path, part in parts.items():
        if part.count != count:
            raise UsageError(f"{path} is shard {part}, but {ordered[0]} is one of {count}.")
    there = Counter(part.index for part in parts.values())
    for index, times in there.items():
        if times > 1:
            one, other, *_ = (str(path) for path, part in parts.items() if part.index == index)
            raise UsageError(f"{one} and {other} are both shard {index}/{count}.")
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in there]
    if missing:
        raise UsageError(f"Of {count} shards, these are missing: {', '.join(missing)}.")


def _check_same(first: Path, one: RunFile, path: Path, other: RunFile) -> None:
    """Whether two shards were asked the same, in the same way."""
    if other.settings != one.settings:
        unlike = [
            differences(mine, its) for mine, its in zip(one.settings.values(), other.settings.values(), strict=False)
        ]
        raise UsageError(
            f"{path} has other settings than {first}: {'; '.join(filter(None, unlike)) or 'more of them'}."
        )
    if other.asked != one.asked:
        raise UsageError(
            f"{path} is of another list of videos and questions than {first} "
            f"({other.asked.get('questions')} questions, not {one.asked.get('questions')}). "
            "Run the shards again: each asks what it lacks."
        )


def _check_lines(ordered: Sequence[Path], shards: dict[Path, RunFile], layout: RowCodec) -> tuple[int, int]:
    """How many lines there are, and failures among them; every shard is finished, no question is there twice."""
    seen: dict[tuple[str, ...], Path] = {}
    models: dict[str, str] = {}
    failed = 0
    for path in ordered:
        there: Counter[str] = Counter()
        for line in read_rows(path, layout, known):
            there[line.settings] += 1
            failed += line.failed
            key = (*line.key, line.settings)
            if key in seen:
                raise UsageError(f"The question {line.id} is in {seen[key]} and again in {path}.")
            seen[key] = path
            if models.setdefault(line.settings, line.model) != line.model:
                raise UsageError(f"{path} is of the model {line.model}, others of {models[line.settings]}.")
        for name in shards[path].settings:
            if shards[path].finished.get(name) != there[name]:
                raise UsageError(f"{path} is not finished. Run its command again: it goes on where it ended.")
    return len(seen), failed


def _layout(paths: Sequence[Path]) -> RowCodec:
    """JSON lines, or a table with the columns that its first line names; some shards may be empty.

    Raises:
        UsageError: that line can't be read.
    """
    written = next((path for path in paths if path.stat().st_size), None)
    if written is None:
        return JSON_LINES
    with written.open("rb") as file:
        return JSON_LINES if file.read(1) == b"{" else CsvCodec.of(written)
