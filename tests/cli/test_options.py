"""Options that commands share mean the same everywhere."""

import inspect
from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

from omniqa.cli import options
from omniqa.cli.ask import ask
from omniqa.cli.batch import batch
from omniqa.cli.bench import bench
from omniqa.cli.eval import evaluate
from omniqa.cli.plan import plan
from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.runtime.generation_options import GenerationOptions


def test_where_nothing_is_said_the_command_line_and_the_engine_take_the_same():
    assert options.ClipRangeFlags().sampling() == options.ClipFlags().sampling() == ClipOptions()
    assert options.GenerationFlags().decoding() == GenerationOptions()


def test_a_group_says_what_the_engine_would_say_of_its_values():
    taken = options.ClipRangeFlags(fps=1.0, max_frames=8, no_audio=True, start=2.0, end=5.0, audio_track=2)
    assert taken.sampling() == ClipOptions(fps=1.0, max_frames=8, audio=False, start=2.0, end=5.0, audio_track=2)
    with pytest.raises(UsageError, match="switched off"):
        options.ClipFlags(no_audio=True, no_video=True).sampling()
    assert options.PruningFlags("random", 0.4, ["seed=3"]).pruner().target == 0.4


@pytest.mark.parametrize(
    ("command", "group"),
    [
        (ask, options.ClipRangeFlags),
        (batch, options.ClipRangeFlags),
        (bench, options.ClipRangeFlags),
        (plan, options.ClipRangeFlags),
        (evaluate, options.ClipFlags),
        (ask, options.CacheFlags),
        (plan, options.PruningFlags),
        (evaluate, options.GenerationFlags),
    ],
)
def test_a_command_takes_every_option_of_its_groups(command, group):
    assert {field.name for field in fields(group)} <= set(inspect.signature(command).parameters)


def test_a_grouped_command_gets_its_groups_whole():
    got = {}

    @options.grouped
    def command(name: str, *, written: options.GenerationFlags, loud: bool = False):
        got.update(name=name, written=written, loud=loud)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["x", "--seed", "7", "--top-p", "0.5"])
    assert result.exit_code == 0
    assert got == {"name": "x", "written": options.GenerationFlags(seed=7, top_p=0.5), "loud": False}
