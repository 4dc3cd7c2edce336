"""The letter that each harness's own function finds in an answer; docs/eval.md describes the rules.

They are protocol: where they take a letter that nobody meant, so must a figure that is compared with theirs.
"""

import re
from collections.abc import Callable

_FOUR = "ABCD"
_ENDS = ",.!?;:'\""
_PHRASE = re.compile(r"answer is|answer:|option is|option:|choice is|choice:", re.IGNORECASE)
_SHORT_ANSWER_WORDS = 5  # up to which lmms-eval's WorldSense does not look for options' texts
_VLMEVALKIT_CUTS = (
    "The best answer is", "The correct answer is", "The answer is", "The answer", "Answer:", "Option:",
    "The best option isThe correct option is", "Best answer:Best option:",  # without commas there: they cut nothing
)  # fmt: skip

Letter = Callable[[str, tuple[str, ...]], str | None]


def lmms_eval_videomme(answer: str, options: tuple[str, ...]) -> str | None:
    """The best-placed capital A to D; in one rank the later wins."""
    text = answer.strip().strip(_ENDS)
    found = [(10, match.start(), match[0]) for match in re.finditer(rf"\A[{_FOUR}]\b", text)]
    found += [(9, match.start(), match[0]) for match in re.finditer(rf"\b[{_FOUR}]\Z", text)]
    if phrase := _PHRASE.search(text):
        first = {letter: text.find(letter, phrase.end()) for letter in _FOUR}
        found += [(7, place, letter) for letter, place in first.items() if place >= 0]
    for rank, form in ((6, r"\(([A-D])\)"), (5, r"([A-D])\."), (4, "([A-D]):"), (3, r"([A-D])\)"), (2, "([A-D]) ")):
        found += [(rank, match.start(1), match[1]) for match in re.finditer(form, text)]
    found += [(0, match.start(), match[0]) for match in re.finditer(f"[{_FOUR}]", text)]
    return max(found)[2] if found else None


def lmms_eval_worldsense(answer: str, options: tuple[str, ...]) -> str | None:
    """A capital anywhere, else an option's text in a longer answer, else A."""
    letters = _FOUR[: len(options)]
    found = [letter for letter in letters if letter in answer]
    if found:
        return max(found, key=lambda letter: answer.rfind(f"({letter})"))  # without brackets the first of them
    if len(answer.split()) > _SHORT_ANSWER_WORDS:
        said = answer.lower()
        places = {letter: said.rfind(text.lower()) for letter, text in zip(letters, options, strict=False) if text}
        last = max(places, key=lambda letter: places[letter], default=None)
        if last is not None and places[last] >= 0:
            return last
    return "A"


def vlmevalkit(answer: str, options: tuple[str, ...]) -> str | None:
    """The first capital A to D once some phrases are cut out."""
    for phrase in _VLMEVALKIT_CUTS:
        answer = answer.replace(phrase, "")
    match = re.search(f"[{_FOUR}]", answer)
    return match[0] if match else None


def omnizip(answer: str, options: tuple[str, ...]) -> str | None:
    """The first character, as a capital, if it is A to F."""
    first = answer.strip()[:1].upper()
    return first if first and first in "ABCDEF" else None


# By harness, then by layout. The first is also taken for sets that the harness has no task for.
RULES: dict[str, dict[str, Letter]] = {
    "lmms-eval": {"videomme": lmms_eval_videomme, "worldsense": lmms_eval_worldsense},
    "vlmevalkit": {"videomme": vlmevalkit, "worldsense": vlmevalkit},
    "omnizip": {"avut": omnizip, "worldsense": omnizip},
}
