"""A spinner on stderr that names the step, from before the first slow import to the first answer.

It needs rich alone. It is drawn on a terminal only, and not when quiet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omniqa import terminal
from omniqa.cli import console
from omniqa.terminal import one_line

Step = Callable[[str], None]  # gets the name of the step that begins


@contextmanager
def spinner(first: str) -> Iterator[Step]:
    """A spinner beside the name of a step, for as long as the block runs; the line is gone afterwards.

    Args:
        first: the first step's name.

    Yields:
        A function that names the next step.
    """
    if not console.is_watched():
        yield lambda step: None
        return
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    drawn = Spinner("dots", Text(one_line(first)))
    screen = terminal.rich_console(stderr=True)
    live = Live(
        drawn, console=screen, refresh_per_second=12.5, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with terminal.drawing(screen), live:
        yield lambda step: drawn.update(text=Text(one_line(step)))
