"""What is measured, and how often: methods × retentions. Free of torch, so that arguments are checked at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from omniqa.errors import UsageError
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.variants import method_variants

FULL = "none"  # what all others are compared with
RETENTIONS = (0.5, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Rounds:
    """How often every case is run.

    Attributes:
        repeats: rounds that count.
        warmup: rounds before them that don't.
        new_tokens: generated in each run.

    Raises:
        UsageError: a number is out of range.
    """

    repeats: int = 5
    warmup: int = 1
    new_tokens: int = 32

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("warmup", 0), ("new_tokens", 1)):
            if (value := getattr(self, name)) < least:
                raise UsageError(f"{name} must be at least {least}, not {value}.", field=name)


@dataclass(frozen=True)
class Case:
    """A method at one retention.

    Attributes:
        required: it was asked for by name, so that its failure is an error; otherwise it is left out, with the reason.
    """

    pruner: AnyMethod
    required: bool


def make_cases(
    methods: Sequence[str | AnyMethod] = (), retentions: Sequence[float] = (), settings: Sequence[str] = ()
) -> tuple[Case, ...]:
    """Full tokens first, then method by method each retention, none of them twice.

    Args:
        methods: empty for every registered one.
        retentions: empty for RETENTIONS.
        settings: options. Methods and options are written as for `omniqa eval`, see pruning.variants, whose UsageErrors
            this raises.
    """
    made = method_variants([FULL, *(methods or registry.names())], retentions or RETENTIONS, settings)
    return tuple(Case(column.pruner, bool(methods) or column.pruner.name == FULL) for column in made)
