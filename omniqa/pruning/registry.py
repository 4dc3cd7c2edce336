"""The methods by name. A method is found because its module lies in this package: there is no list to edit.

Method modules import torch inside their functions only, so nothing here does either. A module that defines no method
is a tool of theirs.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import omniqa.pruning
from omniqa.errors import UsageError
from omniqa.pruning.base import AnyPruner, Pruner
from omniqa.pruning.options import Option, options_of

_TENSOR_TOOLS = frozenset({"anchors", "audio_selector", "selection"})  # import torch at their top, and are no method


def methods() -> dict[str, type[AnyPruner]]:
    """Every method's class by its name, in alphabetical order of their modules."""
    names = sorted(
        info.name for info in pkgutil.iter_modules(omniqa.pruning.__path__) if info.name not in _TENSOR_TOOLS
    )
    modules = [importlib.import_module(f"omniqa.pruning.{name}") for name in names]
    classes = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Pruner) and value.__module__ == module.__name__
    ]
    return {method.name: method for method in classes if "name" in vars(method)}


def get(name: str) -> type[AnyPruner]:
    """The class of the method called `name`; UsageError, with the known names, where there is none."""
    known = methods()
    if name not in known:
        raise UsageError(f"There is no pruning method {name!r}; the methods are {', '.join(known)}.")
    return known[name]


def options(name: str) -> tuple[Option, ...]:
    """The options of the method called `name`, each with type, default and a line of help."""
    return options_of(get(name))


def create(name: str, retention: float, **options: Any) -> AnyPruner:
    """The method called `name` at `retention`, with options by their field names.

    Raises UsageError where the method or an option is unknown, or a value is not allowed.
    """
    method = get(name)
    for key in options:
        _find(name, key)
    return method(retention, **options)


def parse_options(name: str, assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as keyword arguments for `create`, read by the options' types; the last of a key wins.

    Raises UsageError where a text is no `key=value`, or method, option or value is unknown.
    """
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"{assignment!r} is no option of {name}; write it as key=value. {_known(name)}")
        values[key.strip()] = _find(name, key.strip()).parse(text.strip())
    return values


def _find(name: str, key: str) -> Option:
    for option in options(name):
        if option.name == key:
            return option
    raise UsageError(f"{name} has no option {key!r}. {_known(name)}")


def _known(name: str) -> str:
    known = ", ".join(str(option) for option in options(name))
    return f"Its options are {known}." if known else "It has no options."
