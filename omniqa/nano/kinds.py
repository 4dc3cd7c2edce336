"""The kinds of question: how each is worded, what can be answered to it, and where a clip has an answer to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, permutations

from omniqa.nano.facts import CLEARLY_LATER, Facts, Shown, Source, Span
from omniqa.nano.scenes import (
    COLOURS,
    DIGITS,
    LETTERS,
    MOST_STRIKES,
    MOST_THINGS,
    MOTIONS,
    SHAPES,
    SOUNDS,
    STRUCK,
    THINGS_WEIGHTS,
    Scene,
    Sound,
)
from omniqa.nano.words import WORDS

THINGS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
THIRDS = ("beginning", "middle", "end")
YES_NO = ("yes", "no")
_A_SOUND = {kind: kind if kind in ("noise", "clicks") else f"a {kind}" for kind in SOUNDS}
_MOST_OF_IT = 2 / 3  # of a scene must be in a third of the clip, for it to be shown there


@dataclass(frozen=True)
class Found:
    """A question that a clip has one answer to.

    Attributes:
        answer: the answer in words.
        evidence: when that is shown or heard which tells it.
        names: what the wording's braces stand for.
        rivals: wrong answers that a clip brings to mind.
        also_true: answers that must not be among the options, for they would be right as well.
        open: False: this has one answer only among options.
        share: of such questions to be asked, so that no answer comes more often than others.
    """

    answer: str
    evidence: tuple[Span, ...]
    names: dict[str, str] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    also_true: tuple[str, ...] = ()
    open: bool = True
    share: float = 1.0


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
    """

    name: str
    task: str
    modality: str
    answers: tuple[str, ...]
    wordings: tuple[str, ...]
    find: Callable[[Facts], list[Found]]
    choices: bool = True
    even: bool = False
    guesses: int = 0

    @property
    def chance(self) -> float:
        """The share of right answers by guessing, without options."""
        count = self.guesses or len(self.answers)
        return 1 / count if count else 0.0


def _an(label: str) -> str:
    return f"an {label}" if label[0] in "aeiou" else f"a {label}"


# What is seen


def _seen(facts: Facts) -> list[Found]:
    labels, alone = facts.labels, len(facts.labels) == 1
    return [Found(one.label, (one.span,), also_true=labels, open=alone) for one in facts.single_things]


def _colour(facts: Facts) -> list[Found]:
    colours = tuple(shown.thing.colour for shown in facts.things)
    shapes = [shown.thing.shape for shown in facts.things]
    single = [shown for shown in facts.things if shapes.count(shown.thing.shape) == 1]
    return [Found(one.thing.colour, (one.span,), {"shape": one.thing.shape}, rivals=colours) for one in single]


def _shape(facts: Facts) -> list[Found]:
    shapes = tuple(shown.thing.shape for shown in facts.things)
    colours = [shown.thing.colour for shown in facts.things]
    single = [shown for shown in facts.things if colours.count(shown.thing.colour) == 1]
    return [Found(one.thing.shape, (one.span,), {"colour": one.thing.colour}, rivals=shapes) for one in single]


def _is_seen(facts: Facts) -> list[Found]:
    """Of what is not there, only such is asked of which the colour or the shape is."""
    parts = {word for label in facts.labels for word in label.split()}
    absent = [label for label in THINGS if label not in facts.labels and parts & set(label.split())]
    whole = ((0.0, facts.seconds),)
    there = [Found("yes", (one.span,), {"thing": _an(one.label)}) for one in facts.single_things]
    return there + [Found("no", whole, {"thing": _an(label)}) for label in absent]


def _motion(facts: Facts) -> list[Found]:
    return [Found(one.thing.motion, (one.span,), {"thing": one.label}) for one in facts.single_things]


def _sign(facts: Facts, known: tuple[str, ...]) -> list[Found]:
    shown = [(scene.sign.text, (scene.start, scene.end)) for scene in facts.scenes if scene.sign]
    read = [(text, span) for text, span in shown if text in known]
    return [Found(text, (span,)) for text, span in read] if len(read) == 1 else []


def _digit(facts: Facts) -> list[Found]:
    return _sign(facts, DIGITS)


def _letter(facts: Facts) -> list[Found]:
    return _sign(facts, LETTERS)


# What is heard


def _heard(facts: Facts) -> list[Found]:
    kinds, alone = tuple(facts.kinds), len(facts.kinds) == 1
    if len(kinds) > len(SOUNDS) - 3:
        return []
    return [Found(kind, source.times, also_true=kinds, open=alone) for kind, source in facts.kinds.items()]


def _is_heard(facts: Facts) -> list[Found]:
    whole = ((0.0, facts.seconds),)
    there = [Found("yes", source.times, {"sound": _A_SOUND[kind]}) for kind, source in facts.kinds.items()]
    return there + [Found("no", whole, {"sound": _A_SOUND[kind]}) for kind in SOUNDS if kind not in facts.kinds]


def _word(facts: Facts) -> list[Found]:
    return [Found(word, source.times) for word, source in facts.words.items()] if len(facts.words) == 1 else []


# What is seen while something is heard, and the reverse


def _sounding_scenes(facts: Facts) -> list[tuple[Source, Scene]]:
    placed = [(source, facts.scene_of(source)) for source in facts.sources]
    return [(source, facts.scenes[index]) for source, index in placed if index is not None]


def _seen_while_heard(facts: Facts) -> list[Found]:
    """Where several things are shown, one of them among three that are not."""
    found = []
    for source, scene in _sounding_scenes(facts):
        here = tuple(thing.label for thing in scene.things)
        names = {"sound": source.name}
        alone = len(here) == 1
        found += [Found(label, source.times, names, facts.labels, here, alone) for label in here]
    return found


def _colour_while_heard(facts: Facts) -> list[Found]:
    single = [(source, scene.things[0]) for source, scene in _sounding_scenes(facts) if len(scene.things) == 1]
    rivals = tuple(shown.thing.colour for shown in facts.things)
    return [Found(thing.colour, source.times, {"sound": source.name}, rivals) for source, thing in single]


def _shape_while_heard(facts: Facts) -> list[Found]:
    single = [(source, scene.things[0]) for source, scene in _sounding_scenes(facts) if len(scene.things) == 1]
    rivals = tuple(shown.thing.shape for shown in facts.things)
    return [Found(thing.shape, source.times, {"sound": source.name}, rivals) for source, thing in single]


def _heard_while_seen(facts: Facts) -> list[Found]:
    """One kind of sound, or nothing; sounds that go on beyond the scene leave it unclear what belongs to it."""
    rivals = (*facts.kinds, *(["nothing"] if any(not facts.heard_in(scene) for scene in facts.scenes) else []))
    found = []
    for shown in facts.single_things:
        here = facts.heard_in(shown.scene)
        kinds = {sound.kind for sound in here} or {"nothing"}
        if len(kinds) == 1 and _all_inside(here, shown):
            found.append(Found(kinds.pop(), (shown.span,), {"thing": shown.label}, rivals))
    return found


def _word_while_seen(facts: Facts) -> list[Found]:
    found = []
    for shown in facts.single_things:
        here = [sound for sound in facts.heard_in(shown.scene) if sound.kind == "voice"]
        words = {sound.word for sound in here}
        if len(words) == 1 and _all_inside(here, shown):
            found.append(Found(words.pop(), (shown.span,), {"thing": shown.label}, tuple(facts.words)))
    return found


def _all_inside(sounds: list[Sound], shown: Shown) -> bool:
    start, end = shown.span
    return all(start <= sound.start and sound.end <= end for sound in sounds)


# Order


def _first_last_seen(facts: Facts) -> list[Found]:
    if len(facts.scenes) < 2:
        return []
    ends = {"first": facts.scenes[0], "last": facts.scenes[-1]}
    return [
        Found(scene.things[0].label, ((scene.start, scene.end),), {"which": which}, facts.labels)
        for which, scene in ends.items()
        if len(scene.things) == 1
    ]


def _first_last_heard(facts: Facts) -> list[Found]:
    runs = facts.runs
    if len(facts.kinds) < 2:
        return []
    first, last = runs[0], runs[-1]
    rivals, found = tuple(facts.kinds), []
    if runs[1].span[0] - first.span[0] >= CLEARLY_LATER:
        found.append(Found(first.kind, first.times, {"which": "first"}, rivals))
    others_end = max(run.span[1] for run in runs if run.kind != last.kind)
    if last.span[0] - runs[-2].events[-1].start >= CLEARLY_LATER and last.span[1] > others_end:
        found.append(Found(last.kind, last.times, {"which": "last"}, rivals))
    return found


def _next_seen(facts: Facts) -> list[Found]:
    found = []
    for shown in facts.single_things:
        for side, index in (("after", shown.index + 1), ("before", shown.index - 1)):
            if 0 <= index < len(facts.scenes) and len(facts.scenes[index].things) == 1:
                there = facts.scenes[index]
                spans = tuple(sorted([shown.span, (there.start, there.end)]))
                names = {"thing": shown.label, "side": side}
                found.append(Found(there.things[0].label, spans, names, facts.labels, (shown.label,)))
    return found


def _next_heard(facts: Facts) -> list[Found]:
    """Of two sounds in a row that do not overlap, one is asked for; the other must be heard nowhere else."""
    runs, rivals, found = facts.runs, tuple(facts.kinds), []
    often = [run.kind for run in runs]
    for before, after in pairwise(runs):
        if not _apart(before, after, runs):
            continue
        spans = (*before.times, *after.times)
        for known, asked, side in ((before, after, "after"), (after, before, "before")):
            if often.count(known.kind) == 1:
                names = {"sound": known.kind, "side": side}
                found.append(Found(asked.kind, spans, names, rivals, (known.kind,)))
    return found


def _apart(before: Source, after: Source, runs: list[Source]) -> bool:
    """Whether of two runs one ends before the other begins, and neither overlaps a third."""
    (start, end), (later_start, later_end) = before.span, after.span
    others = [run.span for run in runs if run is not before and run is not after]
    return end <= later_start and all(stop <= start or begin >= later_end for begin, stop in others)


def _order_seen(facts: Facts) -> list[Found]:
    pairs = [(a, b) for a, b in permutations(facts.single_things, 2) if a.index != b.index]
    return [
        Found(min(a, b, key=lambda one: one.index).label, _both(a.span, b.span), {"one": a.label, "other": b.label})
        for a, b in pairs
    ]


def _order_heard(facts: Facts) -> list[Found]:
    found = []
    for a, b in permutations(facts.kinds.values(), 2):
        first, second = sorted((a, b), key=lambda source: source.span[0])
        if first.span[1] <= second.span[0]:
            found.append(Found(first.kind, (*first.times, *second.times), {"one": a.kind, "other": b.kind}))
    return found


def _order_both(facts: Facts) -> list[Found]:
    found = []
    for source in facts.sources:
        for shown in facts.single_things:
            names, spans = {"sound": source.name, "thing": shown.label}, _both(source.span, shown.span)
            if source.span[1] <= shown.span[0]:
                found.append(Found("before", spans, names))
            elif source.span[0] >= shown.span[1]:
                found.append(Found("after", spans, names))
    return found


def _both(one: Span, other: Span) -> tuple[Span, ...]:
    return tuple(sorted((one, other)))


# Counting


def _things_found(scene: Scene, evidence: tuple[Span, ...], names: dict[str, str]) -> Found:
    count = len(scene.things)
    return Found(str(count), evidence, names, share=min(THINGS_WEIGHTS) / THINGS_WEIGHTS[count - 1])


def _count_seen(facts: Facts) -> list[Found]:
    ends = {"beginning": facts.scenes[0], "end": facts.scenes[-1]}
    return [_things_found(scene, ((scene.start, scene.end),), {"where": where}) for where, scene in ends.items()]


def _count_while_heard(facts: Facts) -> list[Found]:
    return [_things_found(scene, source.times, {"sound": source.name}) for source, scene in _sounding_scenes(facts)]


def _count_heard(facts: Facts) -> list[Found]:
    """Only of what was drawn as one row of strikes: any number of strikes is as likely as any other then."""
    rows = [facts.kinds[kind] for kind in STRUCK if kind in facts.kinds]
    rows = [row for row in rows if len({sound.scene for sound in row.events}) == 1]
    return [Found(str(len(row.events)), row.times, {"sound": row.kind}) for row in rows]


# Where in the clip


def _where_seen(facts: Facts) -> list[Found]:
    placed = [(shown, facts.third_of(shown.span, _MOST_OF_IT)) for shown in facts.single_things]
    return [Found(THIRDS[t], (shown.span,), {"it": shown.label}) for shown, t in placed if t is not None]


def _where_heard(facts: Facts) -> list[Found]:
    placed = [(source, facts.third_of(source.span, 1.0)) for source in facts.sources]
    return [Found(THIRDS[t], source.times, {"it": source.name}) for source, t in placed if t is not None]


# All of it


def _description(facts: Facts) -> list[Found]:
    scenes = "; ".join(_described(facts, scene) for scene in facts.scenes)
    return [Found(scenes, ((0.0, facts.seconds),))]


def _described(facts: Facts, scene: Scene) -> str:
    """One scene with the sounds that begin in it."""
    things = " and ".join(thing.label for thing in scene.things)
    sign = [f"{'digit' if scene.sign.text in DIGITS else 'letter'} {scene.sign.text}"] if scene.sign else []
    begun = [sound for sound in facts.sounds if scene.start <= sound.start < scene.end]
    heard = dict.fromkeys(f"voice says {sound.word}" if sound.word else sound.kind for sound in begun)
    return ", ".join([things, *sign, " and ".join(heard) or "silence"])


_SEEN, _HEARD, _SOURCE = "scene recognition", "audio recognition", "source localisation"
_COUNTS_SEEN = tuple(str(count + 1) for count in range(MOST_THINGS))
_COUNTS_HEARD = tuple(str(count + 1) for count in range(MOST_STRIKES))

_ALL = (
    Kind(
        "seen", _SEEN, "video", THINGS, ("Which coloured shape is shown?", "Which coloured shape can be seen?"), _seen
    ),
    Kind(
        "colour",
        _SEEN,
        "video",
        COLOURS,
        ("What colour is the {shape}?", "Which colour does the {shape} have?", "The {shape} is of which colour?"),
        _colour,
    ),
    Kind(
        "shape",
        _SEEN,
        "video",
        SHAPES,
        ("Which shape is {colour}?", "What is the {colour} shape?", "What shape does the {colour} thing have?"),
        _shape,
    ),
    Kind(
        "is_seen",
        _SEEN,
        "video",
        YES_NO,
        ("Is {thing} shown?", "Do you see {thing}?", "Does {thing} appear?"),
        _is_seen,
        choices=False,
        even=True,
    ),
    Kind(
        "motion",
        "motion",
        "video",
        MOTIONS,
        ("Which way does the {thing} move?", "Where does the {thing} go?", "In which direction does the {thing} move?"),
        _motion,
    ),
    Kind("digit", "reading", "video", DIGITS, ("Which digit is shown?", "What number can you read?"), _digit),
    Kind("letter", "reading", "video", LETTERS, ("Which letter is shown?", "What letter can you read?"), _letter),
    Kind("heard", _HEARD, "audio", SOUNDS, ("What is heard?", "Which sound can be heard?"), _heard),
    Kind(
        "is_heard",
        _HEARD,
        "audio",
        YES_NO,
        ("Do you hear {sound}?", "Can {sound} be heard?", "Is it true that one hears {sound}?"),
        _is_heard,
        choices=False,
        even=True,
    ),
    Kind("word", "spoken word", "audio", WORDS, ("Which word is spoken?", "What does the voice say?"), _word),
    Kind(
        "seen_while_heard",
        _SOURCE,
        "both",
        THINGS,
        (
            "Which coloured shape is shown while you hear the {sound}?",
            "When you hear the {sound}, which coloured shape can be seen?",
        ),
        _seen_while_heard,
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
        _colour_while_heard,
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
        _shape_while_heard,
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
        _heard_while_seen,
    ),
    Kind(
        "word_while_seen",
        _SOURCE,
        "both",
        WORDS,
        ("Which word is spoken while the {thing} is shown?", "When you see the {thing}, what does the voice say?"),
        _word_while_seen,
    ),
    Kind(
        "first_last_seen",
        "order",
        "video",
        THINGS,
        ("Which coloured shape is shown {which}?", "Which coloured shape is the {which} to be seen?"),
        _first_last_seen,
    ),
    Kind(
        "first_last_heard",
        "order",
        "audio",
        SOUNDS,
        ("What is heard {which}?", "Which sound is the {which} to be heard?"),
        _first_last_heard,
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
        _next_seen,
    ),
    Kind(
        "next_heard",
        "order",
        "audio",
        SOUNDS,
        ("What is heard right {side} the {sound}?", "Which sound comes just {side} the {sound}?"),
        _next_heard,
        guesses=len(SOUNDS) - 1,  # not the one that the question names
    ),
    Kind(
        "order_seen",
        "order",
        "video",
        THINGS,
        ("Which is shown first, the {one} or the {other}?", "What comes first, the {one} or the {other}?"),
        _order_seen,
        choices=False,
        guesses=2,
    ),
    Kind(
        "order_heard",
        "order",
        "audio",
        SOUNDS,
        ("Which is heard first, the {one} or the {other}?", "What do you hear first, the {one} or the {other}?"),
        _order_heard,
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
        _order_both,
        choices=False,
    ),
    Kind(
        "count_seen",
        "counting",
        "video",
        _COUNTS_SEEN,
        ("How many shapes are shown at the {where}?", "At the {where}, how many shapes can be seen?"),
        _count_seen,
        choices=False,
    ),
    Kind(
        "count_heard",
        "counting",
        "audio",
        _COUNTS_HEARD,
        ("How many times is the {sound} heard?", "How often do you hear the {sound}?"),
        _count_heard,
        choices=False,
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
        _count_while_heard,
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
        _where_seen,
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
        _where_heard,
        choices=False,
        even=True,
    ),
    Kind(
        "description",
        "description",
        "both",
        (),
        ("Describe the clip.", "What happens, in order?", "Describe what is shown and heard, scene by scene."),
        _description,
        choices=False,
    ),
)
KINDS = {kind.name: kind for kind in _ALL}
