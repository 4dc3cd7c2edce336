"""`omniqa cache`: what is kept in a folder of encoded clips or of quantised weights."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from omniqa.cache.folder import GIGABYTES, CacheFolder, Entry
from omniqa.cache.weights_file import weights_folder
from omniqa.cli import options, tables
from omniqa.cli.command import Command, Group
from omniqa.cli.console import console
from omniqa.cli.words import counted
from omniqa.errors import UsageError

app = typer.Typer(
    cls=Group,
    name="cache",
    help="Show or empty a folder of encoded clips, as --cache makes one, or of quantised weights.",
    no_args_is_help=True,
)

Folder = Annotated[Path | None, typer.Option("--cache", help="The folder.", metavar="DIR", envvar="OMNIQA_CACHE")]
Weights = Annotated[
    bool, typer.Option("--weights", help="The quantised weights that --quantize has kept, in place of clips.")
]


@app.command("ls", cls=Command)
def show(
    folder: Folder = None,
    weights: Weights = False,
    weights_cache: options.WeightsFolder = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the clips that are kept, the most recently used first; with --weights, the models."""
    noun = _noun(weights)
    entries = _opened(folder, weights, weights_cache).entries()
    if as_json:
        listed = list(map(_as_dict, entries))
        console.print_json({"bytes": sum(entry.bytes for entry in entries), "models" if weights else "clips": listed})
        return
    rows = [
        (
            str(entry.about.get("name", "damaged")),
            f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}",
            f"{entry.bytes / 1e6:.1f}",
        )
        for entry in entries
    ]
    console.results((noun, tables.name("last used", rank=1), ">MB"), rows)
    console.result(_counted(entries, noun))


@app.command(cls=Command)
def clear(
    folder: Folder = None,
    weights: Weights = False,
    weights_cache: options.WeightsFolder = None,
    debug: options.Debug = False,
) -> None:
    """Delete the clips that are kept, or with --weights the weights. Other files in the folder stay."""
    deleted = _opened(folder, weights, weights_cache).clear()
    console.result(f"{_counted(deleted, _noun(weights))} deleted")


def _opened(folder: Path | None, weights: bool, weights_cache: Path | None) -> CacheFolder:
    """The folder that is asked for.

    Raises:
        UsageError: there is none, or none was named.
    """
    if weights:
        return weights_folder(weights_cache)  # nothing has been kept if it is not there
    if folder is None:
        raise UsageError("No folder of clips is named.", field="cache", advice="Name it by {cache}, or use {weights}.")
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    return CacheFolder(folder, round(GIGABYTES * 10**9))


def _noun(weights: bool) -> str:
    return "model" if weights else "clip"


def _as_dict(entry: Entry) -> dict[str, object]:
    return {"file": str(entry.path), "name": entry.about.get("name"), "bytes": entry.bytes, "used": entry.used}


def _counted(entries: list[Entry], noun: str) -> str:
    return f"{counted(len(entries), noun)}, {sum(entry.bytes for entry in entries) / 1e9:.3f} GB"
