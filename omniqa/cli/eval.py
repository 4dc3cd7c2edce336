"""`omniqa eval`: accuracy tables on sets of questions, methods side by side."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from omniqa import __version__, json_output
from omniqa.cli import jobs, options, scores
from omniqa.cli.console import console
from omniqa.cli.flags import describe
from omniqa.cli.words import asked_again
from omniqa.errors import UsageError
from omniqa.eval import dataset as sets
from omniqa.eval import presets
from omniqa.eval.dataset import Dataset
from omniqa.eval.layouts import AUTO
from omniqa.eval.nano import NanoClips
from omniqa.eval.paper_table import FORMS, check_form, check_groups, paper_table
from omniqa.eval.presets import PRESETS, check_preset
from omniqa.eval.prompts import OMNIQA, PROMPTS, check_prompt
from omniqa.eval.protocol import Protocol
from omniqa.eval.report import as_csv, groupings, report
from omniqa.eval.run import POLICY, RESULTS, EvalRows, by_clip, faults, known_answer, read_answers
from omniqa.eval.scoring import SCORINGS, STRICT, check_scoring
from omniqa.jobs import runfile
from omniqa.jobs.clips import files_now
from omniqa.jobs.jsonl_store import JSON_LINES, Row, write_whole
from omniqa.jobs.results import ResultFile
from omniqa.jobs.rows import FAILED
from omniqa.jobs.runner import Job, Runner
from omniqa.media.sampling import ClipOptions
from omniqa.pruning import variants
from omniqa.runtime.generation_options import GenerationOptions

NANO = "nano"
NANO_CLIPS = 100

_SET, _NANO, _COMPARED, _PROTOCOL = "The set", "The set nano", "What is compared", "Protocol"


@dataclass(frozen=True)
class EvalFlags(jobs.JobFlags):
    """The same, with nothing decoded while the model is timed."""

    prefetch: jobs.Prefetch = 0


@options.grouped
def evaluate(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="A file of questions, or nano: its test set, drawn on the spot.")],
    *,
    media: Annotated[
        Path | None,
        typer.Option(
            help="The folder below which the clips are. Default: the file's own.",
            metavar="DIR",
            envvar="OMNIQA_MEDIA",
            rich_help_panel=_SET,
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="auto, jsonl, worldsense, videomme, avut, dailyomni or omnivideobench.",
            envvar="OMNIQA_FORMAT",
            rich_help_panel=_SET,
        ),
    ] = "auto",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many questions, about clips drawn with --seed.",
            envvar="OMNIQA_LIMIT",
            rich_help_panel=_SET,
        ),
    ] = None,
    hint: Annotated[
        str,
        typer.Option(
            help='A line that open questions end with, as "Answer with one word."',
            envvar="OMNIQA_HINT",
            rich_help_panel=_SET,
        ),
    ] = "",
    prompt: Annotated[
        str,
        typer.Option(
            help=f"Whose words multiple-choice questions are put in: {', '.join(PROMPTS)}.",
            metavar="NAME",
            envvar="OMNIQA_PROMPT",
            rich_help_panel=_PROTOCOL,
        ),
    ] = OMNIQA,
    scoring: Annotated[
        str,
        typer.Option(
            help=f"Whose rule finds the letter in an answer: {', '.join(SCORINGS)}.",
            metavar="NAME",
            envvar="OMNIQA_SCORING",
            rich_help_panel=_PROTOCOL,
        ),
    ] = STRICT,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Whose frames, pixels and answer length count if no option is given: {', '.join(PRESETS)}.",
            metavar="NAME",
            envvar="OMNIQA_PRESET",
            rich_help_panel=_PROTOCOL,
        ),
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="How many. Default: 100.", rich_help_panel=_NANO)] = None,
    seconds: Annotated[float | None, typer.Option(help="Of each clip. Default: 8.", rich_help_panel=_NANO)] = None,
    scenes: Annotated[int | None, typer.Option(help="In each clip. Default: 2.", rich_help_panel=_NANO)] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side. Default: 168.", rich_help_panel=_NANO)] = None,
    blind: Annotated[
        str | None,
        typer.Option(
            metavar="video|audio",
            help="A control. video: another clip's picture; audio: no sounds. What needs them falls to chance.",
            rich_help_panel=_NANO,
        ),
    ] = None,
    compared: options.ComparisonFlags,
    baseline: Annotated[
        str | None,
        typer.Option(
            help='Test all others against this one, as "none" or "random 0.3". Default: each against each.',
            metavar="METHOD",
            rich_help_panel=_COMPARED,
        ),
    ] = None,
    many: EvalFlags,
    loading: options.ModelFlags,
    taken: options.ClipFlags,
    encoding: options.CacheFlags,
    written: options.GenerationFlags,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Keep every answer in OUTDIR, and the report; the same command goes on there.",
            metavar="OUTDIR",
            envvar="OMNIQA_OUT",
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help=f"Print one table, a row a method, instead: {', '.join(FORMS)}.",
            metavar="FORM",
            envvar="OMNIQA_TABLE",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Groups that become columns of the table, as task or duration.", metavar="GROUPS"),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Answer a set of questions by several methods, and show how many each gets right.

    The default is omnidrop at 0.3. Each clip is decoded and encoded once for all of them. The tables go to stdout.
    See docs/eval.md.
    """
    # All that can be refused without the model is refused before it is loaded.
    columns = variants.method_variants(
        compared.methods or ["omnidrop"], compared.retentions or [0.3], compared.method_options or []
    )
    against = variants.find(columns, baseline) if baseline is not None else None
    check_prompt(prompt)
    check_scoring(scoring)
    check_preset(preset)
    check_form(table)
    if table is None and by is not None:
        raise UsageError("by is for a table", field="by", advice="and needs {table=markdown}.")
    part, pool = many.part(), many.pool()
    decoding = written.decoding()
    how = _Preset(preset, taken.sampling(), decoding, _given(context))
    nano = {"clips": clips, "seconds": seconds, "scenes": scenes, "size": size, "blind": blind}
    if dataset == NANO:
        _refuse({"media": media, "format": None if layout == AUTO else layout}, "is for a file, and nano is none")
        chosen = _nano(nano, how.sampling(NANO))
    else:
        _refuse(nano, f"is for the set nano, not for {dataset}")
        chosen = sets.from_file(Path(dataset), media, layout, how.sampling)
    sampling, decoding = how.sampling(chosen.layout), how.decoding(chosen.layout)
    questions = sets.limited(chosen.questions, limit, decoding.seed)
    own = chosen.identity | {
        "device": loading.device,
        "attention": loading.attn,
        **encoding.settings,
        **loading.settings,
        **variants.method_files(columns),
        "hint": hint,
        "prompt": prompt,
        "scoring": scoring,
        "version": __version__,
    }
    settings = runfile.make_settings(loading.model, loading.dtype, sampling, decoding, own)
    protocol = Protocol(prompt, scoring, chosen.layout, hint, sampling.audio)
    tasks = by_clip([question for question in questions if question.fault is None])
    now = files_now((task.clip for task in by_clip(chosen.questions)), chosen.clips)
    here = [question for question in questions if part.takes(question.clip)]
    check_groups(by, groupings(here))
    with _folder(out) as folder:
        path = folder / RESULTS
        asked = runfile.summary(tasks, [column.name for column in columns])
        with ResultFile(
            path, JSON_LINES, settings, shard=part, asked=asked, retry=POLICY.retry, read=known_answer, now=now
        ) as results:
            if results.changed:
                console.note(asked_again(results.changed))
            rows = EvalRows(results.settings, protocol)
            runner = Runner(chosen.clips, decoding, rows, POLICY, many.prefetch, timed_alone=True, describe=describe)
            job = Job([task for task in tasks if part.takes(task.clip.name)], columns, runner, results)
            if job.anything_left():
                with jobs.answering(job, pool, loading, encoding, taken.less()) as (lines, _):
                    askable = sum(question.fault is None for question in here)
                    _answer(job, askable * len(columns), lines, out)
            else:
                results.finish()
        answers = {**read_answers(path, here, columns), **faults(here, columns)}
        made = report(chosen.name, here, columns, answers, against, protocol)
        write_whole(folder / "report.json", f"{json_output.dumps(made, indent=1)}\n")
        write_whole(folder / "report.csv", as_csv(made))
    if as_json:
        console.print_json(made)
    elif table is not None:
        for line in paper_table(made, table, by).splitlines():
            console.result(line)
    else:
        scores.show(made)
    scores.end(made)


@dataclass(frozen=True)
class _Preset:
    """The options as they were given, and a preset for the rest, if any."""

    name: str | None
    clip: ClipOptions
    generation: GenerationOptions
    given: set[str]

    def sampling(self, layout: str) -> ClipOptions:
        """Which frames and what sound of a set's clips are used."""
        return presets.find(self.name, layout).sampling(self.clip, self.given) if self.name else self.clip

    def decoding(self, layout: str) -> GenerationOptions:
        """How a set's answers are generated."""
        return presets.find(self.name, layout).decoding(self.generation, self.given) if self.name else self.generation


def _given(context: typer.Context) -> set[str]:
    """The names of the options that the user set."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and not source.name.startswith("DEFAULT")}


def _nano(given: Mapping[str, Any], sampling: ClipOptions) -> Dataset:
    kept = {name: value for name, value in given.items() if value is not None}
    count = kept.pop("clips", NANO_CLIPS)
    return sets.from_nano(NanoClips(**kept, sampling=sampling), count)


def _refuse(given: Mapping[str, Any], why: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} {why}.")


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where answers are kept: for good, or as long as the command runs."""
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out} can't be made ({error.strerror}).") from error
        yield out
        return
    with TemporaryDirectory(prefix="omniqa-") as folder:
        yield Path(folder)


def _answer(job: Job, total: int, lines: Iterable[Row], out: Path | None) -> None:
    done, failed = total - sum(len(todo.requests) for todo in job.missing()), 0
    if done:
        console.note(f"{done} of {total} answers are there already")
    try:
        with console.tally(total, "answers", done) as show:
            for row in lines:
                done, failed = done + 1, failed + (row["status"] == FAILED)
                show(done, failed)
    except KeyboardInterrupt:
        if out is not None:
            console.note(f"{done - failed} of {total} answers are kept in {out}; the same command goes on from there")
        raise
