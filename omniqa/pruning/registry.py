"""The methods by name. A method is found because its file or folder lies in `methods/`: there is no list to edit.

Methods import torch inside their functions only, so nothing here imports it either.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from omniqa.errors import UsageError
from omniqa.pruning import methods as package
from omniqa.pruning.contract import AnyMethod, Method
from omniqa.pruning.options import Option, options_of


def methods() -> dict[str, type[AnyMethod]]:
    """Every method's class by its name, in alphabetical order of their modules."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    classes = [value for module in modules for value in vars(module).values() if _is_of(value, module.__name__)]
    return {method.name: method for method in classes}


def _is_of(value: object, module: str) -> bool:
    """Whether `value` is a method that was made in `module` or, for a folder, below it."""
    if not (isinstance(value, type) and issubclass(value, Method) and "name" in vars(value)):
        return False
    return value.__module__ == module or value.__module__.startswith(f"{module}.")


def get(name: str) -> type[AnyMethod]:
    """The class of the method called `name`; UsageError, with the known names, where there is none."""
    known = methods()
    if name not in known:
        raise UsageError(f"There is no pruning method {name!r}; the methods are {', '.join(known)}.")
    return known[name]


def options(name: str) -> tuple[Option, ...]:
    """The options of the method called `name`, each with type, default and a line of help."""
    return options_of(get(name))


def create(name: str, retention: float, **options: Any) -> AnyMethod:
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
