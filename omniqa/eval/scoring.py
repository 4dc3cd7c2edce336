"""Whether an answer in free text is the right one."""

import re
import unicodedata
from dataclasses import dataclass

from omniqa.eval.questions import LETTERS, Question

_ARTICLES = {"a", "an", "the"}
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}

_MARKUP = re.compile(r"\\(?:boxed|text)\{([^{}]*)\}|[*_`$]")
_ENDS = r"""(?=\s*(?:$|[.](?!\w)|[):\],;!"'\n]))"""  # a small letter is one, and no article or word, where this follows
_IN_FRONT = re.compile(rf"\W*(?:([A-Z])(?=\W*$|\s*[.):\]\n]|\s+[-\u2013]\s|,(?!\s*\w\b))|([a-z]){_ENDS})")
_LETTER = rf"""[>(\["']?(?:([A-Z])(?![\w'])|([a-z]){_ENDS})"""
_ANSWER_IS = re.compile(
    rf"(?i:\b(?:answer|letter)(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?\s*:?\s*(?:(?:option|choice)\s+)?){_LETTER}"
)
_NAMED = re.compile(rf"(?i:\b(?:option|choice)(?:\s+is)?\s*:?\s*){_LETTER}")
_STANDING = re.compile(  # "A" and "I" are mostly words where others follow
    r"(?<![\w'])(?:([B-HJ-Z])|([AI])(?! (?!or\b|and\b|is\b|because\b)[a-z]))(?![\w'])|[(\[]([a-z])[)\]]"
)


@dataclass(frozen=True)
class Score:
    """What was made of an answer.

    said: the letter that was understood, or the words in the form in which they are compared; None: no letter found.
    correct: whether it is right.
    """

    said: str | None
    correct: bool


def score(question: Question, answer: str) -> Score:
    """Score the model's text: by its letter where there are options, else by exact match of the normalised words."""
    if question.options is None:
        said = normalise(answer)
        return Score(said, said == normalise(question.answer))
    letter = parse_letter(answer, question.options)
    return Score(letter, letter == question.answer)


def normalise(text: str) -> str:
    """Words in small letters, without punctuation and articles, zero to twenty as digits.

    "The  red circle." and "a Red Circle" are the same. Points and commas inside a number: 3.5 stays, 1,000 is 1000.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<!\d)[.]|[.](?!\d)|[^\w.]|_", " ", text)
    words = [_DIGITS.get(word, word) for word in text.split()]
    return " ".join([word for word in words if word not in _ARTICLES] or words)  # "A" may be all there is to say


def parse_letter(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter that an answer in free text means; None where it means none, or several.

    In this order: a letter alone or in front ("b", "(B)", "B. star"); an option's text and nothing else; the last "the
    answer is B"; the one option that is named ("option B") or whose text is in the answer; the one letter in it.
    """
    text = _MARKUP.sub(lambda match: match[1] or "", unicodedata.normalize("NFKC", answer)).strip()
    letters = LETTERS[: len(options)]
    readings = (_in_front, _whole_text, _answer_is, _named, _text_within, _standing)
    return next((letter for read in readings if (letter := read(text, options)) and letter in letters), None)


def _in_front(text: str, options: tuple[str, ...]) -> str | None:
    match = _IN_FRONT.match(text)
    if match:
        return _upper(match)
    # "B star" is the letter with its option's text; "A star" may be no more than a star.
    head, _, rest = text.partition(" ")
    named = dict(zip(LETTERS, options, strict=False)).get(head.upper())
    return head.upper() if named is not None and normalise(rest) == normalise(named) else None


def _whole_text(text: str, options: tuple[str, ...]) -> str | None:
    said = normalise(text)
    return _only({letter for letter, option in zip(LETTERS, options, strict=False) if normalise(option) == said != ""})


def _answer_is(text: str, options: tuple[str, ...]) -> str | None:
    found = [_upper(match) for match in _ANSWER_IS.finditer(text)]
    return found[-1] if found else None


def _named(text: str, options: tuple[str, ...]) -> str | None:
    return _only({_upper(match) for match in _NAMED.finditer(text)})


def _text_within(text: str, options: tuple[str, ...]) -> str | None:
    """The one option in the answer; of "circle" and "red circle" the longer, if that is what is said."""
    said = f" {normalise(text)} "
    spoken = {letter: normalise(option) for letter, option in zip(LETTERS, options, strict=False)}
    within = {letter: words for letter, words in spoken.items() if words and f" {words} " in said}
    longest = {
        letter
        for letter, words in within.items()
        if not any(words != other and f" {words} " in f" {other} " for other in within.values())
    }
    return _only(longest)


def _standing(text: str, options: tuple[str, ...]) -> str | None:
    return _only({_upper(match) for match in _STANDING.finditer(text)} & set(LETTERS[: len(options)]))


def _upper(match: re.Match[str]) -> str:
    return next(filter(None, match.groups())).upper()


def _only(letters: set[str]) -> str | None:
    return letters.pop() if len(letters) == 1 else None
