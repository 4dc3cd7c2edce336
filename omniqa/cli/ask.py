"""`omniqa ask`: one video, one or more questions."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniqa import terminal
from omniqa.cli import console, options, values
from omniqa.cli.loading import check_clip, load_model, refuse_more_words
from omniqa.errors import UsageError
from omniqa.media.access import is_address
from omniqa.media.pipe import is_pipe, kept, read_pipe

if TYPE_CHECKING:
    from omniqa.answer import Answer


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
    loading: options.Loading,
    dropping: options.Dropping,
    taken: options.TakenRange,
    encoding: options.Encoding,
    written: options.Written,
    as_json: options.Json = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write which token was alive in which layer, and its score, to FILE.npz.",
            metavar="FILE.npz",
            envvar="OMNIQA_TRACE",
        ),
    ] = None,
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
    pruner = dropping.pruner()
    decoding = written.decoding()
    sampling = taken.sampling()
    traces = _trace_files(trace, len(asked))
    terminal.check_stdout()
    with _video_file(video, sampling.allow_network) as path:
        check_clip(path, sampling)
        qa = load_model(loading, encoding)
        stream = console.AnswerStream(_heads(asked))
        with console.progress() as progress:
            answers = qa.ask_all(
                path,
                asked,
                pruner,
                sampling=sampling,
                decoding=decoding,
                on_text=(lambda text: None) if as_json else stream,
                progress=progress,
            )
            for answer, file in zip(answers, traces, strict=True):
                _show(replace(answer, video=video), as_json, stream)
                (console.answer_stats if verbose else console.answer_line)(answer)
                if file is not None:
                    _save_trace(answer, file)


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


@contextmanager
def _video_file(video: str, allow_network: bool) -> Iterator[str | Path]:
    """The video's path, or address; what comes through a pipe is kept in a temporary file, for media is sought in."""
    if video == "-":
        with kept(terminal.stdin_pieces(), "stdin") as path:
            yield path
    elif is_pipe(video):
        with kept(read_pipe(video), video) as path:
            yield path
    else:
        yield video if allow_network and is_address(video) else Path(video)


def _heads(asked: list[str]) -> list[str]:
    """What stands in front of each answer: nothing, or on a terminal the question, where there are several."""
    if len(asked) == 1 or not sys.stdout.isatty():
        return []
    return [f"{'' if index == 0 else chr(10)}{question.strip()}\n" for index, question in enumerate(asked)]


def _show(answer: "Answer", as_json: bool, stream: console.AnswerStream) -> None:
    if as_json:
        console.print_json(answer.to_dict())
    else:
        stream.end()
    for warning in answer.stats.media.warnings:
        console.note(f"warning: {warning}")
