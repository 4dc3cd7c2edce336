"""The kinds of question: how each is worded, and what can be answered to it."""

from collections.abc import Callable
from dataclasses import dataclass

from omniqa.nano import finding
from omniqa.nano.facts import Facts
from omniqa.nano.finding import THINGS, THIRDS, AnsweredQuestion
from omniqa.nano.scenes import COLOURS, DIGITS, LETTERS, MOST_STRIKES, MOST_THINGS, MOTIONS, SHAPES, SOUNDS
from omniqa.nano.words import WORDS

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Attributes:
        name: its name.
        task: the group it belongs to, as benchmarks call it.
        modality: "video", "audio" or "both".
        answers: all that can be answered, each as often as any other; none where it is a whole sentence.
        wordings: the ways to ask it.
        find: gives every question of this kind that a clip has one answer to.
        choices: whether it is asked with options, too.
        even: whether the answer is drawn first, and asked only where the clip has a question for each answer.
        guesses: between how many answers one guesses, where the question itself leaves fewer.
        learned: whether nano has learned it; else nobody is asked, but who wants every kind.
    """

    name: str
    task: str
    modality: str
    answers: tuple[str, ...]
    wordings: tuple[str, ...]
    find: Callable[[Facts], list[AnsweredQuestion]]
    choices: bool = True
    even: bool = False
    guesses: int = 0
    learned: bool = True

    @property
    def chance(self) -> float:
        """The share of right answers by guessing, without options."""
        count = self.guesses or len(self.answers)
        return 1 / count if count else 0.0


_SEEN, _HEARD, _SOURCE = "scene recognition", "audio recognition", "source localisation"
_COUNTS_SEEN = tuple(str(count + 1) for count in range(MOST_THINGS))
_COUNTS_HEARD = tuple(str(count + 1) for count in range(MOST_STRIKES))

_ALL = (
    Kind(
        "seen",
        _SEEN,
        "video",
        THINGS,
        ("Which coloured shape is shown?", "Which coloured shape can be seen?"),
        finding.seen,
    ),
    Kind(
        "colour",
        _SEEN,
        "video",
        COLOURS,
        ("What colour is the {shape}?", "Which colour does the {shape} have?", "The {shape} is of which colour?"),
        finding.colour,
    ),
    Kind(
        "shape",
        _SEEN,
        "video",
        SHAPES,
        ("Which shape is {colour}?", "What is the {colour} shape?", "What shape does the {colour} thing have?"),
        finding.shape,
    ),
    Kind(
        "is_seen",
        _SEEN,
        "video",
        YES_NO,
        ("Is {thing} shown?", "Do you see {thing}?", "Does {thing} appear?"),
        finding.is_seen,
        choices=False,
        even=True,
    ),
    Kind(
        "motion",
        "motion",
        "video",
        MOTIONS,
        ("Which way does the {thing} move?", "Where does the {thing} go?", "In which direction does the {thing} move?"),
        finding.motion,
    ),
    Kind("digit", "reading", "video", DIGITS, ("Which digit is shown?", "What number can you read?"), finding.digit),
    Kind(
        "letter", "reading", "video", LETTERS, ("Which letter is shown?", "What letter can you read?"), finding.letter
    ),
    Kind("heard", _HEARD, "audio", SOUNDS, ("What is heard?", "Which sound can be heard?"), finding.heard),
    Kind(
        "is_heard",
        _HEARD,
        "audio",
        YES_NO,
        ("Do you hear {sound}?", "Can {sound} be heard?", "Is it true that one hears {sound}?"),
        finding.is_heard,
        choices=False,
        even=True,
    ),
    Kind("word", "spoken word", "audio", WORDS, ("Which word is spoken?", "What does the voice say?"), finding.word),
    Kind(
        "seen_while_heard",
        _SOURCE,
        "both",
        THINGS,
        (
            "Which coloured shape is shown while you hear the {sound}?",
            "When you hear the {sound}, which coloured shape can be seen?",
        ),
        finding.seen_while_heard,
    ),
    Kind(
        "colour_while_heard",
        _SOURCE,
        "both",
        COLOURS,
        (
            "Which colour is shown while you hear the {sound}?",
            "When you hear the {sound}, what colour is the shape?",
            "What is the colour of the shape during the {sound}?",
        ),
        finding.colour_while_heard,
    ),
    Kind(
        "shape_while_heard",
        _SOURCE,
        "both",
        SHAPES,
        (
            "Which shape is shown while you hear the {sound}?",
            "When you hear the {sound}, which shape is there?",
            "What shape can be seen during the {sound}?",
        ),
        finding.shape_while_heard,
    ),
    Kind(
        "heard_while_seen",
        _SOURCE,
        "both",
        (*SOUNDS, "nothing"),
        (
            "What is heard while the {thing} is shown?",
            "Which sound goes with the {thing}?",
            "When you see the {thing}, what do you hear?",
        ),
        finding.heard_while_seen,
    ),
    Kind(
        "word_while_seen",
        _SOURCE,
        "both",
        WORDS,
        ("Which word is spoken while the {thing} is shown?", "When you see the {thing}, what does the voice say?"),
        finding.word_while_seen,
    ),
    Kind(
        "first_last_seen",
        "order",
        "video",
        THINGS,
        ("Which coloured shape is shown {which}?", "Which coloured shape is the {which} to be seen?"),
        finding.first_last_seen,
    ),
    Kind(
        "first_last_heard",
        "order",
        "audio",
        SOUNDS,
        ("What is heard {which}?", "Which sound is the {which} to be heard?"),
        finding.first_last_heard,
    ),
    Kind(
        "next_seen",
        "order",
        "video",
        THINGS,
        (
            "Which coloured shape is shown right {side} the {thing}?",
            "Which coloured shape comes just {side} the {thing}?",
        ),
        finding.next_seen,
    ),
    Kind(
        "next_heard",
        "order",
        "audio",
        SOUNDS,
        ("What is heard right {side} the {sound}?", "Which sound comes just {side} the {sound}?"),
        finding.next_heard,
        guesses=len(SOUNDS) - 1,  # not the one that the question names
    ),
    Kind(
        "order_seen",
        "order",
        "video",
        THINGS,
        ("Which is shown first, the {one} or the {other}?", "What comes first, the {one} or the {other}?"),
        finding.order_seen,
        choices=False,
        guesses=2,
    ),
    Kind(
        "order_heard",
        "order",
        "audio",
        SOUNDS,
        ("Which is heard first, the {one} or the {other}?", "What do you hear first, the {one} or the {other}?"),
        finding.order_heard,
        choices=False,
        guesses=2,
    ),
    Kind(
        "order_both",
        "order",
        "both",
        ("before", "after"),
        (
            "Is the {sound} heard before or after the {thing} is shown?",
            "Do you hear the {sound} before or after you see the {thing}?",
        ),
        finding.order_both,
        choices=False,
    ),
    Kind(
        "count_seen",
        "counting",
        "video",
        _COUNTS_SEEN,
        ("How many shapes are shown at the {where}?", "At the {where}, how many shapes can be seen?"),
        finding.count_seen,
        choices=False,
    ),
    Kind(
        "count_heard",
        "counting",
        "audio",
        _COUNTS_HEARD,
        ("How many times is the {sound} heard?", "How often do you hear the {sound}?"),
        finding.count_heard,
        choices=False,
        learned=False,
    ),
    Kind(
        "count_while_heard",
        "counting",
        "both",
        _COUNTS_SEEN,
        (
            "How many shapes are shown while you hear the {sound}?",
            "When you hear the {sound}, how many shapes can be seen?",
        ),
        finding.count_while_heard,
        choices=False,
    ),
    Kind(
        "where_seen",
        "where in the clip",
        "video",
        THIRDS,
        (
            "When is the {it} shown: at the beginning, in the middle or at the end?",
            "Is the {it} shown at the beginning, in the middle or at the end?",
        ),
        finding.where_seen,
        choices=False,
        even=True,
    ),
    Kind(
        "where_heard",
        "where in the clip",
        "audio",
        THIRDS,
        (
            "When is the {it} heard: at the beginning, in the middle or at the end?",
            "Is the {it} heard at the beginning, in the middle or at the end?",
        ),
        finding.where_heard,
        choices=False,
        even=True,
    ),
    Kind(
        "description",
        "description",
        "both",
        (),
        ("Describe the clip.", "What happens, in order?", "Describe what is shown and heard, scene by scene."),
        finding.description,
        choices=False,
    ),
)
KINDS = {kind.name: kind for kind in _ALL}
