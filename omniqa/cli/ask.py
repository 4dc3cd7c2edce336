"""`omniqa ask`: one video, one or more questions."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniqa import terminal
from omniqa.cli import options, values
from omniqa.cli.console import AnswerStream, console
from omniqa.cli.loading import check_clip, fitting, load_model, refuse_more_words, video_file
from omniqa.cli.report import EmbedMedia, ReportFile, check_report, write_report
from omniqa.errors import UsageError
from omniqa.jobs.subtitle_files import check_subtitles
from omniqa.media.cut_names import make_folder
from omniqa.media.sampling import ClipOptions
from omniqa.models.base import check_length
from omniqa.models.families import NANO
from omniqa.pruning.contract import needs_attended
from omniqa.pruning.variants import MethodVariant

if TYPE_CHECKING:
    from omniqa.media.source import Source
    from omniqa.pipeline.answer import Answer
    from omniqa.pipeline.encoded_clip import EncodedClip
    from omniqa.pipeline.engine import OmniQA

SUGGESTED = 3  # wordings for a question in words that nano does not know


@options.grouped
def ask(
    context: typer.Context,
    video: Annotated[
        str,
        typer.Argument(
            help="A video or audio file, or a pipe; - reads it from stdin.",
            autocompletion=values.complete_file,
        ),
    ],
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from stdin.")] = None,
    questions: Annotated[
        list[str] | None, typer.Option("-Q", "--question", help="A further question about the same video; repeats.")
    ] = None,
    *,
    loading: options.ModelFlags,
    dropping: options.PruningFlags,
    taken: options.ClipRangeFlags,
    encoding: options.CacheFlags,
    written: options.GenerationFlags,
    as_json: options.Json = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write which token was kept in which layer, and its score, to FILE.npz.",
            metavar="FILE.npz",
            envvar="OMNIQA_TRACE",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Answer by METHOD, too, beside it; none is the model with all tokens.",
            metavar="METHOD",
            autocompletion=values.complete_method,
            envvar="OMNIQA_COMPARE",
        ),
    ] = None,
    subtitles: Annotated[
        Path | None,
        typer.Option(
            help="Write one cue a question, over the strongest span of its evidence, to FILE.srt or FILE.vtt.",
            metavar="FILE",
            envvar="OMNIQA_SUBTITLES",
        ),
    ] = None,
    cut: options.Cut = None,
    report: ReportFile = None,
    embed_media: EmbedMedia = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Answer a question about a video, from its picture and its sound.

    The answer goes to stdout as it is written; timing and memory go to stderr.
    """
    # All that can be refused without the model is refused before it is loaded.
    refuse_more_words(context)
    asked = _questions(video, question, questions or [])
    methods = [dropping.column(), *([] if compare is None else [dropping.other(compare)])]
    decoding = written.decoding()
    sampling = taken.sampling()
    traces = _trace_files(trace, len(asked))
    check_subtitles(subtitles)
    if cut is not None:
        make_folder(cut)
    check_report(report, embed_media, video)
    terminal.check_stdout()
    with ExitStack() as stack:
        path = stack.enter_context(video_file(video, sampling))
        source = check_clip(path, sampling)
        stack.enter_context(fitting(loading, [*dropping.less(), *taken.less()]))
        qa = load_model(loading, encoding)
        stream = AnswerStream(_heads(asked, [method.name for method in methods]))
        with console.progress() as progress:
            ask = partial(
                qa.ask_all, decoding=decoding, on_text=(lambda text: None) if as_json else stream, progress=progress
            )
            if compare is None:
                answers = ask(source, asked, methods[0].pruner, sampling=sampling)
            else:  # one encoding that serves both methods
                attended = needs_attended(*[method.pruner for method in methods])
                clip = qa.encode(source, sampling, attended=attended, progress=progress)
                answers = _of_both(ask, clip, asked, methods)
            shown: list[Answer] = []
            first: list[Answer] = []  # by the method that was asked for
            told: list[Answer] = []
            for answer in answers:
                shown.append(replace(answer, video=video))
                told.append(shown[-1])
                _show(shown[-1], as_json, stream)
                if len(shown) == len(methods):
                    cuts: list[str] | None = None
                    try:
                        cuts = None if cut is None else _cut(shown[0], source, cut, sampling)
                    finally:  # an answer is printed, whatever becomes of its cuts
                        if as_json:
                            _print_json(cuts, *shown)
                    if file := traces.pop(0):
                        _save_trace(shown[0], file)
                    first.append(shown[0])
                    shown.clear()
                (console.answer_stats if verbose else console.answer_line)(answer)
        if subtitles is not None:
            _save_subtitles(first, subtitles)
        if report is not None:
            write_report(report, told, source, embed_media)
        if loading.model == NANO and not quiet:
            _suggest_wordings(qa, source, asked, sampling)


def _of_both(
    ask: Callable[..., Iterator["Answer"]], clip: "EncodedClip", asked: list[str], methods: list[MethodVariant]
) -> Iterator["Answer"]:
    """For each question, the answers of all methods, one after the other; the first tells what encoding took."""
    for number, question in enumerate(asked):
        for index, method in enumerate(methods):
            yield from ask(clip, [question], method.pruner, count_encoding=number == index == 0)


def _suggest_wordings(qa: "OmniQA", source: "Source", asked: list[str], sampling: ClipOptions) -> None:
    """For each question in words that nano was not trained on, three on stderr that it was, and that suit the clip."""
    from omniqa.nano.wordings import is_trained, one_of_each_kind, questions_for

    if not (unknown := [text for text in asked if not is_trained(text)]):
        return
    clip = qa.encode(source, sampling)
    for text in unknown:
        suited = islice(one_of_each_kind(questions_for(qa, clip, near=text)), SUGGESTED)
        console.note(f"nano was not trained on the words {text.strip()!r}. For this clip, these work:")
        for one in suited:
            console.note(f"  {one.text}")


def _questions(video: str, question: str | None, more: list[str]) -> list[str]:
    if question == "-" and video == "-":
        raise UsageError("Video and question can't both come from stdin.")
    if question == "-":
        question = terminal.read_stdin().strip()
    asked = [*([] if question is None else [question]), *more]
    if not asked:
        raise UsageError("There is no question. Give one after the video, or with -Q.")
    if not all(text.strip() for text in asked):
        raise UsageError("A question is empty.")
    for text in asked:
        check_length(text)
    return asked


def _trace_files(trace: Path | None, count: int) -> list[Path | None]:
    """One file a question: FILE.npz, or FILE-1.npz, FILE-2.npz, … for several."""
    if trace is None:
        return [None] * count
    if not trace.parent.is_dir():
        raise UsageError(f"--trace: there is no folder {trace.parent}.")
    if count == 1:
        return [trace]
    return [trace.with_stem(f"{trace.stem}-{number}") for number in range(1, count + 1)]


def _save_trace(answer: "Answer", file: Path) -> None:
    try:
        answer.trace.save(file)
    except OSError as error:
        raise UsageError(f"--trace: {file} can't be written ({error.strerror}).") from error


def _save_subtitles(answers: list["Answer"], file: Path) -> None:
    from omniqa.pipeline.subtitles import subtitles

    try:
        file.write_text(subtitles(answers, file.suffix), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--subtitles: {file} can't be written ({error.strerror}).") from error


def _heads(asked: list[str], methods: list[str]) -> list[str]:
    """The heading of each answer: its question if a terminal shows several, its method if two are compared."""
    questions = len(asked) > 1 and sys.stdout.isatty()
    width = max(map(len, methods))
    heads = []
    for number, question in enumerate(asked):
        for index, method in enumerate(methods):
            head = f"{'' if number == 0 else chr(10)}{question.strip()}\n" if questions and index == 0 else ""
            heads.append(head + (f"{method:{width}}  " if len(methods) > 1 else ""))
    return heads


def _show(answer: "Answer", as_json: bool, stream: AnswerStream) -> None:
    if not as_json:
        stream.end()
    for warning in answer.stats.media.warnings:
        console.note(f"warning: {warning}")


def _cut(answer: "Answer", source: "Source", folder: Path, sampling: ClipOptions) -> list[str]:
    """Cut the answer's evidence out of the file, and say where it is."""
    from omniqa.media.cut import cut as cut_spans

    spans = [(span.start_s, span.end_s) for span in answer.evidence_spans]
    paths = [str(path) for path in cut_spans(source, spans, folder, sampling.access, answer.video)]
    for path in paths:
        console.note(f"cut: {path}")
    return paths


def _print_json(cuts: list[str] | None, answer: "Answer", *others: "Answer") -> None:
    compared = {"compared": others[0].to_dict()} if others else {}
    console.print_json(answer.to_dict() | ({} if cuts is None else {"cuts": cuts}) | compared)
