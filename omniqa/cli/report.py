"""The options that write HTML reports, and the writing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniqa.cli.progress import spinner
from omniqa.errors import UsageError
from omniqa.media.access import is_address

if TYPE_CHECKING:
    from omniqa.media.source import Source
    from omniqa.pipeline.answer import Answer
    from omniqa.report.data import Figures

ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write one HTML page that shows where the answers looked and what each layer kept.",
        metavar="FILE.html",
        envvar="OMNIQA_REPORT",
    ),
]
EmbedMedia = Annotated[
    bool,
    typer.Option("--embed-media", help="Put the clip itself into the report.", envvar="OMNIQA_EMBED_MEDIA"),
]


def check_report(file: Path | None, embed_media: bool, video: str) -> None:
    """Refuse what can be refused before the model is loaded.

    Raises:
        UsageError: no report can be written there, or the clip can't be embedded.
    """
    if file is None:
        if embed_media:
            raise UsageError("--embed-media is for a report: give its file with --report.")
        return
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report writes FILE.html, not {file.name}.")
    if not file.parent.is_dir():
        raise UsageError(f"--report: there is no folder {file.parent}.")
    if embed_media and is_address(video):
        raise UsageError("--embed-media needs a file, not an address. Download it first.")


def write_report(
    file: Path,
    answers: Sequence["Answer"],
    source: "Source",
    embed_media: bool,
    figures: Sequence["Figures"] | None = None,
) -> None:
    """Write the answers' report to `file`.

    Raises:
        UsageError: it can't be written.
        OmniqaError: as `omniqa.report.render` does.
    """
    with spinner("writing the report"):
        from omniqa.report import save_report

        try:
            save_report(file, answers, source, figures=figures, embed_media=embed_media)
        except OSError as error:
            raise UsageError(f"--report: {file} can't be written ({error.strerror}).") from error
