"""Methods with their options, each at one retention: what eval and bench compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniqa.errors import UsageError
from omniqa.pruning import registry
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.options import options_of
from omniqa.pruning.user_file import fingerprint, split_spec


@dataclass(frozen=True)
class MethodVariant:
    """A method at one retention.

    Attributes:
        name: "omnidrop 0.3", "omnidrop:tds=false 0.3"; "none" at no retention, for it knows but one.
    """

    name: str
    pruner: AnyMethod


def method_variants(
    methods: Sequence[str | AnyMethod], retentions: Sequence[float], assignments: Sequence[str] = ()
) -> list[MethodVariant]:
    """Every method at every retention, none of them twice.

    methods: names, or a name with options of its own: "omnidrop:tds=false,curve=exp". FILE.py:Class counts as a name.
        An instance stands for itself, at its own retention.
    assignments: `key=value` for all methods that have such an option, `METHOD.key=value` for one of them.

    Raises:
        UsageError: a method or option is unknown or a value not allowed, or no method has an option.
    """
    split = [_split(method) for method in methods if isinstance(method, str)]
    names = [name for name, _ in split]
    shared = {name: [_without_method(text) for text in assignments if _is_for(name, text)] for name in names}
    for text in assignments:
        if not any(_is_for(name, text) for name in names):
            # The error that lists what there is.
            registry.parse_options(_method(text) or (names or ["none"])[0], [_without_method(text)])
            raise UsageError(
                f"assignments {text}: {_method(text)} is not among the methods, {', '.join(names)}.",
                field="assignments",
            )
    made = []
    for method in methods:
        if isinstance(method, str):
            name, own = _split(method)
            made += [_variant(name, [*shared[name], *own], retention) for retention in retentions]
        else:
            made.append(_named(method, _changed(method)))
    found: dict[str, MethodVariant] = {}
    for variant in made:
        if type(found.setdefault(variant.name, variant).pruner) is not type(variant.pruner):
            raise UsageError(f"Two different methods are called {variant.name}. Give one of them another name.")
    return list(found.values())


def _split(method: str) -> tuple[str, list[str]]:
    name, own = split_spec(method)
    return name, [text for text in own.split(",") if text]


def method_files(made: Sequence[MethodVariant]) -> dict[str, dict[str, str]]:
    """What tells users' own methods from others of their names, as a setting of a run; empty without any."""
    digests = {one.name: digest for one in made if (digest := fingerprint(one.pruner))}
    return {"method_files": digests} if digests else {}


def _method(assignment: str) -> str:
    """The method before the dot, or nothing."""
    key = assignment.partition("=")[0]
    return key.partition(".")[0].strip() if "." in key else ""


def _without_method(assignment: str) -> str:
    return assignment.partition(".")[2] if _method(assignment) else assignment


def _is_for(name: str, assignment: str) -> bool:
    if _method(assignment):
        return _method(assignment) == registry.get(name).name
    return assignment.partition("=")[0].strip() in {option.name for option in registry.options(name)}


def _variant(name: str, assignments: list[str], retention: float) -> MethodVariant:
    options = registry.parse_options(name, assignments)
    return _named(registry.create(name, retention, **options), options)


def _named(method: AnyMethod, options: dict[str, Any]) -> MethodVariant:
    label = method.name
    if options:
        label += f":{','.join(f'{key}={_text(value)}' for key, value in options.items())}"
    return MethodVariant(label if method.name == "none" else f"{label} {method.retention:g}", method)


def _changed(method: AnyMethod) -> dict[str, Any]:
    """An instance's options that are not at their defaults."""
    options = options_of(type(method))
    return {one.name: value for one in options if (value := getattr(method, one.name)) != one.default}


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def find(made: Sequence[MethodVariant], baseline: str) -> MethodVariant:
    """The column of a name, or of a method where it has but one.

    Raises:
        UsageError: there is none or several.
    """
    found = [column for column in made if baseline in (column.name, column.name.split(" ")[0])]
    exact = [column for column in found if column.name == baseline]
    if len(exact or found) != 1:
        raise UsageError(
            f"baseline {baseline!r} is not one of {', '.join(column.name for column in made)}.", field="baseline"
        )
    return (exact or found)[0]
