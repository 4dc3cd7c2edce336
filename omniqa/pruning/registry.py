"""The methods by name. No list is edited.

A method is found in one of three places:

- `methods/`, where its file or folder lies;
- an installed package, whose entry point in the group `omniqa.methods` names its class;
- a user's own file, as `FILE.py:Class`.

Methods import torch inside their functions only, so nothing here imports it either.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from omniqa.errors import UsageError, first_line
from omniqa.pruning import methods as package
from omniqa.pruning.contract import AnyMethod
from omniqa.pruning.options import Option, options_of
from omniqa.pruning.user_file import check_class, is_file_spec, is_method, load_from_file

GROUP = "omniqa.methods"  # of entry points


def names() -> tuple[str, ...]:
    """Every method's name: the package's own by their modules, then installed ones, which are not loaded for this."""
    return (*own_methods(), *sorted(_entry_points().keys() - own_methods().keys()))


def methods() -> dict[str, type[AnyMethod]]:
    """Every method's class by its name, in the order of `names`. Raises UsageError as `get` does."""
    return {name: get(name) for name in names()}


def own_methods() -> dict[str, type[AnyMethod]]:
    """The package's own methods by name, in alphabetical order of their modules."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    classes = [value for module in modules for value in vars(module).values() if _is_of(value, module.__name__)]
    return {method.name: method for method in classes}


def _is_of(value: object, module: str) -> bool:
    """Whether `value` is a method that was made in `module` or, for a folder, below it."""
    return is_method(value) and f"{value.__module__}.".startswith(f"{module}.")


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def get(name: str) -> type[AnyMethod]:
    """The class of the method called `name`, or of `FILE.py:Class`.

    Raises:
        UsageError: no method is called so; a file or package holds none; or its name is one of omniqa's own.
    """
    own = own_methods()
    if is_file_spec(name):
        return _not_taken(load_from_file(name), own, name)
    installed = _entry_points().get(name)
    if installed is not None:
        return _not_taken(_load(installed), own, installed.value)
    if name not in own:
        raise UsageError(
            f"There is no pruning method {name!r}; the methods are {', '.join(names())}. "
            "A method of your own is written FILE.py:Class."
        )
    return own[name]


def _not_taken(method: type[AnyMethod], own: dict[str, type[AnyMethod]], where: str) -> type[AnyMethod]:
    if method.name in own:
        raise UsageError(f"{where} is called {method.name!r}, as a method of omniqa's own. Give it another name.")
    return method


def _load(point: EntryPoint) -> type[AnyMethod]:
    where = f"The method {point.name} ({point.value})"
    try:
        found = point.load()
    except Exception as error:
        raise UsageError(f"{where} can't be imported ({type(error).__name__}: {first_line(error)}).") from error
    method = check_class(found, where)
    if method.name != point.name:
        raise UsageError(f"{where} calls itself {method.name!r}; its entry point must have that name.")
    return method


def options(name: str) -> tuple[Option, ...]:
    """The options of the method called `name`, each with type, default and a line of help."""
    return options_of(get(name))


def create(name: str, retention: float, **options: Any) -> AnyMethod:
    """The method called `name` at `retention`, with options by their field names.

    Raises:
        UsageError: the method or an option is unknown, or a value is not allowed.
    """
    method = get(name)
    for key in options:
        _find(name, key)
    return method(retention, **options)


def resolve(
    method: str | AnyMethod, retention: float | None = None, options: dict[str, Any] | None = None
) -> AnyMethod:
    """A method by name, at 0.3 unless `retention` says otherwise; or `method` itself if it is an instance.

    Raises:
        UsageError: as `create`; an instance is given together with a retention or options.
    """
    if isinstance(method, str):
        return create(method, 0.3 if retention is None else retention, **options or {})
    if retention is not None or options:
        raise UsageError("The method is an instance already: its retention and options are its own.")
    return method


def parse_options(name: str, assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as keyword arguments for `create`, read by the options' types; the last of a key wins.

    Raises:
        UsageError: a text is no `key=value`, or method, option or value is unknown.
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
