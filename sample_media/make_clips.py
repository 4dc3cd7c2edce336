"""Make the clips beside this file, and README.md that tells what happens in each.

python sample_media/make_clips.py
"""

from dataclasses import dataclass, replace
from pathlib import Path

from omniqa.nano import world
from omniqa.nano.clips import write_clip
from omniqa.nano.scenes import Scene, Script, Sign, Sound, Thing
from omniqa.nano.words import spoken_seconds

SIDE, FRAME_RATE, SUPERSAMPLING = 448, 30, 2  # nano is shown 168 pixels a side, two frames a second
HEAD = """# Sample media

Clips of [nano's world](../docs/nano.md), made from scripts, so that what happens in them is known. None of them was
used in training.

| file | length | what happens, scene by scene | ask |
|---|---|---|---|
"""
TAIL = """
```bash
omniqa ask sample_media/hello.mp4 "Which coloured shape is shown while you hear the voice?" --model nano
omniqa nano questions sample_media/hello.mp4
```

All by `python sample_media/make_clips.py`.
"""


@dataclass(frozen=True)
class Part:
    """One scene and its sounds, whose times count from the scene's beginning."""

    background: str
    things: tuple[Thing, ...]
    sounds: tuple[Sound, ...]
    sign: Sign | None = None


def alone(label: str, motion: str) -> Thing:
    """A large shape in the middle."""
    return _thing(label, motion, 0.24, 0.45, 0.5)


def above(label: str, motion: str) -> Thing:
    """A smaller shape in the upper half."""
    return _thing(label, motion, 0.15, 0.55, 0.28)


def below(label: str, motion: str) -> Thing:
    """A smaller shape in the lower half."""
    return _thing(label, motion, 0.15, 0.55, 0.73)


def _thing(label: str, motion: str, size: float, travel: float, y: float) -> Thing:
    colour, shape = label.split()
    return Thing(shape, colour, 0.5, y, size, motion, 0.0 if motion == "nowhere" else travel, sweep=1.0)


def sign(text: str) -> Sign:
    """A digit or letter in the lower half."""
    return Sign(text, 0.5, 0.73, 0.21)


def sound(kind: str, start: float, seconds: float, pitch: float = 0.0) -> Sound:
    """A sound that is no word."""
    return Sound(kind, start, start + seconds, 0, 0.35, pitch)


def word(text: str, start: float = 0.9) -> Sound:
    """A spoken word."""
    return Sound("voice", start, start + spoken_seconds(text, 0), 0, 0.4, 0.0, text)


def script(seconds: float, *parts: Part) -> Script:
    """The script of a clip of scenes that last `seconds` each. The camera has no noise, and the room hardly any."""
    scenes, sounds = [], []
    for index, part in enumerate(parts):
        begin = index * seconds
        things = tuple(replace(thing, sweep=seconds) for thing in part.things)
        scenes.append(Scene(begin, begin + seconds, part.background, 0.0, things, part.sign))
        sounds += [replace(one, start=begin + one.start, end=begin + one.end, scene=index) for one in part.sounds]
    return Script(0, seconds * len(parts), tuple(scenes), tuple(sounds), room_noise=0.0003)


VOICE = "Which coloured shape is shown while you hear the voice?"
# name: the script, and what to ask
CLIPS = {
    "hello": (
        script(
            4,
            Part("navy", (above("yellow star", "left"),), (word("hello"), sound("bell", 2.4, 0.9, 1200)), sign("C")),
        ),
        (VOICE, "What does the voice say?", "Is a yellow star shown?"),
    ),
    "tiger": (
        script(
            4,
            Part("black", (alone("green heart", "down"),), (word("tiger"),)),
            Part("forest", (alone("yellow diamond", "left"),), (sound("noise", 1.0, 1.5),)),
        ),
        ("Which is heard first, the voice or the noise?", VOICE, "What happens, in order?"),
    ),
    "river": (
        script(
            3,
            Part("black", (alone("blue circle", "right"),), (word("river"),)),
            Part("brown", (alone("pink heart", "up"),), (sound("bell", 0.8, 1.1, 1100),)),
            Part("navy", (alone("yellow star", "left"),), (sound("chirp", 0.9, 1.0, 700),)),
            Part("forest", (alone("red ring", "down"),), (sound("hum", 0.8, 2.0, 150),)),
        ),
        ("Which word is spoken?", "What is heard first?", "What happens, in order?"),
    ),
    "window": (
        script(
            4,
            Part("grey", (above("orange triangle", "right"), below("cyan diamond", "left")), (word("window"),)),
            Part("navy", (alone("green circle", "up"),), (sound("bell", 1.0, 1.1, 1200),)),
            Part("brown", (alone("yellow diamond", "nowhere"),), (sound("noise", 0.9, 2.0),)),
            Part("black", (above("blue circle", "right"),), (sound("beep", 1.2, 0.8, 1000),), sign("7")),
        ),
        ("Which digit is shown?", "What does the voice say?"),
    ),
}


def main() -> None:
    """Write the clips and the page."""
    here, rows = Path(__file__).parent, []
    for name, (made, asked) in CLIPS.items():
        write_clip(here / f"{name}.mp4", made, SIDE, FRAME_RATE, SUPERSAMPLING)
        row = f"| `{name}.mp4` | {made.seconds:g} s | {world.description(made)} | {'<br>'.join(asked)} |\n"
        rows.append(row)
    (here / "README.md").write_text(HEAD + "".join(rows) + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
