"""The options of a pruning method: its dataclass fields, read from `key=value` text, checked and described.

A method declares an option once, as a field with a type, a line of help and a default:

    tds: Annotated[bool, "drop with regard to time"] = True

Allowed types are bool, int, float, str, Literal of strings, and any of these `| None`.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from omniqa.errors import UsageError

_WORDS = {bool: "true|false", int: "whole number", float: "number", str: "text"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Option:
    """One option of one method, as its field declares it."""

    method: str
    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return types.NoneType in typing.get_args(self.annotation)

    @property
    def kind(self) -> Any:
        """The type without `| None`: bool, int, float, str or a Literal."""
        if not self.optional:
            return self.annotation
        return next(part for part in typing.get_args(self.annotation) if part is not types.NoneType)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed strings of a Literal; empty for any other type."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def words(self) -> str:
        """The type in words: `number`, `true|false`, `exact|paper`."""
        words = self.choices or (_WORDS[self.kind],)
        return "|".join((*words, "none") if self.optional else words)

    @property
    def default_text(self) -> str:
        """The default as a user would type it."""
        return str(self.default).lower() if self.default is None or self.kind is bool else str(self.default)

    def __str__(self) -> str:
        return f"{self.name} ({self.words}, default {self.default_text})"

    def parse(self, text: str) -> Any:
        """The value that `text` stands for; UsageError where it stands for none."""
        if self.optional and text.lower() == "none":
            return None
        try:
            value = _BOOLEANS[text.lower()] if self.kind is bool else text if self.choices else self.kind(text)
        except (KeyError, ValueError):
            raise self._refusal(text) from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """`value` itself where its type allows it; UsageError otherwise. An int will do for a float."""
        if value is None and self.optional:
            return value
        if self.choices:
            allowed = value in self.choices
        elif self.kind is float:
            allowed = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else:
            allowed = type(value) is self.kind
        if not allowed:
            raise self._refusal(value)
        return value

    def _refusal(self, value: Any) -> UsageError:
        return UsageError(f"{self.method}: {self.name}={value} is not allowed; it takes {self.words}.")


def options_of(method: type) -> tuple[Option, ...]:
    """The options of a method's class: its fields with a default, in their order."""
    hints = typing.get_type_hints(method, include_extras=True)
    return tuple(
        _option(method, field.name, hints[field.name], field.default)
        for field in dataclasses.fields(method)
        if field.default is not dataclasses.MISSING
    )


def _option(method: type, name: str, annotation: Any, default: Any) -> Option:
    help = ""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, help = typing.get_args(annotation)[:2]
    return Option(getattr(method, "name", method.__name__), name, annotation, default, help)
