"""Which words nano was trained on, and which questions in such words suit a clip.

nano knows the wordings of KINDS and no others. What suits a clip follows from nano's own description of it: the
description is read back into a script, and all questions follow from a script.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from operator import mul
from typing import TYPE_CHECKING

from omniqa.nano.facts import Facts
from omniqa.nano.finding import A_SOUND, THINGS, with_article
from omniqa.nano.kinds import KINDS, Kind
from omniqa.nano.scenes import COLOURS, DIGITS, LETTERS, SHAPES, SOUNDS, Scene, Script, Sign, Sound, Thing
from omniqa.nano.words import WORDS

if TYPE_CHECKING:
    from pathlib import Path

    from omniqa.media.source import Source
    from omniqa.pipeline.encoded_clip import EncodedClip
    from omniqa.pipeline.engine import OmniQA

DESCRIBE = KINDS["description"].wordings[0]

_SOURCES = (*SOUNDS, *(f"word {word}" for word in WORDS))
_SLOTS = {
    "shape": SHAPES,
    "colour": COLOURS,
    "thing": THINGS,
    "sound": _SOURCES,
    "which": ("first", "last"),
    "side": ("before", "after"),
    "where": ("beginning", "end"),
    "one": (*THINGS, *SOUNDS),
    "other": (*THINGS, *SOUNDS),
    "it": (*THINGS, *_SOURCES),
}
_WITH_ARTICLE = {
    "is_seen": {"thing": tuple(map(with_article, THINGS))},
    "is_heard": {"sound": tuple(A_SOUND.values())},
}
_OPTIONS = r"(?:\n[A-D]\. [^\n]+){4}\nAnswer with the letter\."
_UNPLACED = ("where_seen", "where_heard")  # not asked: a description has no times
_UNTOLD = "motion"  # asked, though a description does not tell the answer
_ALIKE = 0.55  # of letters in common; "said" and "say" are just above it
_SAYS, _SILENCE = "voice says ", "silence"
_THING = f"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
_SOUND = f"(?:{'|'.join(SOUNDS[:-1])}|{_SAYS}(?:{'|'.join(WORDS)}))"
_SCENE = re.compile(
    rf"(?P<things>{_THING}(?: and {_THING})*)"
    rf"(?:, (?:digit|letter) (?P<sign>[{''.join((*DIGITS, *LETTERS))}]))?"
    rf", (?P<sounds>{_SILENCE}|{_SOUND}(?: and {_SOUND})*)"
)
_SCENE_SECONDS, _SOUND_SECONDS = 4.0, 0.5  # of a script that is read from a description


@dataclass(frozen=True)
class TrainedQuestion:
    """A question in words that nano was trained on.

    Attributes:
        kind: a key of KINDS.
        text: the question.
        answer: what follows from the clip's description; None if it does not tell.
    """

    kind: str
    text: str
    answer: str | None


def is_trained(question: str) -> bool:
    """Whether a question, with its options if it has any, is in words that nano was trained on."""
    return any(pattern.fullmatch(question.strip()) for pattern in _patterns())


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(kind, wording) for kind in _learned() for wording in kind.wordings)


def _learned() -> Iterator[Kind]:
    return (kind for kind in KINDS.values() if kind.learned)


def _pattern(kind: Kind, wording: str) -> re.Pattern[str]:
    slots = _SLOTS | _WITH_ARTICLE.get(kind.name, {})
    alternatives = {slot: f"(?:{'|'.join(values)})" for slot, values in slots.items()}
    text = re.sub(r"[?.]", r"\\\g<0>", wording).format(**alternatives)
    return re.compile(text + (f"(?:{_OPTIONS})?" if kind.choices else ""))


def questions_for(
    qa: "OmniQA", video: "str | Path | Source | EncodedClip", near: str = ""
) -> Iterator[TrainedQuestion]:
    """Questions about a clip to which nano's answer agrees with its own description of the clip.

    Args:
        qa: nano, loaded. It answers with all tokens.
        video: the clip.
        near: a question; those whose words are most like its own come first. Without it they come by kind.
    """
    clip = qa.encode(video)

    def answer(question: str) -> str:
        return qa.ask(clip, question, "none", 1.0).text

    asked = list(_suitable(answer(DESCRIBE)))
    if near:
        asked.sort(key=lambda one: _likeness(one.text, near), reverse=True)
    return (one for one in asked if one.answer is None or answer(one.text) == one.answer)


def one_of_each_kind(asked: Iterable[TrainedQuestion]) -> Iterator[TrainedQuestion]:
    """The first question of each kind."""
    kinds = set()
    for one in asked:
        if one.kind not in kinds:
            kinds.add(one.kind)
            yield one


def _suitable(description: str) -> Iterator[TrainedQuestion]:
    script = script_of(description)
    kinds = [kind for kind in _learned() if kind.name not in _UNPLACED]
    if script is None:
        plain = ((kind.name, text) for kind in kinds for text in kind.wordings if "{" not in text)
        yield from (TrainedQuestion(name, text, None) for name, text in plain)
        return
    facts = Facts(script)
    for kind in kinds:
        for found in kind.find(facts):
            answer = None if kind.name == _UNTOLD else found.answer
            if found.open and answer != "no":  # what is not there may be asked without end
                yield from (TrainedQuestion(kind.name, text.format(**found.names), answer) for text in kind.wordings)


def _likeness(text: str, other: str) -> float:
    """How like the words of two questions are, from 0 to 1; words that many wordings have count for little."""
    words, others = _words(text), _words(other)
    return (_found(others, words) + _found(words, others)) / 2


def _found(words: list[str], others: list[str]) -> float:
    """How much of `words` is found among `others`; a word that is spelt nearly alike counts in part."""
    often = Counter(word for kind in KINDS.values() for text in kind.wordings for word in set(_words(text)))
    weights = [1 / (1 + often[word]) for word in words]
    likest = [max((_alike(word, one) for one in others), default=0.0) for word in words]
    return sum(map(mul, weights, likest)) / max(sum(weights), 1e-9)


def _alike(word: str, other: str) -> float:
    ratio = SequenceMatcher(None, word, other).ratio()
    return ratio if ratio > _ALIKE else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def script_of(description: str) -> Script | None:
    """A script that has this description: scenes and sounds at even distances. None if no script can have it."""
    parts = [_SCENE.fullmatch(part) for part in description.split("; ")]
    matches = [match for match in parts if match]
    if len(matches) < len(parts):
        return None
    scenes = tuple(_scene(match, number * _SCENE_SECONDS) for number, match in enumerate(matches))
    sounds = tuple(sound for number, match in enumerate(matches) for sound in _sounds(match["sounds"], number))
    return Script(0, len(scenes) * _SCENE_SECONDS, scenes, sounds, 0.0)


def _scene(match: re.Match[str], start: float) -> Scene:
    labels = [label.split() for label in match["things"].split(" and ")]
    things = [Thing(shape, colour, 0.5, 0.5, 0.2, "nowhere", 0.0, _SCENE_SECONDS) for colour, shape in labels]
    sign = Sign(match["sign"], 0.5, 0.5, 0.2) if match["sign"] else None
    return Scene(start, start + _SCENE_SECONDS, "black", 0.0, tuple(things), sign)


def _sounds(text: str, scene: int) -> Iterator[Sound]:
    """The sounds of a scene, one after the other."""
    names = [] if text == _SILENCE else text.split(" and ")
    for number, name in enumerate(names):
        start = scene * _SCENE_SECONDS + (number + 0.25) * _SCENE_SECONDS / len(names)
        word = name.removeprefix(_SAYS) if name.startswith(_SAYS) else ""
        kind = "voice" if word else name
        yield Sound(kind, start, start + _SOUND_SECONDS, scene, 0.3, 0.0, word)
