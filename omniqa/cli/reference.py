"""Writes docs/cli.md from the app itself: `make docs`, or `python -m omniqa.cli.reference > docs/cli.md`."""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from typer.main import get_command

from omniqa import terminal
from omniqa.cli.app import app
from omniqa.cli.command import examples_of, word

HEAD = """# The command line

*Made from the app by `make docs` (`python -m omniqa.cli.reference > docs/cli.md`); a test fails where the two differ.*

`omniqa COMMAND --help` shows the same in the shell. `omniqa --install-completion` sets up completion for bash, zsh,
fish or PowerShell. A file whose name begins with a dash comes after `--`: `omniqa ask -- -clip.mp4 "What happens?"`.

Answers and results go to stdout, everything else to stderr. Control characters in names, questions and answers, such
as those that move the cursor, are shown as escapes (`\\x1b`). JSON has escapes of its own; CSV in a file or a pipe is
unchanged. On a narrow terminal, or with `COLUMNS` set, tables leave out their less important columns and say which.

An option that names an environment variable takes its default from there."""

EXIT_CODES = """## Exit codes

| | |
|---:|---|
| 0 | all went well |
| 1 | the reader of stdout has gone; or a fault in omniqa, which the line on stderr says |
| 2 | the request makes no sense: an unknown option, a value out of range, a file or a stream that can't be used |
| 3 | the media can't be used: not found, not a video, broken, nothing in the asked range |
| 4 | the model can't be found or loaded |
| 5 | not enough memory; the message says what would need less |
| 6 | `batch`, `chat`, `merge`, `eval`: it ended, and some questions failed |
| 130 | interrupted |

An error is one line on stderr that says what is wrong and what to do; `--debug` shows the traceback, too."""

# Minutes; merge, and eval of a set, need files that are not here, and chat somebody who types; serve has no end.
_SLOW = ("bench", "chat", "eval", "merge", "serve")


def reference() -> str:
    """The whole of docs/cli.md."""
    command = get_command(app)
    sections = [HEAD, _contents(command), *_sections(command, "omniqa"), EXIT_CODES]
    return "\n\n".join(sections) + "\n"


def _contents(command: Any) -> str:
    first = {name: cleandoc(one.help).partition("\n\n")[0] for name, one in command.commands.items()}
    rows = [f"| [omniqa {name}](#omniqa-{name}) | {_one_line(text)} |" for name, text in first.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _sections(command: Any, name: str) -> Iterator[str]:
    """A command and those below it."""
    inner = getattr(command, "commands", {})
    yield f"## {name}"
    yield _fenced("text", _usage(command, name))
    yield cleandoc(command.help)
    if examples := examples_of(command):
        yield _fenced("bash slow" if command.name in _SLOW else "bash", *examples)
    yield from _tables(command)
    for below, one in inner.items():
        yield from _sections(one, f"{name} {below}")


def _fenced(info: str, *lines: str) -> str:
    """A block of code; a test runs it unless it is marked slow."""
    return "\n".join([f"```{info}", *lines, "```"])


def _usage(command: Any, name: str) -> str:
    pieces = [word(param) for param in command.params if _is_argument(param) and param.required]
    pieces += [f"[{word(param)}]" for param in command.params if _is_argument(param) and not param.required]
    return " ".join([name, "[OPTIONS]", *(["COMMAND …"] if hasattr(command, "commands") else pieces)])


def _tables(command: Any) -> Iterator[str]:
    """Arguments, then options, a table for each group that `--help` shows."""
    groups: dict[str, list[Any]] = {"Arguments": [], "Options": []}
    for param in command.params:
        what = "Arguments" if _is_argument(param) else param.rich_help_panel or "Options"
        groups.setdefault(what, []).append(param)
    for group, params in groups.items():
        if params:
            yield "\n".join([f"| {group} | |", "|---|---|", *(_row(command, param) for param in params)])


def _row(command: Any, param: Any) -> str:
    flag = not _is_argument(param) and param.is_flag
    names = [] if _is_argument(param) else [", ".join([*param.opts, *param.secondary_opts])]
    shown = " ".join([*names, *([] if flag else [word(param)])])
    facts = [f"default `{param.default}`"] if param.default not in (None, "") and not flag else []
    facts += [f"`{param.envvar}`"] if param.envvar else []
    more = f" ({', '.join(facts)})" if facts else ""
    return f"| `{_cell(shown)}` | {_cell(_one_line(param.help))}{more} |"


def _is_argument(param: Any) -> bool:
    return param.param_type_name == "argument"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    terminal.write(reference())
