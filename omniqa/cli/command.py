"""How commands look in their help: values by words, and examples at the end."""

from pathlib import Path
from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup

_WORDS: dict[Any, str] = {int: "NUMBER", float: "NUMBER", Path: "FILE", str: "TEXT"}

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "omniqa": (
        'omniqa ask sample_media/hello.mp4 "What does the voice say?" --model nano',
        'omniqa batch sample_media "What happens, in order?" --model nano -o answers.jsonl',
        "omniqa methods",
    ),
    "ask": (
        'omniqa ask sample_media/hello.mp4 "What does the voice say?" --model nano',
        'omniqa ask sample_media/tiger.mp4 "What happens, in order?" --model nano --retention 30%',
        'omniqa ask sample_media/river.mp4 "What happens, in order?" --model nano --end 0:02 -v',
    ),
    "chat": (
        "omniqa chat sample_media/tiger.mp4 --model nano",
        "omniqa chat sample_media/river.mp4 --model nano --method none",
        "omniqa chat sample_media/hello.mp4 --model nano --json > answers.jsonl",
    ),
    "serve": (
        "omniqa serve --model nano --media-root sample_media",
        "omniqa serve --model nano --port 8080 --retention 20% --cache ~/.cache/clips",
        "OMNIQA_API_KEY=secret omniqa serve --model nano --host 0.0.0.0",
    ),
    "batch": (
        'omniqa batch sample_media "What happens, in order?" --model nano -o answers.jsonl',
        'omniqa batch sample_media/hello.mp4 "What does the voice say?" -Q "What happens, in order?" --model nano',
        'omniqa batch sample_media "What happens, in order?" --model nano --format csv --end 2s',
    ),
    "merge": (
        "omniqa merge part-1.jsonl part-2.jsonl -o all.jsonl",
        "omniqa merge part-*.jsonl > all.jsonl",
        "omniqa merge -q part-1.csv part-2.csv -o all.csv",
    ),
    "bench": (
        'omniqa bench sample_media/hello.mp4 "What does the voice say?" --model nano --repeats 1',
        'omniqa bench sample_media/hello.mp4 "What does the voice say?" --model nano --method fastv',
        'omniqa bench sample_media/hello.mp4 "What does the voice say?" --model nano --retention 30%',
    ),
    "eval": (
        "omniqa eval nano --model nano --clips 2 --method none --method omnidrop",
        "omniqa eval nano --model nano --clips 2 --method omnidrop:tds=false",
        "omniqa eval set.jsonl --media clips --retention 30% -o results",
    ),
    "plan": (
        "omniqa plan",
        "omniqa plan sample_media/hello.mp4 --model nano --retention 20%",
        "omniqa plan --seconds 600 --method omnidrop:tds=false --json",
    ),
    "methods": ("omniqa methods", "omniqa methods omnidrop", "omniqa methods --json"),
    "doctor": ("omniqa doctor", "omniqa doctor --json", "omniqa doctor > machine.txt"),
    "cache": (
        "omniqa cache ls --cache ~/.cache/clips",
        "omniqa cache ls --cache ~/.cache/clips --json",
        "omniqa cache clear --cache ~/.cache/clips",
    ),
    "ls": (
        "omniqa cache ls --cache ~/.cache/clips",
        "omniqa cache ls --cache ~/.cache/clips --json",
        "OMNIQA_CACHE=~/.cache/clips omniqa cache ls",
    ),
    "clear": (
        "omniqa cache clear --cache ~/.cache/clips",
        "omniqa cache clear --cache ./clips --debug",
        "OMNIQA_CACHE=~/.cache/clips omniqa cache clear",
    ),
    "nano": (
        "omniqa nano make-clips new-clips --n 2",
        "omniqa nano make-clips new-clips --n 2 --seconds 4 --scenes 1",
        "omniqa nano questions sample_media/hello.mp4",
    ),
    "questions": (
        "omniqa nano questions sample_media/hello.mp4",
        "omniqa nano questions sample_media/tiger.mp4 --json",
        "omniqa nano questions -q sample_media/river.mp4 > questions.txt",
    ),
    "make-clips": (
        "omniqa nano make-clips new-clips --n 2",
        "omniqa nano make-clips new-clips --n 2 --seconds 4 --scenes 1",
        "omniqa nano make-clips new-clips --n 2 --seed 7",
    ),
}


def word(param: Any) -> str:
    """The word that names a value in the help, not Python's type; empty for a switch."""
    if param.metavar is not None:
        return str(param.metavar)
    if param.param_type_name == "argument":
        return str(param.name).upper()
    annotation = param.type_descriptor.annotation
    takes = (annotation, *get_args(annotation))
    return "" if param.is_flag else next((text for kind, text in _WORDS.items() if kind in takes), "TEXT")


def examples_of(command: Any) -> tuple[str, ...]:
    """Three examples of a command; none where there are none."""
    return EXAMPLES.get(command.name or "", ())


class _Worded:
    """A command whose help has words for values and ends in examples."""

    def get_params(self, context: Any) -> list[Any]:
        """All parameters, the help's own among them, each with its word."""
        params: list[Any] = super().get_params(context)  # type: ignore[misc]
        for param in params:
            param.metavar = word(param)
            if param.param_type_name == "argument":  # its name says what it is
                param.display_type_rich = lambda ctx: None
        return params

    def format_help(self, context: Any, formatter: Any) -> None:
        """Write the help."""
        lines = [f"  {line}" for line in examples_of(self)]
        self.epilog = "\n\n".join(["Examples:", *lines]) if lines else None
        super().format_help(context, formatter)  # type: ignore[misc]


class Command(_Worded, TyperCommand):
    """A command of omniqa's."""


class Group(_Worded, TyperGroup):
    """A command with commands below it."""
