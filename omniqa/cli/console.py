"""All that the command line shows. Answers and results go to stdout; everything else goes to stderr.

Rich is imported where something is drawn, so that what draws nothing stays fast.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omniqa.answer import Answer

STAGE_NAMES = {
    "import": "starting",
    "load": "loading the model",
    "cache": "cache",
    "decode": "decoding",
    "preprocess": "log-mel",
    "vision_encoder": "vision encoder",
    "audio_encoder": "audio encoder",
    "input_pruning": "input pruning",
    "prefill": "prefill",
    "generate": "generating",
    "overlapped": "of these beside another",
    "time_to_first_token": "to the first token",
    "total": "in all",
    "measure": "measuring",
}

_quiet = False
_tracebacks = False


def hush(quiet: bool) -> bool:
    """Show nothing on stderr but errors, from now on."""
    global _quiet
    _quiet = quiet
    if quiet or not sys.stderr.isatty():  # the hub's own bar, while it downloads a checkpoint
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet


def is_watched() -> bool:
    """Whether somebody sees what moves on stderr: it is a terminal, and not quiet."""
    return not _quiet and sys.stderr.isatty()


def show_tracebacks(debug: bool) -> bool:
    """Show a traceback with an error, from now on."""
    global _tracebacks
    _tracebacks = debug
    return debug


def error(message: str) -> None:
    """One plain line on stderr, whatever `message` holds; the traceback before it where asked for."""
    if _tracebacks:
        traceback.print_exc()
    print("omniqa:", " ".join(message.split()), file=sys.stderr)


def note(message: str) -> None:
    """One plain line on stderr, unless quiet."""
    if not _quiet:
        print("omniqa:", " ".join(message.split()), file=sys.stderr)


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """What libraries print on stdout goes to stderr meanwhile, and nowhere when quiet. Results go by the descriptor."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if _quiet else sys.stderr):
        yield


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {what}{'s' * (number != 1)}"


def print_json(value: Any) -> None:
    """One JSON object, one line, on stdout."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # a terminal without the character, or a file name that is no UTF-8: JSON can escape it
        text = json.dumps(value)
    print(text, flush=True)


class AnswerStream:
    """Writes an answer to stdout as it is generated; call it with each piece of text."""

    def __init__(self) -> None:
        self._started = False

    def __call__(self, text: str) -> None:
        """Write a piece. Space before the first word is left out."""
        text = text if self._started else text.lstrip()
        self._started = self._started or bool(text)
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(self) -> None:
        """End the answer's line; the next piece starts a new answer."""
        self._started = False
        sys.stdout.write("\n")
        sys.stdout.flush()


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for whatever stage is running; on a terminal only, and not when quiet.

    Gives a function to call with a stage's name and its done share. The bar stands only while a stage runs: where
    none does, the terminal's lines belong to the answer.
    """
    if not is_watched():
        yield lambda stage, share: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=_stderr(), transient=True)
    running: dict[str, Any] = {}

    def show(stage: str, share: float) -> None:
        if stage not in running:
            running[stage] = bar.add_task(STAGE_NAMES[stage], total=1.0)
            bar.start()
        bar.update(running[stage], completed=share)
        if share >= 1:
            bar.remove_task(running.pop(stage))
            if not running:
                bar.stop()

    try:
        yield show
    finally:
        bar.stop()


class Tally(Protocol):
    """Takes how many are done, those before this run included; how many failed; and what else is worth a word."""

    def __call__(self, done: int, failed: int, more: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def tally(total: int, what: str, done: int = 0, bar: bool = True) -> Iterator[Tally]:
    """How far a long run of `total` is, on stderr: a bar on a terminal, elsewhere a plain line every minute.

    done: how many were done before this run. bar: False for a line every minute on a terminal, too, for others write
    to it.
    """
    if not bar or not is_watched():
        yield _Minutes(total, what, done)
        return
    from rich import progress as rich

    counts = (rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn())
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *counts)
    with rich.Progress(*columns, console=_stderr(), transient=True) as shown:
        task = shown.add_task(what, total=total, completed=done)

        def show(done: int, failed: int, more: str = "") -> None:
            words = [what, *([f"{failed} failed"] if failed else []), *([more] if more else [])]
            shown.update(task, completed=done, description=", ".join(words))

        yield show


class _Minutes:
    """A line every minute."""

    def __init__(self, total: int, what: str, done: int) -> None:
        self._total, self._what, self._before = total, what, done
        self._begun = self._said = time.monotonic()

    def __call__(self, done: int, failed: int, more: str = "") -> None:
        """Say it, where the last line is a minute ago."""
        now = time.monotonic()
        if now - self._said < 60:
            return
        self._said = now
        left = (now - self._begun) * (self._total - done) / max(1, done - self._before) / 60
        words = [f"{done} of {self._total} {self._what}", f"{failed} failed", *([more] if more else [])]
        note(f"{', '.join(words)}, about {left:.0f} minutes left")


def answer_stats(answer: "Answer") -> None:
    """What the answer took, on stderr, unless quiet."""
    if _quiet:
        return
    stats, retention = answer.stats, answer.retention
    for warning in stats.media.warnings:
        note(f"warning: {warning}")
    console = _stderr()
    tokens = stats.tokens
    table = _table("stage", ">seconds")
    for stage, seconds in stats.timing_s.items():
        if seconds or stage == "total":
            table.add_row(STAGE_NAMES[stage], f"{seconds:.3f}")
    console.print(table)
    memory = f"peak memory {stats.peak_rss_bytes / 1e9:.2f} GB"
    if stats.peak_device_bytes is not None:
        memory += f", on {stats.device} {stats.peak_device_bytes / 1e9:.2f} GB"
    console.print(
        f"{answer.method} at retention {retention.achieved:.3f} (asked {retention.target:g}): "
        f"{tokens.video} video and {tokens.audio} audio tokens, {tokens.video_kept} and {tokens.audio_kept} "
        f"into the decoder, {tokens.text} text, {tokens.generated} generated; {memory}",
        soft_wrap=True,
    )
    spans = ", ".join(f"{e.start_s:.0f} to {e.end_s:.0f} s ({e.score:.3f})" for e in answer.evidence[:3])
    console.print(f"attended most: {spans}", soft_wrap=True)


def result(line: str) -> None:
    """One line of a command's result, on stdout."""
    print(line)


def results(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table that is a command's result, on stdout. A header that begins with > is of numbers."""
    from rich.console import Console

    _print_table(Console(highlight=False, markup=False, emoji=False), headers, rows)


def notes(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on stderr, unless quiet."""
    if not _quiet:
        from rich.console import Console

        _print_table(Console(stderr=True, highlight=False, markup=False, emoji=False), headers, rows)


def _print_table(console: "Console", headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.measure import Measurement

    table = _table(*headers)
    for row in rows:
        table.add_row(*(" ".join(cell.split()) for cell in row))  # a file's name may hold newlines
    for header, column in zip(headers, table.columns, strict=True):
        if header.startswith(">"):  # no number is cut short; on a narrow terminal the lines go on instead
            words = f"{column.header} {' '.join(map(str, column.cells))}".split()
            column.min_width = max(map(len, words))
    if not console.is_terminal:  # into a pipe or a file, the table is as wide as it needs to be
        console.width = Measurement.get(console, console.options.update(width=10_000), table).maximum
    console.print(table, crop=False)


def _table(*headers: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left")
    return table


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)
