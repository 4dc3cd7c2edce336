"""`omniqa batch`: many clips, one question or many, results that the next run goes on with."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from omniqa import terminal
from omniqa.cli import jobs, options, tables, values
from omniqa.cli.console import console
from omniqa.cli.flags import describe
from omniqa.cli.words import asked_again, counted
from omniqa.errors import SOME_FAILED, MediaError, OmniqaError, UsageError
from omniqa.jobs import questions as asking
from omniqa.jobs import rows, runfile
from omniqa.jobs.clips import ClipPath, Paths, Shard, files_now, find, listed, named_as_media
from omniqa.jobs.jsonl_store import JSON_LINES, Row, RowCodec, read_rows
from omniqa.jobs.questions import Task
from omniqa.jobs.results import ResultFile, Results, Stream
from omniqa.jobs.rows import BatchRows
from omniqa.jobs.runner import FailurePolicy, Job, Runner
from omniqa.jobs.subtitle_files import check_subtitles, write_subtitles
from omniqa.jobs.table import CsvCodec
from omniqa.media.access import is_address
from omniqa.media.cut_names import make_folder
from omniqa.media.sampling import ClipOptions
from omniqa.pruning.variants import MethodVariant

STDIN = "-"
SHOWN_CAUSES = 20
_STDOUT = 1  # the descriptor: what Python calls so may go elsewhere for a while

_ASKED, _KEPT = jobs.ASKED, "What is written"


@options.grouped
def batch(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, folders of videos, or - for a list of names on stdin; then the question, unless it comes "
            "with -Q or --questions. With -Q, the last word counts as a question, too, if it reads like one.",
            metavar="VIDEO|FOLDER|-… [QUESTION]",
            autocompletion=values.complete_file,
        ),
    ] = None,
    *,
    more: Annotated[
        list[str] | None,
        typer.Option("-Q", "--question", help="A question about every video; repeats.", rich_help_panel=_ASKED),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Questions as .jsonl, .json, .csv or .tsv with question and video, or without video, for all; other "
            "fields are carried through. - reads JSON lines from stdin.",
            metavar="FILE",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    zero: Annotated[
        bool,
        typer.Option("-0", "--null", help="Names on stdin end in NUL, as find -print0 has it.", rich_help_panel=_ASKED),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Write to FILE, where the same command goes on if it was ended. Default: stdout.",
            metavar="FILE",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="jsonl|csv",
            help="jsonl or csv. Default: csv where FILE ends in .csv, else jsonl.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    append: Annotated[
        bool,
        typer.Option("--append", help="Add to results with other settings.", rich_help_panel=_KEPT),
    ] = False,
    retry: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask again what failed before.", rich_help_panel=_KEPT),
    ] = False,
    cut: options.Cut = None,
    subtitles: Annotated[
        Path | None,
        typer.Option(
            help="Write one cue a question, over the strongest span of its evidence, to FILE.srt or FILE.vtt; for "
            "several videos, to FILE-VIDEO.srt each.",
            metavar="FILE",
            envvar="OMNIQA_SUBTITLES",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML report of each answer into DIR.",
            metavar="DIR",
            envvar="OMNIQA_REPORTS",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    many: jobs.JobFlags,
    loading: options.ModelFlags,
    dropping: options.PruningFlags,
    taken: options.ClipRangeFlags,
    encoding: options.CacheFlags,
    written: options.GenerationFlags,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Answer questions about many videos, one line of JSON or CSV each.

    Each video is decoded and encoded once for all its questions. With -o, a line is on the disk before the next
    question starts, and the same command goes on where the last one ended. See docs/batch.md.
    """
    # All that can be refused without the model is refused before it is loaded.
    part = many.part()
    column = MethodVariant("", dropping.pruner())
    decoding = written.decoding()
    sampling = taken.sampling()
    if retry and out is None:
        raise UsageError("--retry-failed is for the results in a file: give it with -o.")
    pool = many.pool()
    check_subtitles(subtitles)
    folder = None if cut is None else str(make_folder(cut).absolute())
    pages = None if reports is None else str(make_folder(reports, "reports").absolute())
    tasks = _tasks(arguments or [], more or [], questions, zero)
    form = _layout(layout, out, tasks)
    own = runfile.method_settings(column.pruner) | encoding.settings | loading.settings
    settings = runfile.make_settings(loading.model, loading.dtype, sampling, decoding, own)
    mine = [task for task in tasks if part.takes(task.clip.name)]
    with _results(out, form, settings, part, tasks, sampling, append, retry) as results:
        policy = FailurePolicy(halve_frames=True, retry=retry)
        made = BatchRows(results.settings, folder, sampling.access, pages)
        runner = Runner(Paths(sampling), decoding, made, policy, many.prefetch, describe=describe)
        run = Job(mine, [column], runner, results)
        if results.known:
            console.note(_known(results))
        if results.changed:
            console.note(asked_again(results.changed))
        told: list[Row] = []  # what subtitles are made of
        if not run.anything_left():
            results.finish()
        else:
            less = [*dropping.less(), *taken.less()]
            with jobs.answering(run, pool, loading, encoding, less) as (lines, models):
                _answer(run, lines if subtitles is None else _noted(lines, told), out, models)
        if subtitles is not None:
            _save_subtitles(subtitles, mine, form, out, told)
        _end(run, part)


def _noted(lines: Iterable[Row], told: list[Row]) -> Iterator[Row]:
    """The lines; what subtitles need of each is kept."""
    for row in lines:
        told.append({name: row[name] for name in ("id", "status", "video", "answer", "evidence_spans")})
        yield row


def _save_subtitles(file: Path, tasks: list[Task], form: RowCodec, out: Path | None, told: list[Row]) -> None:
    """Write the subtitles of all lines that are there, those of earlier runs included."""
    known = read_rows(out, form) if out is not None and out.is_file() else told
    for path in write_subtitles(file, [task.clip for task in tasks], known):
        console.note(f"subtitles: {path}")


def _tasks(arguments: list[str], more: list[str], questions: Path | None, zero: bool) -> list[Task]:
    """Clips and questions, as the arguments say."""
    if questions is not None and more:
        raise UsageError("Questions come with --questions or with -Q, not with both.")
    *names, last = arguments or [""]
    if questions is not None or (more and not asking.reads_like_question(last)):
        names = arguments
    elif not names:
        raise UsageError("Give videos and, after them, a question; or questions with -Q or --questions.")
    elif os.path.exists(last):
        raise UsageError(f"The last argument is the question, and {last} is a file. Give the question after it.")
    else:
        more = [last, *more]
    if STDIN in names and questions == Path(STDIN):
        raise UsageError("Videos and questions can't both come from stdin.")
    if zero and STDIN not in names:
        raise UsageError("-0 is for names on stdin: give - as well.")
    if questions is None:
        return asking.for_all(_clips(names, zero), more)
    folder = names[0] if len(names) == 1 and os.path.isdir(names[0]) else None
    return asking.from_file(questions, _clips(names, zero) if names else [], folder)


def _clips(names: list[str], zero: bool) -> list[ClipPath]:
    for name in names:
        if name != STDIN and not os.path.exists(name) and not is_address(name):
            raise MediaError(
                f"{name} was not found. A question needs quotes. With --questions all arguments are videos; with -Q "
                "the last may be a question: it has spaces or ends in a question mark."
            )
    given = [inner for name in names for inner in (listed(terminal.stdin_pieces(), zero) if name == STDIN else [name])]
    clips = find(given)
    if not clips:
        raise MediaError("There is nothing to ask about: " + ("no names came." if not given else "no files are there."))
    return clips


def _known(results: Results) -> str:
    failed = sum(line.failed for line in results.known.values())
    before = f"; {failed} of them failed, and --retry-failed asks those again" if failed else ""
    return f"there already: {counted(len(results.known), 'line')}{before}"


def _layout(name: str | None, out: Path | None, tasks: list[Task]) -> RowCodec:
    chosen = name or ("csv" if out is not None and out.suffix.lower() == ".csv" else "jsonl")
    if chosen == "jsonl":
        return JSON_LINES
    if chosen != "csv":
        raise UsageError(f"--format is jsonl or csv, not {chosen!r}.")
    names = dict.fromkeys(name for task in tasks for asked in task.questions for name in asked.fields)
    table = CsvCodec.with_fields(names)
    return table if out is None else table.like(out)


def _results(
    out: Path | None,
    layout: RowCodec,
    settings: runfile.Settings,
    shard: Shard,
    tasks: list[Task],
    sampling: ClipOptions,
    append: bool,
    retry: bool,
) -> Results:
    if out is None:
        return Stream(None, layout, settings)
    if out.exists() and not out.is_file() and not out.is_dir():  # a pipe, a device
        return Stream(out, layout, settings)
    asked = runfile.summary(tasks)
    now = files_now((task.clip for task in tasks), Paths(sampling))
    return ResultFile(out, layout, settings, shard=shard, asked=asked, append=append, retry=retry, now=now)


@dataclass
class _Progress:
    """What this run has done so far.

    Attributes:
        tokens: of sound and picture.
        kept: by the layers' mean.
        peak: bytes of memory that one process held at most.
    """

    answered: int = 0
    failed: int = 0
    tokens: int = 0
    kept: float = 0.0
    peak: int = 0
    begun: float = field(default_factory=time.monotonic)
    _videos: set[int] = field(default_factory=set)

    @property
    def clips(self) -> int:
        """How many were begun."""
        return len(self._videos)

    def count(self, row: Row) -> None:
        """Take in a line."""
        failed = row["status"] == rows.FAILED
        self.failed, self.answered = self.failed + failed, self.answered + (not failed)
        self._videos.add(hash(row["video"]))
        if not failed:
            self.peak = max(self.peak, row["memory"]["peak_rss_bytes"])
            tokens = row["tokens"]["audio"] + row["tokens"]["video"]
            self.tokens, self.kept = self.tokens + tokens, self.kept + tokens * row["retention"]["achieved"]

    def speed(self) -> str:
        """Clips a second, and what dropping tokens saves."""
        saved = f", {1 - self.kept / self.tokens:.0%} of tokens saved" if self.tokens else ""
        return f"{self.clips / (time.monotonic() - self.begun):.2g} clips/s{saved}"


class _Clips:
    """How many of the media files are done. Other files in a folder are none, whatever their number.

    total: files that are named as media, and others that turned out to be. done: those without a missing line.
    """

    def __init__(self, run: Job) -> None:
        self._left = {todo.clip.name: len(todo.requests) for todo in run.missing()}
        named = {task.clip.name for task in run.tasks if named_as_media(task.clip)}
        self._seen = named | {task.clip.name for task in run.tasks if task.clip.name not in self._left}
        self._left_out = {clip.name for clip in (task.clip for task in run.tasks) if clip.path in run.runner.left_out}
        self._seen -= self._left_out

    @property
    def total(self) -> int:
        """Media files, as far as is known."""
        return len(self._seen)

    @property
    def done(self) -> int:
        """Those about which nothing is left to ask."""
        return sum(not self._left.get(name) for name in self._seen)

    def count(self, row: Row) -> None:
        """Take in a line."""
        self._seen.add(row["video"])
        if row["video"] in self._left:
            self._left[row["video"]] -= 1


def _answer(run: Job, lines: Iterable[Row], out: Path | None, models: int) -> None:
    """Take what is missing, and say how far it is. models: how many answer at a time."""
    done = len(run.results.known)
    total = done + sum(len(todo.requests) for todo in run.missing())
    so_far = _Progress()
    clips = _Clips(run)
    bar = out is not None or not os.isatty(_STDOUT)
    try:
        with console.tally(clips.total, "clips", clips.done, bar) as show:
            for row in lines:
                so_far.count(row)
                clips.count(row)
                show(clips.done, so_far.failed, so_far.speed(), clips.total)
    except (KeyboardInterrupt, BrokenPipeError, OmniqaError):
        goes_on = f" are in {out}; the same command goes on from there" if out is not None else " are written"
        console.note(f"{len(run.results.known)} of {total} lines{goes_on}")
        raise
    if so_far.clips:
        seconds = time.monotonic() - so_far.begun
        console.note(
            f"{counted(so_far.answered, 'answer')} about {counted(so_far.clips, 'clip')} in "
            f"{seconds:.0f} s: {so_far.speed()}; {'the model' if models == 1 else 'each model'} waited "
            f"{run.runner.waited_s / seconds / models:.0%} of the time for decoding; peak memory "
            f"{so_far.peak / 1e9:.2f} GB"
        )


def _end(run: Job, shard: Shard) -> None:
    """Say what was left out and what failed, and end with the exit code for it."""
    if run.runner.left_out:
        first = next(iter(run.runner.left_out))
        files = counted(len(run.runner.left_out), "file")
        console.note(f"left out, as neither video nor sound: {files}, the first of them {first}")
    known = run.results.known
    if shard.count == 1 and not known and len(run.runner.left_out) == len(run.tasks):  # a shard may well be empty
        raise MediaError("None of the files is video or sound.")
    failures = [line for line in known.values() if line.failed]
    if not failures:
        return
    causes = rows.causes(failures)
    console.notes(
        ("cause", tables.number("questions"), tables.number("clips", rank=1), tables.text("such as", rank=2)),
        [(cause.cause, str(cause.questions), str(cause.clips), cause.video) for cause in causes[:SHOWN_CAUSES]],
    )
    rest = (
        f" The table shows the {SHOWN_CAUSES} commonest causes of {len(causes)}." if len(causes) > SHOWN_CAUSES else ""
    )
    console.error(f"{len(failures)} of {len(known)} questions failed; --retry-failed asks them again.{rest}")
    raise typer.Exit(SOME_FAILED)
