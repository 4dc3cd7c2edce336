"""Errors speak Python in the library and flags on the command line."""

import pickle

import pytest

from omniqa import ClipOptions, GenerationOptions
from omniqa.bench.cases import Rounds
from omniqa.cli.app import run
from omniqa.cli.flags import describe
from omniqa.errors import MediaError, OmniqaError, OutOfMemoryError, UsageError
from omniqa.media.probe import probe
from omniqa.pruning.budget import Unreachable
from omniqa.pruning.variants import method_variants


def refused(make, *given, **named):
    with pytest.raises(OmniqaError) as raised:
        make(*given, **named)
    return raised.value


BOTH = [
    (
        lambda: GenerationOptions(max_new_tokens=0),
        "max_new_tokens must be at least 1, not 0.",
        "--max-new-tokens must be at least 1, not 0.",
    ),
    (
        lambda: GenerationOptions(top_p=2.0),
        "top_p must be above 0 and at most 1, not 2.0.",
        "--top-p must be above 0 and at most 1, not 2.0.",
    ),
    (
        lambda: Rounds(new_tokens=0),
        "new_tokens must be at least 1, not 0.",
        "--max-new-tokens must be at least 1, not 0.",
    ),
    (
        lambda: probe("https://example.org/a.mp4"),
        "https://example.org/a.mp4 is an address. omniqa opens it only with allow_network=True.",
        "https://example.org/a.mp4 is an address. omniqa opens it only with --allow-network.",
    ),
    (
        lambda: method_variants(["none"], [1.0], ["random.seed=3"]),
        "assignments random.seed=3: random is not among the methods, none.",
        "--set random.seed=3: random is not among the methods, none.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "library", "line"), BOTH)
def test_the_library_names_what_python_calls_it_and_the_command_line_its_flag(make, library, line):
    error = refused(make)
    assert error.field is not None
    assert (str(error), describe(error)) == (library, line)


@pytest.mark.parametrize(
    ("advice", "library", "line"),
    [
        ("Set {max_frames}.", "Set max_frames.", "Set --max-frames."),
        ('Use {device="cpu"}.', 'Use device="cpu".', "Use --device cpu."),
        ("Give {audio=False}.", "Give audio=False.", "Give --no-audio."),
        ("Give {append=True}.", "Give append=True.", "Give --append."),
        (
            'Use {model="a/b"} {dtype="float32"}.',
            'Use model="a/b" dtype="float32".',
            "Use --model a/b --dtype float32.",
        ),
        ("Set {layout} or {folder}.", "Set layout or folder.", "Set --format or --media."),
    ],
)
def test_advice_names_options_in_braces(advice, library, line):
    error = UsageError("It fails.", advice=advice)
    assert (str(error), describe(error)) == (f"It fails. {library}", f"It fails. {line}")


@pytest.mark.parametrize("path", ["{max_frames}.mp4", '{device="cpu"}', "end.mp4", "{}", "{0}"])
def test_what_a_user_wrote_is_never_taken_for_an_option(path):
    error = MediaError(f"{path} was not found.", field="end", advice="Set {end}.")
    assert str(error) == f"{path} was not found. Set end."
    assert describe(error) == f"{path} was not found. Set --end."


@pytest.mark.parametrize(
    "error",
    [
        UsageError("It fails.", field="fps", advice="Set {fps}."),
        OutOfMemoryError("Too little.", advice='Use {device="cpu"}.'),
        Unreachable("dash", 0.1, 0.25, 0.25),
    ],
)
def test_errors_cross_processes_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.field, again.advice) == (str(error), error.field, error.advice)
    assert describe(again) == describe(error)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["--max-new-tokens", "0"], "omniqa: --max-new-tokens must be at least 1, not 0."),
        (["--temperature", "-1"], "omniqa: --temperature must not be negative, as -1.0 is."),
    ],
)
def test_a_command_says_the_flag_in_its_one_line(command, line, capsys):
    assert run(["ask", "clip.mp4", "What?", "--model", "nano", *command]) == UsageError.exit_code
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_field_is_an_option_of_the_library():
    for options, field in ((ClipOptions, "max_frames"), (ClipOptions, "fps"), (GenerationOptions, "max_new_tokens")):
        assert refused(options, **{field: 0}).field == field
