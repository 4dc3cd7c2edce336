"""`omniqa cache`: what is kept in a cache folder of encoded clips."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from omniqa.cache.folder import GIGABYTES, CacheFolder, Entry
from omniqa.cli import console, options, tables
from omniqa.cli.command import Command, Group
from omniqa.errors import UsageError

app = typer.Typer(
    cls=Group, name="cache", help="Show or empty a folder of encoded clips, as --cache makes one.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Option("--cache", help="The folder.", metavar="DIR", envvar="OMNIQA_CACHE")]


@app.command("ls", cls=Command)
def show(folder: Folder, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List the clips that are kept, the most recently used first."""
    entries = _opened(folder).entries()
    if as_json:
        console.print_json({"bytes": sum(entry.bytes for entry in entries), "clips": list(map(_as_dict, entries))})
        return
    rows = [
        (
            str(entry.about.get("name", "damaged")),
            f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}",
            f"{entry.bytes / 1e6:.1f}",
        )
        for entry in entries
    ]
    console.results(("clip", tables.name("last used", rank=1), ">MB"), rows)
    console.result(_counted(entries))


@app.command(cls=Command)
def clear(folder: Folder, debug: options.Debug = False) -> None:
    """Delete the clips that are kept. Other files in the folder stay."""
    console.result(f"{_counted(_opened(folder).clear())} deleted")


def _opened(folder: Path) -> CacheFolder:
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    return CacheFolder(folder, round(GIGABYTES * 10**9))


def _as_dict(entry: Entry) -> dict[str, object]:
    return {"file": str(entry.path), "name": entry.about.get("name"), "bytes": entry.bytes, "used": entry.used}


def _counted(entries: list[Entry]) -> str:
    return f"{console.counted(len(entries), 'clip')}, {sum(entry.bytes for entry in entries) / 1e9:.3f} GB"
