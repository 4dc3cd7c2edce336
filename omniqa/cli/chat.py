"""`omniqa chat`: a conversation about one video."""

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from omniqa import terminal
from omniqa.cli import options, values
from omniqa.cli.chat_session import COMMANDS, ChatSession
from omniqa.cli.console import console
from omniqa.cli.line_editor import LineEditor, is_interactive, stdin_lines
from omniqa.cli.loading import check_clip, fitting, load_model, video_file
from omniqa.errors import SOME_FAILED, UsageError
from omniqa.interrupts import no_interrupt_lost

if TYPE_CHECKING:
    from omniqa.pipeline.conversation import Conversation


@options.grouped
def chat(
    video: Annotated[
        str, typer.Argument(help="A video or audio file to talk about.", autocompletion=values.complete_file)
    ],
    *,
    loading: options.ModelFlags,
    dropping: options.PruningFlags,
    taken: options.ClipRangeFlags,
    encoding: options.CacheFlags,
    written: options.GenerationFlags,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Talk about a video: each question is asked after those before it and their answers.

    The clip is encoded once. Ctrl-C stops an answer, Ctrl-D ends the chat, /help lists the commands. In a pipe, each
    line is a question, and each answer a line.
    """
    if video == "-":
        raise UsageError("Questions come from stdin, so that the video can't. Name a file.")
    method, decoding, sampling = dropping.column(), written.decoding(), taken.sampling()
    terminal.check_stdout()
    interactive = is_interactive() and not as_json
    with ExitStack() as stack:
        sources = {video: check_clip(stack.enter_context(video_file(video, sampling)), sampling)}
        stack.enter_context(fitting(loading, [*dropping.less(), *taken.less()]))
        editor = LineEditor(_names()) if interactive else None
        qa = load_model(loading, encoding)

        def open_clip(name: str) -> "Conversation":
            if name not in sources:
                sources[name] = check_clip(stack.enter_context(video_file(name, sampling)), sampling)
            return qa.chat(sources[name], method.pruner, sampling=sampling, decoding=decoding)

        session = ChatSession(open_clip, video, method, console.answer_stats if verbose else console.answer_line)
        if editor is not None:
            console.note(f"talking about {video}; /help lists the commands, Ctrl-D ends")
            _talk(session, editor)
        else:
            for line in stdin_lines():
                session.answer_line(line, as_json)
    if session.failed:
        raise typer.Exit(SOME_FAILED)


def _talk(session: ChatSession, editor: LineEditor) -> None:
    """Handle lines until the user ends them. Ctrl-C ends what is at hand alone: a line, or an answer."""
    while not session.ended:
        with suppress(KeyboardInterrupt), no_interrupt_lost():
            line = editor.read()
            if line is None:
                return
            session.handle(line)


def _names() -> list[str]:
    return [command.partition(" ")[0] for command in COMMANDS]
