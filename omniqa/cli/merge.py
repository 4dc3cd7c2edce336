"""`omniqa merge`: the shards of a batch or an eval as one file."""

from pathlib import Path
from typing import Annotated

import typer

from omniqa.cli import options
from omniqa.cli.console import console
from omniqa.cli.words import counted
from omniqa.errors import SOME_FAILED
from omniqa.jobs import merge as shards
from omniqa.terminal import BinaryStdout


def merge(
    files: Annotated[list[Path], typer.Argument(help="The results of all shards.", metavar="FILE...")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write to FILE. Default: stdout.", metavar="FILE")
    ] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Join what `batch` or `eval` with `--shard` wrote: nothing missing, nothing twice, all with the same settings.

    Each FILE has its FILE.run.json beside it. What is not whole is refused.
    """
    checked = shards.check(list(dict.fromkeys(files)))
    if out is not None:
        shards.join(checked, out)
    else:
        shards.write(checked, BinaryStdout(), "stdout")
    lines, parts = counted(checked.lines, "line"), counted(len(checked.paths), "shard")
    console.note(f"{lines} of {parts} joined")
    if checked.failed:
        console.error(
            f"{checked.failed} of {checked.lines} questions failed; the shards' --retry-failed asks them again"
        )
        raise typer.Exit(SOME_FAILED)
