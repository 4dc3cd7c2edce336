"""A spinner on stderr that names the step, from before the first slow import to the first answer.

It needs rich alone. It is drawn on a terminal only, and not when quiet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omniqa import terminal
from omniqa.cli.console import console
from omniqa.media.download import OnBytes, unheard
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
    with terminal.drawing(screen):
        try:  # around the start, too: an interrupt may come just after it has hidden the cursor
            live.start(refresh=True)
            yield lambda step: drawn.update(text=Text(one_line(step)))
        finally:
            live.stop()


@contextmanager
def download_bar(name: str) -> Iterator[OnBytes]:
    """A bar that shows how much of `name` has been copied; it appears with the first bytes."""
    if not console.is_watched():
        yield unheard
        return
    from rich import progress as rich
    from rich.markup import escape

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn(), rich.TimeElapsedColumn())
    screen = terminal.rich_console(stderr=True)
    bar = rich.Progress(*columns, console=screen, transient=True)
    task = bar.add_task(f"downloading {escape(one_line(name))}", total=None)

    def show(done: int, total: int | None) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    with terminal.drawing(screen):
        try:
            yield show
        finally:
            bar.stop()
