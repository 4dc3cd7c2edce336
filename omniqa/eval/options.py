"""The options of a record, in every form in which sets hold them; letters stay with their options."""

import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omniqa import strict_json
from omniqa.eval.questions import LETTERS

_LETTERED = re.compile(r"\s*[(\[]?([A-Za-z])[.):\]]\s*")
_INLINE = re.compile(r"(?:^|(?<=[\s\[,;|]))[(\[]?([A-Z])[.):\]]\s*")
_LISTS = {"options", "candidates", "choices", "choice", "option", "candidate", "answer_choices", "answer_options"}
_COLUMN = re.compile(r"(?i:(options?|choices?|candidates?|answer_choice)[ _-]?)([A-Za-z]|\d{1,2})|()([A-Z])")
_LINES_A_B = re.compile(r"^[ \t]*[(\[]?A[.):\]].*\n+[ \t]*[(\[]?B[.):\]]", re.MULTILINE)
_ARRAY = re.compile(r"\s*array\((\[.*\])(?:,\s*dtype=.*)?\)\s*", re.DOTALL)  # as NumPy names itself
_WRITTEN_OUT = re.compile(r"(?<=['\"])\s*(?:\\n\s*)+(?=['\"])")  # a line's end between texts, as two characters


@dataclass(frozen=True)
class Options:
    """Options by their letters, from A on.

    Attributes:
        texts: without letters; an empty text is a letter that is not offered.
        written: the lines in which the set itself shows them; empty if it has no letters.
        columns: each has a field of its own, so that a letter beyond the last is an empty field.
    """

    texts: tuple[str, ...]
    written: tuple[str, ...] = ()
    columns: bool = False

    @property
    def offered(self) -> int:
        """How many there are."""
        return sum(map(bool, self.texts))


def option_fields(fields: Mapping[str, Any]) -> list[list[str]]:
    """The names of a record's fields that hold options; columns with one option each stand together."""
    lists = [[name] for name, value in fields.items() if _is_named(name, value) or _is_lettered(value)]
    columns: dict[str, list[str]] = {}
    for name in fields:
        if match := _COLUMN.fullmatch(name):
            prefix = (match[1] or "").casefold()
            columns.setdefault(f"{prefix} number" if name[-1].isdigit() else prefix, []).append(name)
    if not {"A", "B"} <= set(columns.get("", ())):  # such as Q and A
        columns.pop("", None)
    return lists + [names for names in columns.values() if sum(_is_there(fields[name]) for name in names) > 1]


def read_options(fields: Mapping[str, Any], names: Sequence[str]) -> Options | None:
    """The options in these fields, as `option_fields` gives them. None if they can't be told apart."""
    return _from_columns({name: fields[name] for name in names}) if len(names) > 1 else from_value(fields[names[0]])


def from_value(value: Any) -> Options | None:
    """A list, an object by letter, or either of them written as text. None for anything else."""
    if isinstance(value, str):
        value = _parse(value)
    if isinstance(value, Mapping):
        return _by_letter(value)
    if not isinstance(value, list | tuple):
        return None
    texts = ["" if is_missing(option) else str(option) for option in value]
    return _by_own_letters(texts) or Options(tuple(text.strip() for text in texts))


def same(one: Options, other: Options) -> bool:
    """Whether two fields hold the same options."""

    def trimmed(texts: tuple[str, ...]) -> list[str]:
        return list(texts[: max((at for at, text in enumerate(texts, 1) if text), default=0)])

    return trimmed(one.texts) == trimmed(other.texts)


def holds_lettered_lines(text: str) -> bool:
    """Whether options stand in a text of other things, such as a question, on lines of their own."""
    return _LINES_A_B.search(text) is not None


def _is_named(name: str, value: Any) -> bool:
    """Whether a field has options' name and holds them; in the singular it may be anything else, such as a letter."""
    if name.casefold() not in _LISTS or not _is_there(value):
        return False
    plural = name.casefold() not in ("choice", "option", "candidate")
    found = from_value(value)
    return plural or (found is not None and found.offered > 1)


def _is_lettered(value: Any) -> bool:
    """Whether a field, whatever its name, is a list of texts that begin with A, B, …, or has texts by these letters."""
    if isinstance(value, Mapping):
        return {"A", "B"} <= value.keys() and all(isinstance(text, str | None) for text in value.values())
    if not isinstance(value, list | tuple) and not (isinstance(value, str) and value.lstrip().startswith("[")):
        return False
    found = from_value(value)
    return found is not None and found.offered > 1 and bool(found.written)


def _is_there(value: Any) -> bool:
    return not is_missing(value) and value not in ("", [], {})


def is_missing(value: Any) -> bool:
    """Whether a field holds nothing, in the forms that tables have for it."""
    return value is None or (isinstance(value, float) and value != value)


def _from_columns(fields: Mapping[str, Any]) -> Options | None:
    """One option a field, which its name gives the letter, or the number from 0 or 1 on."""
    marks = {name: match[2] or match[4] for name in fields if (match := _COLUMN.fullmatch(name))}
    if all(mark.isdigit() for mark in marks.values()):
        first = min(map(int, marks.values()))
        marks = {name: LETTERS[int(mark) - first] for name, mark in marks.items() if int(mark) - first < len(LETTERS)}
    options = _by_letter({mark: fields[name] for name, mark in marks.items()})
    return None if options is None else replace(options, columns=True)


def _by_letter(value: Mapping[Any, Any]) -> Options | None:
    """Options by letter; None if the keys are none, or the same."""
    keys = {key: str(key).strip(" .):(").upper() for key in value}
    letters = set(keys.values())
    if len(letters) < len(keys) or not letters <= set(LETTERS) or not letters & {"A", "B"}:
        return None
    known = {keys[key]: str(option) for key, option in value.items() if not is_missing(option)}
    raw = [known.get(letter, "") for letter in LETTERS[: max(map(LETTERS.index, keys.values())) + 1]]
    lettered = _at_their_places(raw)
    if lettered is not None:
        return lettered
    return Options(tuple(text.strip() for text in raw), tuple(f"{letter}. {known[letter]}" for letter in sorted(known)))


def _by_own_letters(texts: list[str]) -> Options | None:
    """Options that all begin with a letter of their own; gaps between them may be left out. None for others."""
    if (placed := _at_their_places(texts)) is not None:
        return placed
    letters = _own_letters(texts)
    if len(letters) < max(2, len(texts)) or letters[0] != "A" or sorted(set(letters)) != letters:
        return None
    found = dict(zip(letters, texts, strict=True))
    return _at_their_places([found.get(letter, "") for letter in LETTERS[: LETTERS.index(letters[-1]) + 1]])


def _at_their_places(texts: list[str]) -> Options | None:
    """Options of which each begins with the letter of its place, but for those that are not there."""
    matches = [_LETTERED.match(text) for text in texts]
    fits = [match is not None and match[1].upper() == letter for match, letter in zip(matches, LETTERS, strict=False)]
    there = [bool(text.strip()) for text in texts]
    if len(texts) > len(LETTERS) or not any(there) or fits != there:
        return None
    bare = tuple(text[match.end() :].strip() if match else "" for text, match in zip(texts, matches, strict=True))
    return Options(bare, tuple(text for text in texts if text.strip()))


def _own_letters(texts: list[str]) -> list[str]:
    return [match[1].upper() for text in texts if (match := _LETTERED.match(text))]


def _parse(text: str) -> Any:
    """What was written into a cell of a table: as JSON, as Python or NumPy writes it, or as lettered lines."""
    unquoted = _ARRAY.sub(r"\1", _unquoted(text))
    for form in dict.fromkeys((text, unquoted, _WRITTEN_OUT.sub(" ", unquoted))):
        for parse in (strict_json.parse, _strings, ast.literal_eval, _lines, _inline):
            try:
                value = parse(form)
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # all of them: too deep for Python's parser
                continue
            if isinstance(value, list | tuple | dict):
                return value
    return text


def _unquoted(text: str) -> str:
    """A cell without the quotation marks that CSV puts around it."""
    text = text.strip()
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _strings(text: str) -> list[str]:
    """A list of texts as Python or NumPy writes it; the latter puts no commas in between. Raises ValueError."""
    if not text.lstrip().startswith("["):
        raise ValueError("it is no list")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text.strip()).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError("it is no list") from error
    kinds = {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    words = [token.string for token in tokens if token.type not in kinds and token.string != ","]
    if words[0] != "[" or words[-1] != "]" or not all(word[0] in "'\"" for word in words[1:-1]):
        raise ValueError("it is no list of texts")
    return [ast.literal_eval(word) for word in words[1:-1]]


def _lines(text: str) -> list[str]:
    """Lines that each begin with a letter of their own. Raises ValueError."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or _by_own_letters(lines) is None:
        raise ValueError("they are no lettered lines")
    return lines


def _inline(text: str) -> list[str]:
    """Options one behind the other, as "A. one B. two".

    Raises:
        ValueError: a letter comes twice or out of turn.
    """
    text = text.strip().removeprefix("[").removesuffix("]")
    marks = list(_INLINE.finditer(text))
    if len(marks) < 2 or marks[0].start() or [mark[1] for mark in marks] != list(LETTERS[: len(marks)]):
        raise ValueError("they are no lettered options")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [text[mark.start() : end].strip(" ,;|\t\n") for mark, end in zip(marks, ends, strict=True)]
