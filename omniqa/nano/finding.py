"""Where a clip has one answer to a question: a function for each kind of question, named as the kind is."""

from dataclasses import dataclass, field
from itertools import pairwise, permutations

from omniqa.nano.facts import CLEARLY_LATER, Facts, Shown, SoundSource, Span
from omniqa.nano.scenes import (
    COLOURS,
    DIGITS,
    LETTERS,
    SHAPES,
    SOUNDS,
    STRUCK,
    THINGS_WEIGHTS,
    Scene,
    Sound,
)

THINGS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
THIRDS = ("beginning", "middle", "end")
A_SOUND = {kind: kind if kind in ("noise", "clicks") else f"a {kind}" for kind in SOUNDS}
_MOST_OF_IT = 2 / 3  # of a scene must be in a third of the clip, for it to be shown there


@dataclass(frozen=True)
class AnsweredQuestion:
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


def with_article(label: str) -> str:
    """A thing's name with its article: "an orange ring"."""
    return f"an {label}" if label[0] in "aeiou" else f"a {label}"


# What is seen


def seen(facts: Facts) -> list[AnsweredQuestion]:
    """Any thing that is shown once; openly only where nothing else is."""
    labels, alone = facts.labels, len(facts.labels) == 1
    return [AnsweredQuestion(one.label, (one.span,), also_true=labels, open=alone) for one in facts.single_things]


def colour(facts: Facts) -> list[AnsweredQuestion]:
    """That of a shape which only one thing has."""
    colours = tuple(shown.thing.colour for shown in facts.things)
    shapes = [shown.thing.shape for shown in facts.things]
    single = [shown for shown in facts.things if shapes.count(shown.thing.shape) == 1]
    return [
        AnsweredQuestion(one.thing.colour, (one.span,), {"shape": one.thing.shape}, rivals=colours) for one in single
    ]


def shape(facts: Facts) -> list[AnsweredQuestion]:
    """That of a colour which only one thing has."""
    shapes = tuple(shown.thing.shape for shown in facts.things)
    colours = [shown.thing.colour for shown in facts.things]
    single = [shown for shown in facts.things if colours.count(shown.thing.colour) == 1]
    return [
        AnsweredQuestion(one.thing.shape, (one.span,), {"colour": one.thing.colour}, rivals=shapes) for one in single
    ]


def is_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Of what is not there, only such is asked of which the colour or the shape is."""
    parts = {word for label in facts.labels for word in label.split()}
    absent = [label for label in THINGS if label not in facts.labels and parts & set(label.split())]
    whole = ((0.0, facts.seconds),)
    there = [AnsweredQuestion("yes", (one.span,), {"thing": with_article(one.label)}) for one in facts.single_things]
    return there + [AnsweredQuestion("no", whole, {"thing": with_article(label)}) for label in absent]


def motion(facts: Facts) -> list[AnsweredQuestion]:
    """Of any thing that is shown once."""
    return [AnsweredQuestion(one.thing.motion, (one.span,), {"thing": one.label}) for one in facts.single_things]


def _sign(facts: Facts, known: tuple[str, ...]) -> list[AnsweredQuestion]:
    shown = [(scene.sign.text, (scene.start, scene.end)) for scene in facts.scenes if scene.sign]
    read = [(text, span) for text, span in shown if text in known]
    return [AnsweredQuestion(text, (span,)) for text, span in read] if len(read) == 1 else []


def digit(facts: Facts) -> list[AnsweredQuestion]:
    """Where one sign of a clip is a digit."""
    return _sign(facts, DIGITS)


def letter(facts: Facts) -> list[AnsweredQuestion]:
    """Where one sign of a clip is a letter."""
    return _sign(facts, LETTERS)


# What is heard


def heard(facts: Facts) -> list[AnsweredQuestion]:
    """Any kind of sound; openly only where there is no other."""
    kinds, alone = tuple(facts.kinds), len(facts.kinds) == 1
    if len(kinds) > len(SOUNDS) - 3:
        return []
    return [AnsweredQuestion(kind, source.times, also_true=kinds, open=alone) for kind, source in facts.kinds.items()]


def is_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Every kind of sound, there or not."""
    whole = ((0.0, facts.seconds),)
    there = [AnsweredQuestion("yes", source.times, {"sound": A_SOUND[kind]}) for kind, source in facts.kinds.items()]
    return there + [
        AnsweredQuestion("no", whole, {"sound": A_SOUND[kind]}) for kind in SOUNDS if kind not in facts.kinds
    ]


def word(facts: Facts) -> list[AnsweredQuestion]:
    """Where only one word is spoken."""
    return (
        [AnsweredQuestion(word, source.times) for word, source in facts.words.items()] if len(facts.words) == 1 else []
    )


# What is seen while something is heard, and the reverse


def _sounding_scenes(facts: Facts) -> list[tuple[SoundSource, Scene]]:
    placed = [(source, facts.scene_of(source)) for source in facts.sources]
    return [(source, facts.scenes[index]) for source, index in placed if index is not None]


def seen_while_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Where several things are shown, one of them among three that are not."""
    found = []
    for source, scene in _sounding_scenes(facts):
        here = tuple(thing.label for thing in scene.things)
        names = {"sound": source.name}
        alone = len(here) == 1
        found += [AnsweredQuestion(label, source.times, names, facts.labels, here, alone) for label in here]
    return found


def colour_while_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Where one thing alone is shown during a sound."""
    single = [(source, scene.things[0]) for source, scene in _sounding_scenes(facts) if len(scene.things) == 1]
    rivals = tuple(shown.thing.colour for shown in facts.things)
    return [AnsweredQuestion(thing.colour, source.times, {"sound": source.name}, rivals) for source, thing in single]


def shape_while_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Where one thing alone is shown during a sound."""
    single = [(source, scene.things[0]) for source, scene in _sounding_scenes(facts) if len(scene.things) == 1]
    rivals = tuple(shown.thing.shape for shown in facts.things)
    return [AnsweredQuestion(thing.shape, source.times, {"sound": source.name}, rivals) for source, thing in single]


def heard_while_seen(facts: Facts) -> list[AnsweredQuestion]:
    """One kind of sound, or nothing; sounds that go on beyond the scene leave it unclear what belongs to it."""
    rivals = (*facts.kinds, *(["nothing"] if any(not facts.heard_in(scene) for scene in facts.scenes) else []))
    found = []
    for shown in facts.single_things:
        here = facts.heard_in(shown.scene)
        kinds = {sound.kind for sound in here} or {"nothing"}
        if len(kinds) == 1 and _all_inside(here, shown):
            found.append(AnsweredQuestion(kinds.pop(), (shown.span,), {"thing": shown.label}, rivals))
    return found


def word_while_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Where one word is spoken in a scene, and wholly in it."""
    found = []
    for shown in facts.single_things:
        here = [sound for sound in facts.heard_in(shown.scene) if sound.kind == "voice"]
        words = {sound.word for sound in here}
        if len(words) == 1 and _all_inside(here, shown):
            found.append(AnsweredQuestion(words.pop(), (shown.span,), {"thing": shown.label}, tuple(facts.words)))
    return found


def _all_inside(sounds: list[Sound], shown: Shown) -> bool:
    start, end = shown.span
    return all(start <= sound.start and sound.end <= end for sound in sounds)


# Order


def first_last_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Where one thing alone is shown in the first scene, or the last."""
    if len(facts.scenes) < 2:
        return []
    ends = {"first": facts.scenes[0], "last": facts.scenes[-1]}
    return [
        AnsweredQuestion(scene.things[0].label, ((scene.start, scene.end),), {"which": which}, facts.labels)
        for which, scene in ends.items()
        if len(scene.things) == 1
    ]


def first_last_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Where one sound begins clearly before all others, or ends as the last."""
    runs = facts.runs
    if len(facts.kinds) < 2:
        return []
    first, last = runs[0], runs[-1]
    rivals, found = tuple(facts.kinds), []
    if runs[1].span[0] - first.span[0] >= CLEARLY_LATER:
        found.append(AnsweredQuestion(first.kind, first.times, {"which": "first"}, rivals))
    others_end = max(run.span[1] for run in runs if run.kind != last.kind)
    if last.span[0] - runs[-2].events[-1].start >= CLEARLY_LATER and last.span[1] > others_end:
        found.append(AnsweredQuestion(last.kind, last.times, {"which": "last"}, rivals))
    return found


def next_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Where one thing alone is shown in the scene after a thing's, or before it."""
    found = []
    for shown in facts.single_things:
        for side, index in (("after", shown.index + 1), ("before", shown.index - 1)):
            if 0 <= index < len(facts.scenes) and len(facts.scenes[index].things) == 1:
                there = facts.scenes[index]
                spans = tuple(sorted([shown.span, (there.start, there.end)]))
                names = {"thing": shown.label, "side": side}
                found.append(AnsweredQuestion(there.things[0].label, spans, names, facts.labels, (shown.label,)))
    return found


def next_heard(facts: Facts) -> list[AnsweredQuestion]:
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
                found.append(AnsweredQuestion(asked.kind, spans, names, rivals, (known.kind,)))
    return found


def _apart(before: SoundSource, after: SoundSource, runs: list[SoundSource]) -> bool:
    """Whether of two runs one ends before the other begins, and neither overlaps a third."""
    (start, end), (later_start, later_end) = before.span, after.span
    others = [run.span for run in runs if run is not before and run is not after]
    return end <= later_start and all(stop <= start or begin >= later_end for begin, stop in others)


def order_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Of two things in different scenes, whichever is named first."""
    pairs = [(a, b) for a, b in permutations(facts.single_things, 2) if a.index != b.index]
    return [
        AnsweredQuestion(
            min(a, b, key=lambda one: one.index).label, _both(a.span, b.span), {"one": a.label, "other": b.label}
        )
        for a, b in pairs
    ]


def order_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Of two sounds that do not overlap, whichever is named first."""
    found = []
    for a, b in permutations(facts.kinds.values(), 2):
        first, second = sorted((a, b), key=lambda source: source.span[0])
        if first.span[1] <= second.span[0]:
            found.append(AnsweredQuestion(first.kind, (*first.times, *second.times), {"one": a.kind, "other": b.kind}))
    return found


def order_both(facts: Facts) -> list[AnsweredQuestion]:
    """Of a sound that is over before a thing is shown, or begins after it."""
    found = []
    for source in facts.sources:
        for shown in facts.single_things:
            names, spans = {"sound": source.name, "thing": shown.label}, _both(source.span, shown.span)
            if source.span[1] <= shown.span[0]:
                found.append(AnsweredQuestion("before", spans, names))
            elif source.span[0] >= shown.span[1]:
                found.append(AnsweredQuestion("after", spans, names))
    return found


def _both(one: Span, other: Span) -> tuple[Span, ...]:
    return tuple(sorted((one, other)))


# Counting


def _things_found(scene: Scene, evidence: tuple[Span, ...], names: dict[str, str]) -> AnsweredQuestion:
    count = len(scene.things)
    return AnsweredQuestion(str(count), evidence, names, share=min(THINGS_WEIGHTS) / THINGS_WEIGHTS[count - 1])


def count_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Things in the first scene, and in the last."""
    ends = {"beginning": facts.scenes[0], "end": facts.scenes[-1]}
    return [_things_found(scene, ((scene.start, scene.end),), {"where": where}) for where, scene in ends.items()]


def count_while_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Things in the scene that a sound belongs to."""
    return [_things_found(scene, source.times, {"sound": source.name}) for source, scene in _sounding_scenes(facts)]


def count_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Only of what was drawn as one row of strikes: any number of strikes is as likely as any other then."""
    rows = [facts.kinds[kind] for kind in STRUCK if kind in facts.kinds]
    rows = [row for row in rows if len({sound.scene for sound in row.events}) == 1]
    return [AnsweredQuestion(str(len(row.events)), row.times, {"sound": row.kind}) for row in rows]


# Where in the clip


def where_seen(facts: Facts) -> list[AnsweredQuestion]:
    """Things that are shown in one third of the clip, or nearly."""
    placed = [(shown, facts.third_of(shown.span, _MOST_OF_IT)) for shown in facts.single_things]
    return [AnsweredQuestion(THIRDS[t], (shown.span,), {"it": shown.label}) for shown, t in placed if t is not None]


def where_heard(facts: Facts) -> list[AnsweredQuestion]:
    """Sounds that are heard in one third of the clip."""
    placed = [(source, facts.third_of(source.span, 1.0)) for source in facts.sources]
    return [AnsweredQuestion(THIRDS[t], source.times, {"it": source.name}) for source, t in placed if t is not None]


# All of it


def description(facts: Facts) -> list[AnsweredQuestion]:
    """Every clip: its scenes in order."""
    scenes = "; ".join(_described(facts, scene) for scene in facts.scenes)
    return [AnsweredQuestion(scenes, ((0.0, facts.seconds),))]


def _described(facts: Facts, scene: Scene) -> str:
    """One scene with the sounds that begin in it."""
    things = " and ".join(thing.label for thing in scene.things)
    sign = [f"{'digit' if scene.sign.text in DIGITS else 'letter'} {scene.sign.text}"] if scene.sign else []
    begun = [sound for sound in facts.sounds if scene.start <= sound.start < scene.end]
    heard = dict.fromkeys(f"voice says {sound.word}" if sound.word else sound.kind for sound in begun)
    return ", ".join([things, *sign, " and ".join(heard) or "silence"])
