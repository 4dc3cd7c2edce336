"""Fields of a dataset's record, checked as they are read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omniqa.errors import UsageError
from omniqa.eval import options as forms
from omniqa.eval.options import Options
from omniqa.eval.questions import LETTERS
from omniqa.media.access import CLIP_SECONDS

_LETTER = re.compile(r"\s*[(\[]?([A-Za-z])(?:[.):\]]|\s*$)\s*")


def _is_span(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    if not all(isinstance(time, int | float) and not isinstance(time, bool) for time in value):
        return False
    return 0 <= value[0] < value[1] <= CLIP_SECONDS


@dataclass(frozen=True)
class Record:
    """An object of a dataset's file.

    Reading a field that is not there, or is of no use, raises UsageError.

    Attributes:
        where: what messages call it: "worldsense_qa.json, question 3".
    """

    where: str
    fields: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """A text or number that must be there, in the first of these fields that the record has."""
        name = next((name for name in names if self.fields.get(name) not in (None, "")), names[0])
        value = self.fields.get(name)
        if isinstance(value, Mapping) and isinstance(value.get("path"), str):  # a video as the hub's tables hold it
            value = value["path"]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise UsageError(f"{self.where}: {name!r} must be a text, not {value!r:.200}.")
        return str(value).strip()

    def groups(self, names: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
        """Fields to count by; names: field by the name it is counted under. What is not there is left out.

        A list counts in each of its groups.
        """
        found: dict[str, str | tuple[str, ...]] = {}
        for name, field in names.items():
            members = self._members(field)
            if members:
                found[name] = members[0] if len(members) == 1 else members
        return found

    def _members(self, field: str) -> tuple[str, ...]:
        value = self.fields.get(field)
        if isinstance(value, str) and value.lstrip().startswith("["):
            listed = forms.from_value(value)
            value = list(listed.texts) if listed else value
        if isinstance(value, list | tuple):
            return tuple(dict.fromkeys(str(one).strip() for one in value if one is not None and str(one).strip()))
        return () if forms.is_missing(value) or value == "" else (self.text(field),)

    def spans(self, name: str) -> tuple[tuple[float, float], ...]:
        """Spans of seconds as [[start, end], …], in a list or as JSON; none if the field holds something else.

        Raises:
            UsageError: it is a list of lists, but these are no spans.
        """
        value = self.fields.get(name)
        if isinstance(value, str) and value.lstrip().startswith("[["):
            try:
                value = json.loads(value)
            except ValueError:
                value = [[value]]
        if not isinstance(value, list | tuple) or not any(isinstance(one, list | tuple) for one in value):
            return ()
        if not all(map(_is_span, value)):
            raise UsageError(f"{self.where}: {name!r} must be a list of [start, end] in seconds, not {value!r:.200}.")
        return tuple((float(start), float(end)) for start, end in value)

    def options(self) -> Options | None:
        """The options, wherever the record holds them; None if it holds none.

        Raises:
            UsageError: they can't be read, are fewer than two, or two fields hold different ones.
        """
        found: dict[str, Options] = {}
        for names in forms.option_fields(self.fields):
            name = ", ".join(names)
            options = forms.read_options(self.fields, names)
            if options is None or not 2 <= options.offered <= len(LETTERS):
                value = self.fields[names[0]] if len(names) == 1 else [self.fields[one] for one in names]
                raise UsageError(
                    f"{self.where}: {name!r} must be a list of 2 to {len(LETTERS)} options, not {value!r:.200}."
                )
            found[name] = options
        first = next(iter(found.values()), None)
        for name, options in found.items():
            if first is not None and not forms.same(first, options):
                raise UsageError(f"{self.where}: {next(iter(found))!r} and {name!r} hold different options.")
        return first

    def choices(self) -> Options:
        """The options, which must be there."""
        options = self.options()
        if options is None:
            raise UsageError(f"{self.where}: there are no options; they are a list, as in 'options' or 'candidates'.")
        return options

    def letter(self, name: str, options: Options) -> str:
        """The right option's letter, from a field that holds the letter, alone or in front, or the option's text.

        It may be a letter that is not offered: the record is at fault then, not the file.
        """
        said = self.text(name)
        texts = options.texts
        letters = LETTERS[: len(texts)]
        match = _LETTER.match(said)
        # A text of one letter is the letter, also where options are letters themselves.
        if texts.count(said) == 1 and (len(said) > 1 or said.upper() not in letters):
            return letters[texts.index(said)]
        if match and match[1].upper() in (LETTERS if options.columns else letters):
            return match[1].upper()
        raise UsageError(f"{self.where}: {name!r} must be one of {', '.join(letters)} or an option, not {said!r:.200}.")
