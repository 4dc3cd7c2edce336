"""All that the command line shows. Answers and results go to stdout; everything else goes to stderr.

omniqa.terminal does the writing. Rich is imported where something is drawn, so that what draws nothing stays fast.
"""

import os
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from omniqa import json_output, terminal
from omniqa.cli.tables import Column, Table
from omniqa.cli.words import about, counted, encodable, percent, span
from omniqa.pipeline.stages import STAGE_NAMES
from omniqa.terminal import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from omniqa.pipeline.answer import Answer

_BAR = 10  # characters of a bar, so that the rest has room on 60 columns
_TIMES = 28  # two times of up to 8 characters, "left", and the spaces between all of it


class AnswerStream:
    """Writes answers to stdout as they are generated; call it with each piece of text.

    Args:
        heads: what stands in front of each answer, one after the other, such as its question; none if they run out.
    """

    def __init__(self, heads: Sequence[str] = ()) -> None:
        self._started = False
        self._heads = iter(heads)

    def __call__(self, text: str) -> None:
        """Write a piece. Space before the first word is left out."""
        text = text if self._started else text.lstrip()
        if text:
            self._start()
            terminal.write(text)

    def end(self) -> None:
        """End the answer's line; the next piece starts a new answer."""
        self._start()
        self._started = False
        terminal.write("\n")

    @property
    def started(self) -> bool:
        """Whether the answer at hand has a first word."""
        return self._started

    def _start(self) -> None:
        if not self._started:
            terminal.write(next(self._heads, ""))
        self._started = True


class Tally(Protocol):
    """Takes how many are done, those before this run included; how many failed; and what else is worth a word.

    total: how many there are now; None leaves it.
    """

    def __call__(self, done: int, failed: int, more: str = "", total: int | None = None) -> None:
        """Show it."""
        ...


def _that_fit(words: Sequence[str], width: int) -> str:
    """As many of the first words as fit whole."""
    text = ", ".join(words)
    return text if len(text) <= width or not words else _that_fit(words[:-1], width)


def _bar(*columns: Any) -> "Progress":
    from rich.progress import Progress

    console = terminal.rich_console(stderr=True)
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


class _Minutes:
    """A line every minute."""

    def __init__(self, note: Callable[[str], None], total: int, what: str, done: int) -> None:
        self._note = note
        self._total, self._what, self._before = total, what, done
        self._begun = self._said = time.monotonic()

    def __call__(self, done: int, failed: int, more: str = "", total: int | None = None) -> None:
        """Say it, where the last line is a minute ago."""
        now = time.monotonic()
        self._total = self._total if total is None else total
        if now - self._said < 60:
            return
        self._said = now
        left = (now - self._begun) * (self._total - done) / max(1, done - self._before)
        words = [f"{done} of {self._total} {self._what}", f"{failed} failed", *([more] if more else [])]
        self._note(f"{', '.join(words)}, {about(left)} left")


def _memory(answer: "Answer") -> str:
    stats = answer.stats
    device = stats.peak_device_bytes
    return f"{stats.peak_rss_bytes / 1e9:.1f} GB" + (f" and {device / 1e9:.1f} GB on {stats.device}" if device else "")


def _width(stream: Any) -> int | None:
    """Characters a line: a terminal's, else what COLUMNS says; None where anything goes, as in a pipe or a file."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return terminal.columns(stream)


def _wrapped(line: str, stream: Any) -> str:
    width = _width(stream)
    if width is None:
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


@dataclass
class Console:
    """Where a command's words go: results to stdout, all else to stderr.

    Attributes:
        quiet: nothing goes to stderr but errors.
        tracebacks: an error's traceback goes before it.
    """

    quiet: bool = False
    tracebacks: bool = False

    def hush(self, quiet: bool) -> bool:
        """Show nothing on stderr but errors, from now on."""
        self.quiet = quiet
        if quiet or not sys.stderr.isatty():  # the hub's own bar, while it downloads a checkpoint
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        return quiet

    def show_tracebacks(self, debug: bool) -> bool:
        """Show a traceback with an error, from now on."""
        self.tracebacks = debug
        return debug

    def is_watched(self) -> bool:
        """Whether somebody sees what moves on stderr: it is a terminal, and not quiet."""
        return not self.quiet and sys.stderr.isatty()

    def error(self, message: str) -> None:
        """One plain line on stderr, whatever `message` holds; the traceback before it where asked for."""
        if self.tracebacks and sys.exc_info()[0] is not None:
            terminal.say(traceback.format_exc().rstrip("\n"))
        terminal.say(f"omniqa: {one_line(message)}")

    def crash(self, kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
        """Say that omniqa itself is at fault, as sys.excepthook does: one line, the traceback where asked for."""
        if issubclass(kind, KeyboardInterrupt):
            terminal.say("omniqa: interrupted")
            return
        if self.tracebacks:
            terminal.say("".join(traceback.format_exception(kind, fault, trace)).rstrip("\n"))
        more = "" if self.tracebacks else " Run it again with --debug, and report what that shows."
        terminal.say(f"omniqa: {one_line(f'this is a fault in omniqa: {kind.__name__}: {fault}')}.{more}")

    def note(self, message: str) -> None:
        """A plain line on stderr, unless quiet; on a narrow terminal it goes on below, by words."""
        if not self.quiet:
            terminal.say(_wrapped(f"omniqa: {one_line(message)}", sys.stderr))

    @contextmanager
    def stdout_for_results(self) -> Iterator[None]:
        """What libraries print on stdout goes to stderr, and nowhere when quiet; results go by the descriptor."""
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if self.quiet else sys.stderr):
            yield

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float], None]]:
        """A bar on stderr for whatever stage is running; on a terminal only, and not when quiet.

        Gives a function to call with a stage's name and its done share. The bar stands only while a stage runs: where
        none does, the terminal's lines belong to the answer.
        """
        if not self.is_watched():
            yield lambda stage, share: None
            return
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

        bar = _bar(TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
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

        with terminal.drawing(bar.console):
            try:
                yield show
            finally:
                bar.stop()

    @contextmanager
    def tally(self, total: int, what: str, done: int = 0, bar: bool = True) -> Iterator[Tally]:
        """How far a long run of `total` is, on stderr: a bar on a terminal, elsewhere a plain line every minute.

        Args:
            total: how many there are.
            what: their noun.
            done: how many were done before this run.
            bar: False for a line every minute on a terminal, too, because others write to it.
        """
        if not bar or not self.is_watched():
            yield _Minutes(self.note, total, what, done)
            return
        from rich import progress as rich

        counts = rich.TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {what}", markup=False)
        times = (rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn())
        shown = _bar(
            counts, rich.BarColumn(bar_width=_BAR), *times, rich.TextColumn("{task.description}", markup=False)
        )
        task = shown.add_task("", total=total, completed=done)
        fixed = len(f"{total}/{total} {what}") + _BAR + _TIMES

        def show(done: int, failed: int, more: str = "", total: int | None = None) -> None:
            words = [*([f"{failed} failed"] if failed else []), *(more.split(", ") if more else [])]
            shown.update(task, completed=done, total=total, description=_that_fit(words, shown.console.width - fixed))

        with terminal.drawing(shown.console), shown:
            yield show

    def answer_line(self, answer: "Answer") -> None:
        """What the answer took, as one line on stderr, unless quiet."""
        if self.quiet:
            return
        stats, retention, tokens = answer.stats, answer.retention, answer.stats.tokens
        facts = [
            f"{stats.timing_s['total']:.1f} s",
            f"kept {percent(retention.achieved)} of {counted(tokens.video + tokens.audio, 'token')}",
        ]
        if answer.evidence:
            facts.append(f"looked at {span(answer.evidence[0].start_s, answer.evidence[0].end_s)}")
        facts.append(_memory(answer))
        terminal.say(encodable(" · ".join(facts), sys.stderr.encoding))

    def answer_stats(self, answer: "Answer") -> None:
        """All that the answer took, as a table on stderr, unless quiet."""
        if self.quiet:
            return
        stats, retention, tokens = answer.stats, answer.retention, answer.stats.tokens
        seconds = stats.timing_s.items()
        self.notes(
            (Column("stage"), Column("seconds", "number")),
            [(STAGE_NAMES[stage], f"{spent:.3f}") for stage, spent in seconds if spent or stage == "total"],
        )
        memory = f"peak memory {stats.peak_rss_bytes / 1e9:.2f} GB"
        if stats.peak_device_bytes is not None:
            memory += f", on {stats.device} {stats.peak_device_bytes / 1e9:.2f} GB"
        spans = ", ".join(f"{e.start_s:.0f} to {e.end_s:.0f} s ({e.score:.3f})" for e in answer.evidence[:3])
        for line in (
            f"{answer.method} at retention {retention.achieved:.3f} (asked {retention.target:g}): "
            f"{tokens.video} video and {tokens.audio} audio tokens, {tokens.video_kept} and {tokens.audio_kept} "
            f"into the decoder, {tokens.text} text, {tokens.generated} generated; {memory}",
            f"attended most: {spans}",
        ):
            terminal.say(_wrapped(line, sys.stderr))

    def print_json(self, value: Any) -> None:
        """One JSON object, one line, on stdout. JSON escapes what a terminal must not get, or can't show."""
        text = json_output.dumps(value, ascii_only=False)
        try:
            text.encode(sys.stdout.encoding)
            plain = terminal.printable(text) == text
        except UnicodeEncodeError:  # a terminal without the character, or a file name that is no UTF-8
            plain = False
        terminal.write_data((text if plain else json_output.dumps(value).replace("\x7f", "\\u007f")) + "\n")

    def result(self, line: str) -> None:
        """One line of a command's result, on stdout: a path, a number."""
        terminal.write(one_line(line) + "\n")

    def remark(self, line: str) -> None:
        """A sentence that belongs to a command's result, on stdout; on a narrow terminal it goes on below, by words."""
        terminal.write(_wrapped(one_line(line), sys.stdout) + "\n")

    def results(self, columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> None:
        """A table that is a command's result, on stdout."""
        Table.of(columns, rows).show(terminal.rich_console(), _width(sys.stdout))

    def notes(self, columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> None:
        """A table on stderr, unless quiet."""
        if not self.quiet:
            Table.of(columns, rows).show(terminal.rich_console(stderr=True), _width(sys.stderr))


console = Console()
