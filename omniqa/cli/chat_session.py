"""What the lines of `omniqa chat` do: questions are answered, and commands begin with a slash."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from omniqa import json_output, terminal
from omniqa.cli import values
from omniqa.cli.console import AnswerStream, console
from omniqa.cli.flags import describe
from omniqa.cli.tables import number, text
from omniqa.cli.words import percent, span
from omniqa.errors import CLIP_ERRORS, OmniqaError, UsageError
from omniqa.interrupts import interrupts_between_steps
from omniqa.pruning.variants import MethodVariant, method_variants
from omniqa.terminal import one_line

if TYPE_CHECKING:
    from omniqa.media.source import Source
    from omniqa.pipeline.answer import Answer
    from omniqa.pipeline.conversation import Conversation

Open = Callable[[str], "Conversation"]  # begins a conversation about a file
Show = Callable[["Answer"], None]

COMMANDS = {
    "/evidence": "which parts of the clip the last answer looked at",
    "/method NAME [RETENTION]": "answer by another method, as /method omnidrop 0.2; without a name, tell which it is",
    "/open FILE": "talk about another clip",
    "/report FILE": "write the answers' report to a new HTML file: where each looked, and which tokens were kept",
    "/reset": "forget all questions and answers; the clip stays encoded",
    "/save FILE": "write the conversation to a new file: Markdown, or JSON if it ends in .json",
    "/help": "this list",
    "/quit": "end; so does Ctrl-D",
}


class ChatSession:
    """A conversation on the command line.

    Args:
        open_clip: begins a conversation about a file.
        video: the file, as the user names it.
        method: the one that answers.
        show: prints what an answer took.

    Attributes:
        failed: how many questions had no answer.
        ended: whether the user wants to leave.
    """

    def __init__(self, open_clip: Open, video: str, method: MethodVariant, show: Show) -> None:
        self.failed = 0
        self.ended = False
        self._open, self._show = open_clip, show
        self._video, self._method = video, method
        self._chat = open_clip(video)
        self._answers: list[Answer] = []

    def handle(self, line: str) -> None:
        """Answer a line on a terminal, or obey it. Ctrl-C stops that; an error is told, and the chat goes on."""
        try:
            if not line.strip():
                return
            if line.startswith("/"):
                self._obey(line)
            else:
                self._answer_on_terminal(line)
        except OmniqaError as error:
            console.error(describe(error))
        except KeyboardInterrupt:
            console.note("stopped")

    def answer_line(self, line: str, as_json: bool) -> None:
        """Answer a line of a pipe by one line, which is empty if the clip or the question is at fault.

        Raises:
            OmniqaError: whatever would meet every other question, too.
        """
        if line.startswith("/"):
            self._obey(line)
            return
        try:
            answer = self._stream(line, lambda text: None)
        except CLIP_ERRORS as error:
            self.failed += 1
            terminal.write("\n")
            console.error(describe(error))
            return
        if as_json:
            console.print_json(answer.to_dict())
        else:
            terminal.write(one_line(" ".join(answer.text.split())) + "\n")
        self._show(answer)

    def _answer_on_terminal(self, question: str) -> None:
        stream = AnswerStream()
        try:
            answer = self._stream(question, stream)
        except BaseException:
            if stream.started:
                stream.end()
            raise
        stream.end()
        self._show(answer)

    def _stream(self, question: str, on_text: Callable[[str], None]) -> "Answer":
        with interrupts_between_steps() as check, console.progress() as show:

            def progress(stage: str, share: float) -> None:
                check()
                show(stage, share)

            pieces = self._chat.stream(question.strip(), self._method.pruner, progress=progress)
            with closing(pieces):
                for piece in pieces:
                    on_text(piece)
                    check()
        assert pieces.answer is not None
        answer = replace(pieces.answer, video=self._video)
        for warning in answer.stats.media.warnings if not self._answers else ():
            console.note(f"warning: {warning}")
        self._answers.append(answer)
        return answer

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/evidence": self._tell_evidence,
            "/method": self._change_method,
            "/open": self._open_other,
            "/report": self._report,
            "/reset": self._reset,
            "/save": self._save,
            "/help": self._help,
            "/quit": self._quit,
        }
        if name not in commands:
            raise UsageError(f"There is no command {name}. The commands are {', '.join(commands)}.")
        commands[name](rest.strip())

    def _last(self) -> "Answer":
        if not self._answers:
            raise UsageError("Nothing has been answered yet.")
        return self._answers[-1]

    def _tell_evidence(self, rest: str) -> None:
        chunks = self._last().evidence
        rows = [
            (span(chunk.start_s, chunk.end_s), percent(chunk.score), percent(chunk.video), percent(chunk.audio))
            for chunk in chunks
        ]
        columns = (text("part"), number("attention"), number("to the picture"), number("to the sound"))
        console.notes(columns, rows)

    def _change_method(self, rest: str) -> None:
        words = rest.split()
        if len(words) > 2:
            raise UsageError("Write it as /method NAME RETENTION, with options as omnidrop:tds=false.")
        if words:
            retention = _share(words[1]) if words[1:] else self._method.pruner.target
            self._method = method_variants(words[:1], [retention])[0]
        console.note(f"answers come by {self._method.name}")

    def _open_other(self, rest: str) -> None:
        name = _file(rest)
        self._chat = self._open(name)
        self._video = name
        self._answers.clear()
        console.note(f"talking about {name}")

    def _reset(self, rest: str) -> None:
        self._chat.reset()
        self._answers.clear()

    def _save(self, rest: str) -> None:
        self._last()
        name = _file(rest)
        if name.endswith(".json"):
            content = json_output.dumps([answer.to_dict() for answer in self._answers], ascii_only=False) + "\n"
        else:
            content = markdown(self._video, self._answers)
        write_anew(name, content)

    def _report(self, rest: str) -> None:
        from omniqa.report import render

        self._last()
        name = _file(rest)
        source = cast("Source", self._chat.video)  # the command line begins no conversation about anything else
        write_anew(name, render(self._answers, source))

    def _help(self, rest: str) -> None:
        width = max(map(len, COMMANDS))
        for command, meaning in COMMANDS.items():
            terminal.say(f"{command:{width}}  {meaning}")

    def _quit(self, rest: str) -> None:
        self.ended = True


def _share(text: str) -> float:
    try:
        return values.share(text)
    except typer.BadParameter as error:
        raise UsageError(error.message) from error


def _file(rest: str) -> str:
    """The file that a command names: all that follows it, quotes around it taken off."""
    name = rest[1:-1] if len(rest) > 1 and rest[0] == rest[-1] and rest[0] in "'\"" else rest
    if not name:
        raise UsageError("Name a file after the command.")
    return str(Path(name).expanduser()) if name.startswith("~") else name


def write_anew(name: str, content: str) -> None:
    """Write a file that is not there yet, and say so.

    Raises:
        UsageError: it is there, or can't be written.
    """
    try:
        with Path(name).open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(content)
        console.note(f"written to {name}")
    except FileExistsError as error:
        raise UsageError(f"{name} is there already. Choose another name.") from error
    except OSError as error:
        raise UsageError(f"{name} can't be written ({error.strerror}).") from error


def markdown(video: str, answers: "list[Answer]") -> str:
    """A conversation as Markdown: questions as quotes, each with its answer and where that looked."""
    parts = [f"# {one_line(video)}\n"]
    for answer in answers:
        quoted = "\n".join(f"> {line}" for line in answer.question.splitlines())
        looked = ", ".join(span(chunk.start_s, chunk.end_s) for chunk in answer.evidence[:3])
        took = f"{answer.method}, kept {percent(answer.retention.achieved)}, looked at {looked}"
        parts.append(f"{quoted}\n\n{answer.text}\n\n{took}\n")
    return "\n".join(parts)
