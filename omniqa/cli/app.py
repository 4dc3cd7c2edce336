"""The command-line application: its commands, and the way errors leave it."""

import sys
import threading
from typing import Annotated

import typer

from omniqa import __version__, terminal
from omniqa.cli import versions
from omniqa.cli.ask import ask
from omniqa.cli.batch import batch
from omniqa.cli.bench import bench
from omniqa.cli.cache import app as cache
from omniqa.cli.chat import chat
from omniqa.cli.command import Command, Group
from omniqa.cli.console import console
from omniqa.cli.doctor import doctor
from omniqa.cli.eval import evaluate
from omniqa.cli.flags import describe
from omniqa.cli.merge import merge
from omniqa.cli.methods import methods
from omniqa.cli.nano import app as nano
from omniqa.cli.plan import plan
from omniqa.cli.serve import serve
from omniqa.errors import ModelError, OmniqaError, OutOfMemoryError, UsageError, first_line
from omniqa.interrupts import no_interrupt_lost
from omniqa.memory import MORE_MEMORY, memory_errors

app = typer.Typer(
    cls=Group,
    name="omniqa",
    help="Answers questions about videos, from picture and sound, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The words of a question without quotes come as extra arguments; the commands say what to do about them.
app.command(cls=Command, context_settings={"allow_extra_args": True})(ask)
app.command(cls=Command)(chat)
app.command(cls=Command)(serve)
app.command(cls=Command)(batch)
app.command(cls=Command)(merge)
app.command(cls=Command, context_settings={"allow_extra_args": True})(bench)
app.command("eval", cls=Command)(evaluate)
app.command(cls=Command)(plan)
app.command(cls=Command)(methods)
app.command(cls=Command)(doctor)
app.add_typer(cache)
app.add_typer(nano)

READER_GONE = 1
INTERRUPTED = 130


def _show_version(show: bool) -> None:
    if show:
        console.result(f"omniqa {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_show_version)] = False,
) -> None:
    """Answers questions about videos, from picture and sound, on this machine."""


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    terminal.open_standard_streams()
    sys.excepthook = console.crash
    threading.excepthook = _crashed
    sys.exit(run(sys.argv[1:]))


def _crashed(fault: threading.ExceptHookArgs) -> None:
    if fault.exc_value is not None:
        console.crash(fault.exc_type, fault.exc_value, fault.exc_traceback)


def run(arguments: list[str]) -> int:
    """Run the command line; give the exit code. Every error is one plain line on stderr."""
    with terminal.guarded():
        try:
            return _run(arguments)
        except OutOfMemoryError as error:
            console.error(describe(error) if error.advice else f"{error} {MORE_MEMORY}")
            return error.exit_code
        except OmniqaError as error:
            console.error(describe(error))
            return error.exit_code
        except typer.TyperException as error:  # what the parser refuses
            if message := error.format_message():  # empty after the help that is shown in place of a missing command
                console.error(message)
            return error.exit_code
        except ModuleNotFoundError as error:
            package = versions.MODULES.get((error.name or "").partition(".")[0])
            if package is None:
                raise
            console.error(f"{package} is not installed: pip install {package}. `omniqa doctor` looks for the rest.")
            return ModelError.exit_code
        except RuntimeError as error:  # torch's, whose types are no narrower
            console.error(f"torch can't do this here: {first_line(error)}")
            return UsageError.exit_code
        except (KeyboardInterrupt, typer.Abort):
            console.error("interrupted")
            return INTERRUPTED
        except BrokenPipeError:  # the reader of stdout has gone; nothing more can be said to it
            terminal.give_up_stdout()
            return READER_GONE


def _run(arguments: list[str]) -> int:
    with no_interrupt_lost(), memory_errors():
        code = app(arguments, prog_name="omniqa", standalone_mode=False)
    sys.stdout.flush()
    if code == INTERRUPTED:
        console.error("interrupted")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
