"""Methods from outside the package: a class in a user's own file, `FILE.py:Class`."""

import copyreg
import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

from omniqa.errors import UsageError, first_line
from omniqa.pruning.contract import AnyMethod, Method
from omniqa.pruning.options import options_of

_SPEC = re.compile(r"(?P<file>.+\.py):(?P<name>[^:]+)")
_MODULE = "omniqa_method_"  # what such a file's module is called, before its digest
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def is_file_spec(text: str) -> bool:
    """Whether `text` names a class in a file: `./mine.py:MyMethod`."""
    return _SPEC.fullmatch(text) is not None


def split_spec(text: str) -> tuple[str, str]:
    """A method and the options written behind it: `NAME:key=value,…` or `FILE.py:Class:key=value,…`."""
    in_file = re.match(r"(.+?\.py:[^:]*)(?::(.*))?$", text)
    if in_file is not None:
        return in_file[1], in_file[2] or ""
    name, _, options = text.partition(":")
    return name, options


def load_from_file(spec: str) -> type[AnyMethod]:
    """The class that `FILE.py:Class` names. The file is run, once as long as it stays the same.

    Raises:
        UsageError: the file can't be read or run, has no such class, or the class is no method.
    """
    found = _SPEC.fullmatch(spec)
    assert found is not None
    path = Path(found["file"]).expanduser()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The method file {path} can't be read ({error.strerror}).") from error
    return _load(path.resolve(), hashlib.sha256(source).hexdigest(), found["name"])


@lru_cache(maxsize=64)
def _load(path: Path, digest: str, name: str) -> type[AnyMethod]:
    module = f"{_MODULE}{digest}"
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        try:
            spec.loader.exec_module(sys.modules[module])
        except (Exception, SystemExit) as error:
            del sys.modules[module]
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"The method file {path} fails{_line(error, path)} ({reason}).") from error
    there = vars(sys.modules[module])
    if name not in there:
        classes = [key for key, value in there.items() if is_method(value) and value.__module__ == module]
        others = f"it has {', '.join(classes)}" if classes else "it has no method at all"
        raise UsageError(f"{path} has no class {name}; {others}.")
    method = check_class(there[name], f"{path}:{name}")
    # Another process has no such module: it runs the file again.
    copyreg.pickle(method, lambda one: (_restore, (f"{path}:{name}", dataclasses.asdict(one))))
    return method


def _line(error: BaseException, path: Path) -> str:
    """Where in the file an error arose, in words; nothing if it can't be told."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [None])[-1]
    return "" if line is None else f" in line {line}"


def _restore(spec: str, values: dict[str, Any]) -> AnyMethod:
    return load_from_file(spec)(**values)


def is_method(value: object) -> bool:
    """Whether `value` is a class of methods that names itself."""
    return isinstance(value, type) and issubclass(value, Method) and "name" in vars(value)


def check_class(value: object, where: str) -> type[AnyMethod]:
    """`value` if it is a whole method.

    Raises:
        UsageError: it is not; the message says what `where` lacks.
    """
    if not (isinstance(value, type) and issubclass(value, Method)):
        raise UsageError(f"{where} is no pruning method: it is not a class derived from omniqa.pruning.Method.")
    if not dataclasses.is_dataclass(value) or "__dataclass_params__" not in vars(value):
        raise UsageError(f"{where} is not decorated with @dataclass(frozen=True), so that its options can't be read.")
    for text in ("name", "paper", "summary"):
        if not isinstance(getattr(value, text, None), str):
            raise UsageError(f"{where} has no {text}; set it as a text in the class.")
    if not _NAME.fullmatch(value.name):
        raise UsageError(f"{where}: {value.name!r} is no name for a method; use lower-case letters, digits, _ and -.")
    if inspect.isabstract(value):
        raise UsageError(f"{where} lacks {', '.join(sorted(value.__abstractmethods__))}.")
    try:
        for option in options_of(value):
            str(option)
            option.check(option.default)
    except (KeyError, NameError, TypeError) as error:
        raise UsageError(
            f"{where} has an option whose type can't be read; use bool, int, float, str or a Literal of texts."
        ) from error
    return value


def fingerprint(method: AnyMethod) -> str | None:
    """What tells a method from another of its name: the digest of the user's file it comes from; None elsewhere."""
    module = type(method).__module__
    return module.removeprefix(_MODULE) if module.startswith(_MODULE) else None
