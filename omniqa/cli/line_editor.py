"""Where a conversation's lines come from: a line editor on a terminal, else stdin, a line at a time."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omniqa import terminal
from omniqa.errors import UsageError

PROMPT = "> "
HISTORY = "chat-history"


def is_interactive() -> bool:
    """Whether a person types the lines: stdin is a terminal, and so is one of the streams that show them."""
    return sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())


class LineEditor:
    """Lines that a person types, with editing and a history that outlives the program.

    Ctrl-C clears the line; Ctrl-D on an empty line ends them.

    Args:
        commands: words to complete at the start of a line.
    """

    def __init__(self, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.output import create_output

        # With stdout in a file, what is typed is shown on stderr.
        output = create_output(always_prefer_tty=True)
        completer = WordCompleter(list(commands), sentence=True)
        self._session: Any = PromptSession(
            PROMPT, history=_history(), completer=completer, complete_while_typing=False, output=output
        )

    def read(self) -> str | None:
        """The next line; None once the user has ended them.

        Raises:
            KeyboardInterrupt: the user has dropped this line.
        """
        try:
            return self._session.prompt()
        except EOFError:
            return None


def _history() -> Any:
    """A history in a file that its user alone can read; in memory if there can be no such file."""
    from platformdirs import user_state_path
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    file = user_state_path("omniqa") / HISTORY
    return FileHistory(str(file)) if _is_writable(file) else InMemoryHistory()


def _is_writable(file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        with file.open("a"):
            return True
    except OSError:
        return False


def stdin_lines() -> Iterator[str]:
    """The lines of stdin as they come, without those that are empty.

    Raises:
        UsageError: it is closed or can't be read.
    """
    while True:
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError(f"What came from stdin is no {error.encoding.upper()} text ({error.reason}).") from error
        except OSError as error:
            raise terminal.unreadable(error) from error
        if not line:
            return
        if line.strip():
            yield line.strip()
