"""A slow, plain reading of a script: what is shown and heard in every hundredth of a second, and what that answers.

Nothing here is taken from omniqa.nano.facts or .kinds. Questions are read from their text alone.
"""

import re

from omniqa.nano.picture import centre
from omniqa.nano.scenes import COLOURS, SHAPES, SOUNDS

TICK = 0.01
THING = re.compile(rf"((?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))")
SOUND = re.compile(rf"(word \w+|\b(?:{'|'.join(SOUNDS)})\b)")


class Timeline:
    """What a viewer meets at each tick: the scene, its things, its sign, and the sounds (kinds and words)."""

    def __init__(self, script):
        self.script = script
        times = [(tick + 0.5) * TICK for tick in range(round(script.seconds / TICK))]
        self.scenes = [next(s for s in script.scenes if s.start <= time < s.end) for time in times]
        self.shown = [{thing.label for thing in scene.things} for scene in self.scenes]
        sounding = [[s for s in script.sounds if s.start <= time < s.end] for time in times]
        self.heard = [{s.kind for s in now} for now in sounding]
        self.spoken = [{s.word for s in now if s.word} for now in sounding]

    def ticks_of_thing(self, label):
        return [tick for tick, now in enumerate(self.shown) if label in now]

    def ticks_of_sound(self, name):
        if name.startswith("word "):
            return [tick for tick, now in enumerate(self.spoken) if name[5:] in now]
        return [tick for tick, now in enumerate(self.heard) if name in now]


def true_answers(question, line):
    """Everything that is true on a timeline, as an answer to the question: of the options, if there are any."""
    text = question.text
    things, sounds = THING.findall(text), SOUND.findall(text)
    answers = _READERS[question.kind](line, text, things, sounds)
    return answers & set(question.options) if question.options else answers


def _union(sets):
    return set().union(*sets)


def _colour(line, text, things, sounds):
    shape = re.search("|".join(SHAPES), text.replace("shape", ""))[0]
    return {label.split()[0] for label in _union(line.shown) if label.endswith(shape)}


def _shape(line, text, things, sounds):
    colour = re.search("|".join(COLOURS), text)[0]
    return {label.split()[1] for label in _union(line.shown) if label.startswith(colour)}


def _motion(line, text, things, sounds):
    ticks = line.ticks_of_thing(things[0])
    scene = line.scenes[ticks[0]]
    assert ticks == [tick for tick, now in enumerate(line.scenes) if now is scene]
    thing = next(thing for thing in scene.things if thing.label == things[0])
    (x, y), (later_x, later_y) = centre(thing, 0.1), centre(thing, 0.6)
    moves = {"left": x - later_x, "right": later_x - x, "up": y - later_y, "down": later_y - y}
    return {way for way, far in moves.items() if far > 0.005} or {"nowhere"}


def _signs(line, wanted):
    return {scene.sign.text for scene in line.scenes if scene.sign and wanted(scene.sign.text)}


def _while_heard(line, sounds):
    """What is shown at the times of a sound; all of it in one scene."""
    ticks = line.ticks_of_sound(sounds[0])
    assert len({line.scenes[tick].start for tick in ticks}) == 1
    return line.shown[ticks[0]]


def _seen_while_heard(line, text, things, sounds):
    return _while_heard(line, sounds)


def _heard_while_seen(line, text, things, sounds):
    return _union(line.heard[tick] for tick in line.ticks_of_thing(things[0])) or {"nothing"}


def _word_while_seen(line, text, things, sounds):
    return _union(line.spoken[tick] for tick in line.ticks_of_thing(things[0]))


def _first_last_seen(line, text, things, sounds):
    return line.shown[0 if "first" in text else -1]


def _first_last_heard(line, text, things, sounds):
    sounding = [now for now in line.heard if now]
    return sounding[0 if "first" in text else -1]


def _next(line, ticks, what, text):
    after = what[ticks[-1] + 1 :] if "after" in text else what[: ticks[0]][::-1]
    return next(now for now in after if now)


def _next_seen(line, text, things, sounds):
    return _next(line, line.ticks_of_thing(things[0]), line.shown, text)


def _next_heard(line, text, things, sounds):
    asked = SOUND.findall(re.split("after|before", text)[1])
    return _next(line, line.ticks_of_sound(asked[0]), line.heard, text)


def _order_seen(line, text, things, sounds):
    first, second = sorted(things, key=lambda label: line.ticks_of_thing(label)[0])
    assert line.ticks_of_thing(first)[-1] < line.ticks_of_thing(second)[0]
    return {first}


def _order_heard(line, text, things, sounds):
    first, second = sorted(sounds, key=lambda name: line.ticks_of_sound(name)[0])
    assert line.ticks_of_sound(first)[-1] < line.ticks_of_sound(second)[0]
    return {first}


def _order_both(line, text, things, sounds):
    heard, shown = line.ticks_of_sound(sounds[0]), line.ticks_of_thing(things[0])
    return {"before"} if heard[-1] < shown[0] else {"after"} if heard[0] > shown[-1] else set()


def _count_seen(line, text, things, sounds):
    return {str(len(line.shown[0 if "beginning" in text else -1]))}


def _count_heard(line, text, things, sounds):
    ticks = line.ticks_of_sound(sounds[0])
    return {str(len(set(ticks) - {tick + 1 for tick in ticks}))}


def _where(line, ticks, share):
    third = len(line.shown) / 3
    parts = [sum(k * third - 1 <= tick <= (k + 1) * third for tick in ticks) for k in range(3)]
    names = ("beginning", "middle", "end")
    return {name for name, part in zip(names, parts, strict=True) if part >= share * len(ticks) - 1}


def _description(line, text, things, sounds):
    told = []
    for scene in line.script.scenes:
        ticks = [tick for tick, now in enumerate(line.scenes) if now is scene]
        heard = []
        for tick in ticks:
            before = line.heard[tick - 1] if tick else set()
            for kind in sorted(line.heard[tick] - before, key=SOUNDS.index):
                name = f"voice says {min(line.spoken[tick])}" if kind == "voice" else kind
                if name not in heard:
                    heard.append(name)
        things = sorted(line.shown[ticks[0]], key=lambda label: COLOURS.index(label.split()[0]))
        sign = scene.sign.text if scene.sign else ""
        signs = [f"{'digit' if sign.isdigit() else 'letter'} {sign}"] if sign else []
        told.append(", ".join([" and ".join(things), *signs, " and ".join(heard) or "silence"]))
    return {"; ".join(told)}


_READERS = {
    "seen": lambda line, *_: _union(line.shown),
    "colour": _colour,
    "shape": _shape,
    "is_seen": lambda line, text, things, sounds: {"yes" if line.ticks_of_thing(things[0]) else "no"},
    "motion": _motion,
    "digit": lambda line, *_: _signs(line, str.isdigit),
    "letter": lambda line, *_: _signs(line, str.isalpha),
    "heard": lambda line, *_: _union(line.heard),
    "is_heard": lambda line, text, things, sounds: {"yes" if line.ticks_of_sound(sounds[0]) else "no"},
    "word": lambda line, *_: _union(line.spoken),
    "seen_while_heard": _seen_while_heard,
    "colour_while_heard": lambda line, text, things, sounds: {s.split()[0] for s in _while_heard(line, sounds)},
    "shape_while_heard": lambda line, text, things, sounds: {s.split()[1] for s in _while_heard(line, sounds)},
    "heard_while_seen": _heard_while_seen,
    "word_while_seen": _word_while_seen,
    "first_last_seen": _first_last_seen,
    "first_last_heard": _first_last_heard,
    "next_seen": _next_seen,
    "next_heard": _next_heard,
    "order_seen": _order_seen,
    "order_heard": _order_heard,
    "order_both": _order_both,
    "count_seen": _count_seen,
    "count_heard": _count_heard,
    "count_while_heard": lambda line, text, things, sounds: {str(len(_while_heard(line, sounds)))},
    "where_seen": lambda line, text, things, sounds: _where(line, line.ticks_of_thing(things[0]), 2 / 3),
    "where_heard": lambda line, text, things, sounds: _where(line, line.ticks_of_sound(sounds[0]), 1),
    "description": _description,
}
