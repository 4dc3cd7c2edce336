"""`omniqa nano`: clips of nano's small world, with questions and answers."""

from pathlib import Path
from typing import Annotated

import typer

from omniqa.cli import options, values
from omniqa.cli.command import Command, Group
from omniqa.cli.console import console
from omniqa.cli.loading import check_clip, load_model
from omniqa.media.sampling import ClipOptions
from omniqa.models.families import NANO

app = typer.Typer(
    cls=Group,
    name="nano",
    help="nano's small world of shapes and sounds: clips whose answers are known.",
    no_args_is_help=True,
)


@app.callback()
def nano() -> None:
    """nano's small world of shapes and sounds: clips whose answers are known."""


@app.command(cls=Command)
def make_clips(
    folder: Annotated[Path, typer.Argument(help="Where to write them; made if it is not there.", metavar="DIR")],
    n: Annotated[int, typer.Option("--n", help="How many clips.", min=1)] = 10,
    seed: Annotated[
        int, typer.Option(help="Of the first clip; the others follow. Those below 1000000 are the test set.", min=0)
    ] = 0,
    seconds: Annotated[float, typer.Option(help="Length of each clip.")] = 8.0,
    scenes: Annotated[int, typer.Option(help="Scenes in each clip.", min=1)] = 2,
    size: Annotated[int, typer.Option(help="Pixels a side, an even number.")] = 168,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write clips as mp4 files, and questions.jsonl with what to ask and the true answers.

    The path of questions.jsonl goes to stdout.
    """
    from omniqa.nano import clips
    from omniqa.nano.scenes import draw

    scripts = [draw(seed + number, seconds, scenes) for number in range(n)]
    with console.progress() as progress:
        for done, _ in enumerate(clips.make_clips(folder, scripts, size), start=1):
            progress("total", done / n)
    console.note(f"{n} clips written to {folder}")
    console.result(str(folder / clips.QUESTIONS))


@app.command(cls=Command)
def questions(
    clip: Annotated[Path, typer.Argument(help="A clip of nano's world.", autocompletion=values.complete_file)],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List questions about a clip in words that nano was trained on.

    They follow from nano's own description of the clip. Those that nano answers otherwise than it describes the clip
    are left out. They go to stdout, one a line.
    """
    from omniqa.nano.wordings import questions_for

    source = check_clip(clip, ClipOptions())
    qa = load_model(options.ModelFlags(NANO), options.CacheFlags())
    for one in questions_for(qa, source):
        if as_json:
            console.print_json({"question": one.text, "kind": one.kind})
        else:
            console.result(one.text)
