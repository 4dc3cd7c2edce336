"""Fields of a dataset's record, checked as they are read."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omniqa import strict_json
from omniqa.errors import UsageError
from omniqa.eval.questions import LETTERS

_LETTERED = re.compile(r"\s*[(\[]?([A-Za-z])[.):\]]\s*")


@dataclass(frozen=True)
class Record:
    """An object of a dataset's file.

    where: what messages call it: "worldsense_qa.json, question 3".

    Reading a field that is not there, or is of no use, raises UsageError.
    """

    where: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text or number that must be there."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise UsageError(f"{self.where}: {name!r} must be a text, not {value!r:.200}.")
        return str(value).strip()

    def groups(self, names: Mapping[str, str]) -> dict[str, str]:
        """Fields to count by; names: field by the name it is counted under. What is not there is left out."""
        return {name: self.text(field) for name, field in names.items() if self.fields.get(field) not in (None, "")}

    def choices(self, name: str) -> tuple[str, ...]:
        """The options of a field, without letters: a list, an object by letter, or either of them written as text."""
        value = self.fields.get(name)
        value = _read(value) if isinstance(value, str) else value
        if isinstance(value, Mapping):
            value = [value[letter] for letter in sorted(value)]
        if not isinstance(value, list | tuple) or not 2 <= len(value) <= len(LETTERS):
            raise UsageError(
                f"{self.where}: {name!r} must be a list of 2 to {len(LETTERS)} options, not {value!r:.200}."
            )
        return without_letters([str(option).strip() for option in value])

    def letter(self, name: str, options: tuple[str, ...]) -> str:
        """The right option's letter, from a field that holds the letter, alone or in front, or the option's text."""
        said = self.text(name)
        letters = LETTERS[: len(options)]
        lettered = _LETTERED.match(f"{said}." if len(said) == 1 else said)
        # A text of one letter is the letter, also where options are letters themselves.
        if options.count(said) == 1 and (len(said) > 1 or said.upper() not in letters):
            return letters[options.index(said)]
        if lettered and lettered[1].upper() in letters:
            return lettered[1].upper()
        raise UsageError(f"{self.where}: {name!r} must be one of {', '.join(letters)} or an option, not {said!r:.200}.")


def without_letters(options: list[str]) -> tuple[str, ...]:
    """Options without the letters in front of them ("A. star", "B.moon"); as they are where not all have their own."""
    matches = [_LETTERED.match(option) for option in options]
    if all(match and match[1].upper() == letter for match, letter in zip(matches, LETTERS, strict=False)):
        return tuple(option[match.end() :] for option, match in zip(options, matches, strict=True) if match)
    return tuple(options)


def _read(text: str) -> Any:
    """A list that was written into a cell of a table, as JSON or as Python writes it."""
    for parse in (strict_json.parse, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # all of them: too deep for Python's parser
            continue
    return text
