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
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from omniqa import json_output, terminal
from omniqa.cli.tables import Column, Table
from omniqa.terminal import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from omniqa.pipeline.answer import Answer

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


def show_tracebacks(debug: bool) -> bool:
    """Show a traceback with an error, from now on."""
    global _tracebacks
    _tracebacks = debug
    return debug


def is_watched() -> bool:
    """Whether somebody sees what moves on stderr: it is a terminal, and not quiet."""
    return not _quiet and sys.stderr.isatty()


def error(message: str) -> None:
    """One plain line on stderr, whatever `message` holds; the traceback before it where asked for."""
    if _tracebacks and sys.exc_info()[0] is not None:
        terminal.say(traceback.format_exc().rstrip("\n"))
    terminal.say(f"omniqa: {one_line(message)}")


def crash(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """Say that omniqa itself is at fault, as sys.excepthook does: one line, the traceback where asked for."""
    if issubclass(kind, KeyboardInterrupt):
        terminal.say("omniqa: interrupted")
        return
    if _tracebacks:
        terminal.say("".join(traceback.format_exception(kind, fault, trace)).rstrip("\n"))
    more = "" if _tracebacks else " Run it again with --debug, and report what that shows."
    terminal.say(f"omniqa: {one_line(f'this is a fault in omniqa: {kind.__name__}: {fault}')}.{more}")


def note(message: str) -> None:
    """A plain line on stderr, unless quiet; on a narrow terminal it goes on below, by words."""
    if not _quiet:
        terminal.say(_wrapped(f"omniqa: {one_line(message)}", sys.stderr))


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """What libraries print on stdout goes to stderr meanwhile, and nowhere when quiet. Results go by the descriptor."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if _quiet else sys.stderr):
        yield


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {what}{'s' * (number != 1)}"


def asked_again(files: int) -> str:
    """That so many files have changed since lines were written about them."""
    if files == 1:
        return "1 file has changed since it was asked about; it is asked about again"
    return f"{files} files have changed since they were asked about; they are asked about again"


def print_json(value: Any) -> None:
    """One JSON object, one line, on stdout. JSON escapes what a terminal must not get, or can't show."""
    text = json_output.dumps(value, ascii_only=False)
    try:
        text.encode(sys.stdout.encoding)
        plain = terminal.printable(text) == text
    except UnicodeEncodeError:  # a terminal without the character, or a file name that is no UTF-8
        plain = False
    terminal.write_data((text if plain else json_output.dumps(value).replace("\x7f", "\\u007f")) + "\n")


class AnswerStream:
    """Writes answers to stdout as they are generated; call it with each piece of text.

    heads: what stands in front of each answer, one after the other, such as its question; none where they run out.
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

    def _start(self) -> None:
        if not self._started:
            terminal.write(next(self._heads, ""))
        self._started = True


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for whatever stage is running; on a terminal only, and not when quiet.

    Gives a function to call with a stage's name and its done share. The bar stands only while a stage runs: where
    none does, the terminal's lines belong to the answer.
    """
    if not is_watched():
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


class Tally(Protocol):
    """Takes how many are done, those before this run included; how many failed; and what else is worth a word.

    total: how many there are now; None leaves it.
    """

    def __call__(self, done: int, failed: int, more: str = "", total: int | None = None) -> None:
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

    counts = rich.TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {what}", markup=False)
    times = (rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn())
    shown = _bar(counts, rich.BarColumn(bar_width=_BAR), *times, rich.TextColumn("{task.description}", markup=False))
    task = shown.add_task("", total=total, completed=done)
    fixed = len(f"{total}/{total} {what}") + _BAR + _TIMES

    def show(done: int, failed: int, more: str = "", total: int | None = None) -> None:
        words = [*([f"{failed} failed"] if failed else []), *(more.split(", ") if more else [])]
        shown.update(task, completed=done, total=total, description=_that_fit(words, shown.console.width - fixed))

    with terminal.drawing(shown.console), shown:
        yield show


_BAR = 10  # characters of a bar, so that the rest has room on 60 columns
_TIMES = 28  # two times of up to 8 characters, "left", and the spaces between all of it


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

    def __init__(self, total: int, what: str, done: int) -> None:
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
        note(f"{', '.join(words)}, {about(left)} left")


def about(seconds: float) -> str:
    """A time in words: "about 2 minutes"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {counted(minutes, 'minute')}"
    return f"about {round(minutes / 60)} hours"


def answer_line(answer: "Answer") -> None:
    """What the answer took, as one line on stderr, unless quiet."""
    if _quiet:
        return
    stats, retention, tokens = answer.stats, answer.retention, answer.stats.tokens
    facts = [
        f"{stats.timing_s['total']:.1f} s",
        f"kept {_percent(retention.achieved)} of {counted(tokens.video + tokens.audio, 'token')}",
    ]
    if answer.evidence:
        facts.append(f"looked at {span(answer.evidence[0].start_s, answer.evidence[0].end_s)}")
    facts.append(_memory(answer))
    terminal.say(_encodable(" · ".join(facts), sys.stderr.encoding))


def _memory(answer: "Answer") -> str:
    stats = answer.stats
    device = stats.peak_device_bytes
    return f"{stats.peak_rss_bytes / 1e9:.1f} GB" + (f" and {device / 1e9:.1f} GB on {stats.device}" if device else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"


_TO = "\N{EN DASH}"


def span(start: float, end: float) -> str:
    """A part of a clip: "2–4 s", or from a minute on "1:02–1:04"."""
    if end >= 60:
        return f"{_clock(start)}{_TO}{_clock(end)}"
    return f"{start:.3g}{_TO}{end:.3g} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _encodable(text: str, encoding: str) -> str:
    """The text, in simpler signs where `encoding` lacks the better ones."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace(" · ", ", ").replace(_TO, "-")
    return text


def answer_stats(answer: "Answer") -> None:
    """All that the answer took, as a table on stderr, unless quiet."""
    if _quiet:
        return
    stats, retention, tokens = answer.stats, answer.retention, answer.stats.tokens
    seconds = stats.timing_s.items()
    notes(
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


def result(line: str) -> None:
    """One line of a command's result, on stdout: a path, a number."""
    terminal.write(one_line(line) + "\n")


def remark(line: str) -> None:
    """A sentence that belongs to a command's result, on stdout; on a narrow terminal it goes on below, by words."""
    terminal.write(_wrapped(one_line(line), sys.stdout) + "\n")


def results(columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> None:
    """A table that is a command's result, on stdout."""
    Table.of(columns, rows).show(terminal.rich_console(), _width(sys.stdout))


def notes(columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stderr, unless quiet."""
    if not _quiet:
        Table.of(columns, rows).show(terminal.rich_console(stderr=True), _width(sys.stderr))


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
