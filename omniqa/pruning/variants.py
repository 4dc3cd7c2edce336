"""Methods with their options, each at one retention: what eval and bench compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniqa.errors import UsageError
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod


@dataclass(frozen=True)
class MethodVariant:
    """A method at one retention.

    name: "omnidrop 0.3", "omnidrop:tds=false 0.3"; "none" at no retention, for it knows but one.
    """

    name: str
    pruner: AnyMethod


def method_variants(
    methods: Sequence[str], retentions: Sequence[float], assignments: Sequence[str] = ()
) -> list[MethodVariant]:
    """Every method at every retention, none of them twice.

    methods: names, or a name with options of its own: "omnidrop:tds=false,curve=exp".
    assignments: `key=value` for all methods that have such an option, `METHOD.key=value` for one of them.

    Raises UsageError where a method or option is unknown or a value not allowed, or no method has an option.
    """
    split = [(name, [text for text in own.split(",") if text]) for name, _, own in (m.partition(":") for m in methods)]
    names = [name for name, _ in split]
    shared = {name: [_without_method(text) for text in assignments if _is_for(name, text)] for name in names}
    for text in assignments:
        if not any(_is_for(name, text) for name in names):
            # The error that lists what there is.
            registry.parse_options(_method(text) or names[0], [_without_method(text)])
            raise UsageError(f"--set {text}: {_method(text)} is not among the methods, {', '.join(names)}.")
    made = [_column(name, [*shared[name], *own], retention) for name, own in split for retention in retentions]
    return list({column.name: column for column in made}.values())


def _method(assignment: str) -> str:
    """The method before the dot, or nothing."""
    key = assignment.partition("=")[0]
    return key.partition(".")[0].strip() if "." in key else ""


def _without_method(assignment: str) -> str:
    return assignment.partition(".")[2] if _method(assignment) else assignment


def _is_for(name: str, assignment: str) -> bool:
    if _method(assignment):
        return _method(assignment) == name
    return assignment.partition("=")[0].strip() in {option.name for option in registry.options(name)}


def _column(name: str, assignments: list[str], retention: float) -> MethodVariant:
    options = registry.parse_options(name, assignments)
    pruner = registry.create(name, retention, **options)
    label = name + (f":{','.join(f'{key}={_text(value)}' for key, value in options.items())}" if options else "")
    return MethodVariant(label if pruner.name == "none" else f"{label} {retention:g}", pruner)


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def find(made: Sequence[MethodVariant], name: str) -> MethodVariant:
    """The column of a name, or of a method where it has but one. Raises UsageError where there is none or several."""
    found = [column for column in made if name in (column.name, column.name.split(" ")[0])]
    exact = [column for column in found if column.name == name]
    if len(exact or found) != 1:
        raise UsageError(f"--baseline {name!r} is not one of {', '.join(column.name for column in made)}.")
    return (exact or found)[0]
