"""Answers in the form in which they are compared: free of punctuation and markup, with signs and symbols kept."""

import re
import unicodedata
from collections.abc import Iterable

_ARTICLE = re.compile(r"""(?<!\S)[^\w\s.+*#-]{0,4}\b(?:a|an|the)\b(?=[,;:.!?"'”’)\]]*(?:\s|$))""")
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}

_CURRENCY = "$¢£¤¥฿₠-⃀"  # Unicode's block of currency signs, and those outside it
_CONTENT = "#%‰&@\\*+-_./:"  # punctuation to Unicode; where it reaches _drop_punctuation, it is part of what is said
_CALL, _NEGATION = "\ue000", "\ue001"  # of private use, in place of the punctuation in f() and !x
_DECORATION = "`´¨¯¸"  # symbols to Unicode, punctuation to a reader

_COMPATIBLE = (  # before NFKC, which makes 52 of 5², and 51/2 of 5½
    (r"(?<=\d)(?=[⁰¹²³⁴-⁹⁺⁻])", "^"),
    (r"(?<=\d)(?=[¼½¾⅐-⅞])", " "),
    (r"(?<=\d)\s*[º˚]", "°"),
)
_MARKUP = (  # what Markdown, LaTeX and tags put around an answer
    (r"\\(?:boxed|text)\{([^{}]*)\}", r"\1"),
    (r"\\[()\[\]]", " "),
    (r"(?<![\\\w])\$(?=\S)([^$\n]*[^$\s\\])\$(?!\d)", r"\1"),  # $x$ is mathematics; $5 and $6 are money
    (r"\\([$%#&_{}])", r"\1"),
    (r"</?[a-zA-Z]\w*>", " "),
    (r"(?<![A-Za-z0-9*])(\*{1,3})(?=[^\s*])([^*\n]*[^\s*])\1(?![A-Za-z0-9*])", r"\2"),
    (r"(?<!\w)(_{1,3})(?=[^\s_])([^_\n]*[^\s_])\1(?!\w)", r"\2"),
    (r"(?m)^\s*(?:#+|[*-])\s+|(?<!\w)\*{2,}|\*{2,}(?!\w)|`", ""),
)
_FORMS = (  # one spelling of each number, and no prose punctuation that stands inside a word
    (r"[‐‑‒–](?=\d)|−\s*", "-"),
    (r"(?<=\d)\s+[-—]\s+(?=\d)", "-"),  # a range
    (r"⁄", "/"),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"[.]{2,}", " "),
    (r"(?<![\w.])[.](?=\d)", "0."),
    (r"(?<=\d)\s+(?=[%‰°])", ""),
    (rf"(?<!\w)([{_CURRENCY}])\s*(-?)\s*(?=\d)", r"\2\1"),  # $-5 and $ 5
    (rf"(?<!\w)(-?)(\d[\d.]*)\s*([{_CURRENCY}])(?!\w)", r"\1\3\2"),  # 5 €
    (r"(?<=\d)\s*([ap])\.?\s?m\b\.?", r" \1m"),  # 10:30 a.m.
    (r"(?<=\w)\(\)", _CALL),
    (r"(?<![\w!])!(?=\w)", _NEGATION),
    (r"=", " = "),
    (r"(?<!\d)[./:]|[./:](?!\d)", " "),  # 3.5, 1/2 and 10:30 stay
    (r"(?<=[^\W\d_])-(?=\w)|(?<=\d)-(?=[^\W\d_])|(?<!\S)-+(?!\S)", " "),  # T-shirt, 5-year, and a dash
    (r"(?<!\w)_+|(?<![^\W_])_+|_+(?![^\W_])", " "),
)
_SPOKEN = (  # signs and units in words, after digits
    (r"\b(?:minus|negative) (?=\d)", "-"),
    (r"(?<=\d) (?:percent|per cent)\b", "%"),
    (r"(?<=\d) degrees?\b", "°"),
    (r"(?<=°) ?([cf])(?:elsius|ahrenheit)?\b", r"\1"),
    (r"(-?)\b(\d[\d.]*) dollars?\b", r"\1$\2"),
    (r"(-?)\b(\d[\d.]*) euros?\b", r"\1€\2"),
)


def normalise(text: str) -> str:
    """Words in small letters, without punctuation and articles, zero to twenty as digits.

    "The  red circle." and "a Red Circle" are the same. What tells two things apart stays: signs, currencies, per cent
    and degrees (-5, $5, 5%, 5°), symbols (C++, C#), points, colons and slashes between digits (3.5, 10:30, 1/2).
    1,000 is 1000. A text that is nothing but punctuation stays as it is.
    """
    marked = strip_markup(text).casefold()
    said = _words(_ARTICLE.sub(" ", marked)) or _words(marked)  # "A" may be all there is to say
    return said or " ".join(marked.split())


def _words(text: str) -> str:
    words = _drop_punctuation(_substitute(_FORMS, text)).split()
    spoken = _substitute(_SPOKEN, " ".join(_DIGITS.get(word, word) for word in words))
    return " ".join(spoken.split()).replace(_CALL, "()").replace(_NEGATION, "!")


def strip_markup(text: str) -> str:
    """The text without Markdown, LaTeX and tags, in Unicode's compatible form (NFKC), digits of all scripts as 0 to 9.

    A text that is nothing but markup stays.
    """
    text = unicodedata.normalize("NFKC", _substitute(_COMPATIBLE, text))
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" and char not in "\ufe0e\ufe0f")
    text = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
    return _substitute(_MARKUP, text).strip() or text.strip()


def _substitute(substitutions: Iterable[tuple[str, str]], text: str) -> str:
    for pattern, replacement in substitutions:
        text = re.sub(pattern, replacement, text)
    return text


def _drop_punctuation(text: str) -> str:
    """A space in place of each punctuation mark; letters, their accents, digits and symbols stay."""

    def kept(char: str) -> str:
        punctuation = unicodedata.category(char)[0] == "P" and char not in _CONTENT
        return " " if punctuation or char in _DECORATION else char

    return re.sub(r"[^\w\s]", lambda match: kept(match[0]), text)
