"""`omniqa bench`: methods side by side on one clip and one question."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniqa.bench.cases import Rounds, make_cases
from omniqa.cli import options, tables, values
from omniqa.cli.console import console
from omniqa.cli.flags import describe
from omniqa.cli.loading import check_clip, fetched, fitting, load_model, refuse_more_words
from omniqa.cli.report import EmbedMedia, ReportFile, check_report, write_report
from omniqa.errors import UsageError
from omniqa.pipeline.stages import STAGE_NAMES

if TYPE_CHECKING:
    from omniqa.bench.report import Report, Row
    from omniqa.media.source import Source

COLUMNS = (
    tables.name("method"),
    tables.number("R asked"),
    tables.number("R achieved", rank=3),
    tables.number("video in", rank=8),
    tables.number("audio in", rank=8),
    tables.number("pruning s", rank=7),
    tables.number("prefill s", rank=2),
    tables.number("(min-max)", rank=9),
    tables.number("ms a token", rank=6),
    tables.number("first token s", rank=5),
    tables.number("prefill faster", rank=1),
    tables.number("first token sooner", rank=5),
    tables.number("peak GB", rank=4),
    tables.name("answer"),
    tables.number("KL nats", rank=1),
)
UNKNOWN = "-"
_MEASURED = "What is measured"
STAGES = {"decode": "decoding", "preprocess": "log-mel"} | {
    stage: STAGE_NAMES[stage] for stage in ("vision_encoder", "audio_encoder")
}


@options.grouped
def bench(
    context: typer.Context,
    video: Annotated[str, typer.Argument(help="A video or audio file.", autocompletion=values.complete_file)],
    question: Annotated[str, typer.Argument(help="The question.")],
    *,
    compared: options.ComparisonFlags,
    repeats: Annotated[
        int,
        typer.Option(
            help="How often each is measured; medians are shown.", envvar="OMNIQA_REPEATS", rich_help_panel=_MEASURED
        ),
    ] = 5,
    warmup: Annotated[
        int,
        typer.Option(help="Rounds before that, which don't count.", envvar="OMNIQA_WARMUP", rich_help_panel=_MEASURED),
    ] = 1,
    loading: options.ModelFlags,
    taken: options.ClipRangeFlags,
    new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens",
            help="Tokens generated in each run, all of them, so that every method does the same work.",
            envvar="OMNIQA_MAX_NEW_TOKENS",
            rich_help_panel=options.ANSWER,
        ),
    ] = 32,
    as_json: options.Json = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the rows to FILE.", metavar="FILE", envvar="OMNIQA_CSV")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw time and agreement against retention: FILE.png, .svg or .pdf.",
            metavar="FILE",
            envvar="OMNIQA_PLOT",
        ),
    ] = None,
    report_file: ReportFile = None,
    embed_media: EmbedMedia = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare methods on one clip: time, tokens, memory, and agreement with full tokens.

    By default, all methods that can run here are compared, at 0.5, 0.3, 0.2 and 0.1. The clip is encoded once for all;
    runs take turns. The table goes to stdout.
    """
    # All that can be refused without the model is refused before it is loaded.
    refuse_more_words(context)
    cases = make_cases(compared.methods or [], compared.retentions or [], compared.method_options or [])
    rounds = Rounds(repeats, warmup, new_tokens)
    if not question.strip():
        raise UsageError("The question is empty.")
    sampling = taken.sampling()
    if csv is not None and not csv.parent.is_dir():
        raise UsageError(f"--csv: there is no folder {csv.parent}.")
    check_report(report_file, embed_media, video)
    if plot is not None:
        from omniqa.bench.plot import check_plot

        check_plot(plot)
    with fetched(video, sampling):
        source = check_clip(video, sampling)
        with fitting(loading, taken.less()):
            qa = load_model(loading, options.CacheFlags())
            from omniqa.bench.measure import bench

            with console.progress() as progress:
                report = bench(
                    qa, source, question, cases,
                    sampling=sampling, rounds=rounds, progress=progress, describe=describe,
                )  # fmt: skip
            _show(report, as_json)
            if report_file is not None:
                _write_report(report_file, report, source, embed_media)
    if csv is not None:
        _write("--csv", csv, report.save_csv)
    if plot is not None:
        from omniqa.bench.plot import save_plot

        _write("--plot", plot, lambda path: save_plot(report, path))


def _write_report(file: Path, report: "Report", source: "Source", embed_media: bool) -> None:
    from omniqa.report.data import Figures

    ran = [row for row in report.rows if row.run is not None]
    figures = [
        Figures(f"{row.label} at {row.asked:g}", _agreement_in_words(row), tuple(_figures(report, row))) for row in ran
    ]
    write_report(file, [row.run for row in ran if row.run is not None], source, embed_media, figures)


def _figures(report: "Report", row: "Row") -> Iterator[tuple[str, str]]:
    """Names and values of what the report's table tells beside the tokens."""
    got = row.measured
    assert got is not None
    yield "prefill s", _seconds(got.pruned_prefill.median)
    yield "faster", _times(report.prefill_speedup(got))
    yield "first token s", _seconds(report.time_to_first_token(got).median)
    yield "KL nats", UNKNOWN if got.kl is None else f"{got.kl:.3g}"


def _agreement_in_words(row: "Row") -> str:
    got = row.measured
    if got is None or got.same_answer is None:
        return UNKNOWN
    return "same" if got.same_answer else f"differs at token {got.first_difference}"


def _write(option: str, path: Path, save: Callable[[Path], None]) -> None:
    try:
        save(path)
    except OSError as error:
        raise UsageError(f"{option}: {path} can't be written ({error.strerror}).") from error


def _show(report: "Report", as_json: bool) -> None:
    for warning in report.media.warnings:
        console.note(f"warning: {warning}")
    for method in report.left_out:
        console.note(f"{method.method} is left out: {method.reason}")
    if as_json:
        console.print_json(report.to_dict())
        return
    warmups = f"{report.warmup} warm-up{'s' * (report.warmup != 1)}"
    console.remark(
        f"{report.model}, {report.dtype} on {report.device} ({report.attention}, {report.threads} CPU threads): "
        f"{report.video_tokens} video, {report.audio_tokens} audio and {report.text_tokens} text tokens; "
        f"medians of {report.repeats} after {warmups}"
    )
    encoding = ", ".join(f"{name} {report.encoding[stage].median:.3f} s" for stage, name in STAGES.items())
    console.remark(f"encoding, with all tokens: {encoding}")
    for row in report.rows:
        if row.measured and row.measured.encoding != report.encoding["total"]:
            console.remark(
                f"{row.label} at {row.asked:g} has an encoding of its own: {row.measured.encoding.median:.3f} s"
            )
    console.results(COLUMNS, [_cells(report, row) for row in report.rows])
    for note in dict.fromkeys(row.note for row in report.rows if row.note):
        console.remark(f"* {note}")


def _cells(report: "Report", row: "Row") -> tuple[str, ...]:
    asked = f"{row.asked:g}{'*' * bool(row.note)}"
    got = row.measured
    if got is None:
        return (row.label, asked, *[UNKNOWN] * (len(COLUMNS) - 2))
    memory = got.peak_rss_bytes if got.peak_device_bytes is None else got.peak_device_bytes
    return (
        row.label,
        asked,
        f"{got.achieved:.4f}",
        str(got.video_kept),
        str(got.audio_kept),
        _seconds(got.input_pruning.median),
        _seconds(got.prefill.median),
        f"({_seconds(got.prefill.low)}-{_seconds(got.prefill.high)})",
        UNKNOWN if got.per_token is None else f"{1000 * got.per_token.median:.1f}",
        _seconds(report.time_to_first_token(got).median),
        _times(report.prefill_speedup(got)),
        _times(report.first_token_speedup(got)),
        UNKNOWN if memory is None else f"{memory / 1e9:.2f}",
        UNKNOWN if got.same_answer is None else _agreement(got.first_difference),
        UNKNOWN if got.kl is None else f"{got.kl:.3g}",
    )


def _agreement(first_difference: int | None) -> str:
    return "same" if first_difference is None else f"differs at {first_difference}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"


def _times(factor: float | None) -> str:
    return UNKNOWN if factor is None else f"{factor:.2f}x"
