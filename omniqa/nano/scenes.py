"""The script of a clip: which shapes are shown and which sounds are heard, and when. All else follows from it.

Everything is drawn independently: a sound tells nothing about the picture, nor the picture about the sounds.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from random import Random

from omniqa.errors import UsageError
from omniqa.nano.words import TAKES, WORDS, spoken_seconds

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink", "white")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring")
MOTION_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}  # x, y from the top
MOTIONS = tuple(MOTION_STEPS)
BACKGROUNDS = ("black", "grey", "navy", "brown", "forest")
DIGITS = tuple("0123456789")
LETTERS = tuple("ACEFHKLPTX")
SOUNDS = ("hum", "beep", "chirp", "noise", "clicks", "bell", "voice")

SHORTEST_SCENE = 1.5  # seconds
LONGEST_SWEEP = 4.0  # seconds; a shape that moves for longer starts its way again
MOST_THINGS = 3
THINGS_WEIGHTS = (3, 1, 1)  # of scenes with one, two and three shapes
MOST_STRIKES = 3
STRUCK = ("beep", "chirp", "bell")  # these come one, two or three times in a row

_SIGN_SHARE, _SECOND_SHARE, _STRAY_SHARE = 0.25, 0.15, 0.25  # how often there is one
_MARGIN = 0.1  # seconds of a scene without its sounds, at both ends
_APART = 0.2  # seconds, at least, between two sounds of a kind
_STRIKE, _STRIKE_PERIOD = 0.25, 0.45  # seconds, where there are several
_SINGLE_STRIKE, _LASTING = (0.3, 1.2), (0.8, 2.5)  # seconds
_PITCH = {"hum": (110.0, 200.0), "beep": (700.0, 1500.0), "chirp": (500.0, 900.0), "bell": (900.0, 1600.0)}  # Hz
_CLICKS_A_SECOND = (6.0, 12.0)
_LOUD, _STRAY_LOUD = (0.2, 0.4), (0.1, 0.2)
_CAMERA_NOISE = (0.0, 10.0)  # standard deviation, of 255
_ROOM_NOISE = (0.0002, 0.002)
_BIG, _SMALL, _SIGN_SIZE = (0.12, 0.28), (0.10, 0.15), (0.15, 0.22)  # a shape alone; one of several; a sign

Cell = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """A shape in a scene.

    Attributes:
        shape: one of SHAPES.
        colour: one of COLOURS.
        x: middle of its way, as a fraction of the picture's width.
        y: likewise, of its height, from the top.
        size: radius, as a fraction of the picture's shorter side.
        motion: one of MOTIONS.
        travel: length of its way, as a fraction of the side it moves along.
        sweep: seconds it takes for its way, after which it starts again.
    """

    shape: str
    colour: str
    x: float
    y: float
    size: float
    motion: str
    travel: float
    sweep: float

    @property
    def label(self) -> str:
        """What it is called: "red circle"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Sign:
    """A digit or letter in a scene; place and size as of a Thing."""

    text: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """What is shown from `start` to `end` (seconds, the end not in it). Things are in the order of COLOURS."""

    start: float
    end: float
    background: str
    noise: float
    things: tuple[Thing, ...]
    sign: Sign | None


@dataclass(frozen=True)
class Sound:
    """One sound event.

    Attributes:
        kind: one of SOUNDS.
        start: seconds.
        end: seconds.
        scene: index of the scene that it belongs to and lies in; None for a stray sound, which keeps to no scene.
        loudness: peak amplitude, full scale being 1.
        pitch: Hz; clicks a second; 0 where it means nothing.
        word: what the voice says.
        take: which of the bank's takes of the word.
    """

    kind: str
    start: float
    end: float
    scene: int | None
    loudness: float
    pitch: float
    word: str = ""
    take: int = 0


@dataclass(frozen=True)
class Script:
    """A whole clip: scenes without gaps from 0 to `seconds`, sounds in the order of their starts."""

    seed: int
    seconds: float
    scenes: tuple[Scene, ...]
    sounds: tuple[Sound, ...]
    room_noise: float


def draw(seed: int, seconds: float = 8.0, scenes: int = 2) -> Script:
    """Draw the script of a clip; the same arguments give the same script.

    Args:
        seed: any integer.
        seconds: length of the clip, at least 1.5 s a scene; taken in tenths of a second.
        scenes: how many; the more, the harder are the questions.

    Raises:
        UsageError: there is no scene, or no time for so many.
    """
    tenths = round(10 * seconds)
    if scenes < 1 or tenths < 10 * SHORTEST_SCENE * scenes:
        raise UsageError(
            f"A clip has one scene or more, each of {SHORTEST_SCENE} s or more: not {scenes} in {seconds:g} s."
        )
    rng = Random(f"{seed} {tenths} {scenes}")
    cuts = _cuts(rng, tenths, scenes)
    shown = tuple(_scene(rng, start, end) for start, end in pairwise(cuts))
    sounds = [sound for index, scene in enumerate(shown) for sound in _sounds_of(rng, index, scene)]
    if scenes > 1 and rng.random() < _STRAY_SHARE:
        sounds += _stray(rng, tenths / 10, sounds)
    sounds.sort(key=lambda sound: (sound.start, SOUNDS.index(sound.kind)))
    return Script(seed, tenths / 10, shown, tuple(sounds), rng.uniform(*_ROOM_NOISE))


def _cuts(rng: Random, tenths: int, scenes: int) -> list[float]:
    """Times at which scenes begin, and the end."""
    shortest = round(10 * SHORTEST_SCENE)
    spare = tenths - shortest * scenes
    extra = [0, *sorted(rng.randint(0, spare) for _ in range(scenes - 1)), spare]
    return [(index * shortest + more) / 10 for index, more in enumerate(extra)]


def _scene(rng: Random, start: float, end: float) -> Scene:
    count = rng.choices(range(1, MOST_THINGS + 1), THINGS_WEIGHTS)[0]
    signs = 1 if rng.random() < _SIGN_SHARE else 0
    cells = _cells(rng, count + signs)
    sizes = _BIG if len(cells) == 1 else _SMALL
    sweep = (end - start) / ceil((end - start) / LONGEST_SWEEP)
    looks = zip(rng.sample(COLOURS, count), rng.sample(SHAPES, count), strict=True)
    things = [_thing(rng, shape, colour, cells.pop(), sizes, sweep) for colour, shape in looks]
    things.sort(key=lambda thing: COLOURS.index(thing.colour))
    sign = _sign(rng, cells.pop()) if signs else None
    return Scene(start, end, rng.choice(BACKGROUNDS), rng.uniform(*_CAMERA_NOISE), tuple(things), sign)


def _cells(rng: Random, count: int) -> list[Cell]:
    """Parts of the picture (left, top, width, height) that do not overlap, so that nothing hides anything."""
    if count == 1:
        return [(0.0, 0.0, 1.0, 1.0)]
    if count == 2:
        cells = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)]
        if rng.random() < 0.5:
            cells = [(top, left, height, width) for left, top, width, height in cells]
    else:
        cells = [(left, top, 0.5, 0.5) for left in (0.0, 0.5) for top in (0.0, 0.5)]
    return rng.sample(cells, count)


def _thing(rng: Random, shape: str, colour: str, cell: Cell, sizes: tuple[float, float], sweep: float) -> Thing:
    size, motion = rng.uniform(*sizes), rng.choice(MOTIONS)
    step_x, step_y = MOTION_STEPS[motion]
    left, top, width, height = cell
    room_x, room_y = 0.98 * width - 2 * size, 0.98 * height - 2 * size
    travel = rng.uniform(0.7, 1.0) * (abs(step_x) * room_x + abs(step_y) * room_y)
    x = left + width / 2 + (rng.random() - 0.5) * (room_x - abs(step_x) * travel)
    y = top + height / 2 + (rng.random() - 0.5) * (room_y - abs(step_y) * travel)
    return Thing(shape, colour, x, y, size, motion, travel, sweep)


def _sign(rng: Random, cell: Cell) -> Sign:
    left, top, width, height = cell
    size = rng.uniform(*_SIGN_SIZE)
    x = left + width / 2 + (rng.random() - 0.5) * (0.98 * width - 2 * size)
    y = top + height / 2 + (rng.random() - 0.5) * (0.98 * height - 2 * size)
    return Sign(rng.choice(rng.choice((DIGITS, LETTERS))), x, y, size)


def _sounds_of(rng: Random, index: int, scene: Scene) -> list[Sound]:
    """Silence or one kind of sound, each as likely as any other; at times a second kind, which may overlap it."""
    first = rng.choice((None, *SOUNDS))
    if first is None:
        return []
    kinds = [first]
    if rng.random() < _SECOND_SHARE:
        kinds.append(rng.choice([kind for kind in SOUNDS if kind != first]))
    window = (scene.start + _MARGIN, scene.end - _MARGIN)
    return [sound for kind in kinds for sound in _events(rng, kind, window, index, _LOUD)]


def _stray(rng: Random, seconds: float, others: list[Sound]) -> list[Sound]:
    """A sound at any time of the clip; none if it would run into another of its kind and could not be told from it."""
    stray = _events(rng, rng.choice(SOUNDS), (0.0, seconds), None, _STRAY_LOUD)
    start, end = stray[0].start - _APART, stray[-1].end + _APART
    blurred = any(other.kind == stray[0].kind and other.start < end and other.end > start for other in others)
    return [] if blurred else stray


def _events(
    rng: Random, kind: str, window: tuple[float, float], scene: int | None, loud: tuple[float, float]
) -> list[Sound]:
    """One sound within the window, or a row of strikes."""
    loudness, room = rng.uniform(*loud), window[1] - window[0]
    pitch = rng.uniform(*(_CLICKS_A_SECOND if kind == "clicks" else _PITCH.get(kind, (0.0, 0.0))))
    word, take, strikes = "", 0, 1
    if kind == "voice":
        word, take = rng.choice(WORDS), rng.randrange(TAKES)
        length = spoken_seconds(word, take)
    elif kind in STRUCK:
        strikes = rng.randint(1, MOST_STRIKES)
        length = _STRIKE if strikes > 1 else round(rng.uniform(*_SINGLE_STRIKE), 2)
    else:
        length = round(rng.uniform(_LASTING[0], min(_LASTING[1], room)), 2)
    whole = (strikes - 1) * _STRIKE_PERIOD + length
    first = round(window[0] + rng.random() * (room - whole), 2)
    starts = [round(first + strike * _STRIKE_PERIOD, 2) for strike in range(strikes)]
    return [Sound(kind, start, start + length, scene, loudness, pitch, word, take) for start in starts]
