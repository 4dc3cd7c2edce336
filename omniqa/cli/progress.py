"""A spinner on stderr that names the step, from before the first slow import to the first answer.

It needs rich alone. It is drawn on a terminal only, and not when quiet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omniqa.cli import console

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
    from rich.console import Console
    from rich.text import Text

    terminal = Console(stderr=True, highlight=False, markup=False)
    with terminal.status(Text(first)) as status:
        yield lambda step: status.update(Text(step))
