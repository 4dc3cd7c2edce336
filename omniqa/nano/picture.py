"""From a script to pictures."""

from functools import lru_cache
from math import sqrt
from random import Random

import numpy as np

from omniqa.nano.glyphs import GLYPHS
from omniqa.nano.scenes import MOTION_STEPS, Scene, Script, Sign, Thing

COLOUR_RGB = {
    "red": (225, 35, 35),
    "orange": (255, 135, 0),
    "yellow": (250, 230, 40),
    "green": (40, 190, 60),
    "cyan": (60, 220, 225),
    "blue": (45, 85, 245),
    "pink": (255, 110, 200),
    "white": (245, 245, 245),
}
BACKGROUND_RGB = {
    "black": (10, 10, 12),
    "grey": (84, 84, 88),
    "navy": (14, 20, 66),
    "brown": (66, 40, 20),
    "forest": (14, 52, 30),
}
_INK = (245, 245, 245)


def frames(script: Script, fps: float = 2.0, height: int = 168, width: int = 168) -> np.ndarray:
    """All pictures of a clip at times k / fps.

    Returns:
        uint8 RGB, shape (F, height, width, 3).
    """
    count = int(np.ceil(script.seconds * fps - 1e-9))
    return np.stack([frame_at(script, index / fps, height, width) for index in range(count)])


def frame_at(script: Script, time: float, height: int = 168, width: int = 168) -> np.ndarray:
    """The picture at `time` (seconds; the last scene stays on): uint8 RGB, shape (height, width, 3)."""
    scene = scene_at(script, time)
    planes = np.empty((3, height, width), np.float32)  # colour planes first: several times faster than pixels first
    planes[:] = _column(BACKGROUND_RGB[scene.background])[..., None]
    for thing in scene.things:
        _draw_thing(planes, thing, time - scene.start)
    if scene.sign:
        _draw_sign(planes, scene.sign)
    # The camera's noise belongs to the moment: whatever the frame rate, the same time gives the same picture.
    grain = _grain(height * width)
    first = Random(f"{script.seed} {round(1000 * time)}").randrange(len(grain) - height * width)
    planes += np.float32(scene.noise) * grain[first : first + height * width].reshape(height, width)
    return np.ascontiguousarray(np.clip(planes, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def scene_at(script: Script, time: float) -> Scene:
    """The scene that is shown at `time`."""
    return next((scene for scene in script.scenes if time < scene.end - 1e-9), script.scenes[-1])


def centre(thing: Thing, elapsed: float) -> tuple[float, float]:
    """Where a thing is, `elapsed` seconds into its scene: x and y as fractions of width and height."""
    along = (elapsed / thing.sweep % 1.0 - 0.5) * thing.travel
    step_x, step_y = MOTION_STEPS[thing.motion]
    return thing.x + step_x * along, thing.y + step_y * along


@lru_cache(maxsize=4)
def _grain(pixels: int) -> np.ndarray:
    """Noise for many pictures, each of which takes a piece of it: drawing new noise would take most of the time."""
    return np.random.default_rng(0).standard_normal(4 * pixels, np.float32)


def _draw_thing(planes: np.ndarray, thing: Thing, elapsed: float) -> None:
    height, width = planes.shape[1:]
    x, y = centre(thing, elapsed)
    radius = thing.size * min(height, width)
    top, bottom = _bounds(y * height, radius, height)
    left, right = _bounds(x * width, radius, width)
    u = ((np.arange(left, right, dtype=np.float32) + 0.5 - x * width) / radius)[None, :]
    v = ((np.arange(top, bottom, dtype=np.float32) + 0.5 - y * height) / radius)[:, None]
    planes[:, top:bottom, left:right][:, _inside(thing.shape, u, v)] = _column(COLOUR_RGB[thing.colour])


def _bounds(middle: float, radius: float, size: int) -> tuple[int, int]:
    return max(0, int(middle - radius)), min(size, int(middle + radius) + 1)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points are in a shape of radius 1 around the origin; u goes right, v down."""
    match shape:
        case "circle":
            return u * u + v * v < 1
        case "ring":
            return abs(u * u + v * v - 0.65) < 0.35
        case "square":
            return np.maximum(abs(u), abs(v)) < 0.85
        case "diamond":
            return abs(u) * 1.3 + abs(v) < 1
        case "triangle":
            return (v < 0.8) & (abs(u) < 0.55 * (v + 1))
        case "cross":
            return np.minimum(abs(u), abs(v)) < 0.3
        case "star":
            return _star(u, v)
        case "heart":
            w = -1.15 * v + 0.15
            return (1.25 * u * u + w * w - 0.75) ** 3 < 2.2 * u * u * w**3
    raise ValueError(f"There is no shape {shape}.")


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points: within a fifth of the circle, the side from the tip to the notch is a straight line."""
    fifth = 2 * np.pi / 5
    angle = abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)
    distance = np.hypot(u, v)
    notch = 0.42
    tip_x, tip_y = notch * np.cos(fifth / 2), notch * np.sin(fifth / 2)
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    return (1 - x) * tip_y > y * (1 - tip_x)


def _draw_sign(planes: np.ndarray, sign: Sign) -> None:
    """The glyph of 5 x 7 points, as high as a shape of the same size is."""
    height, width = planes.shape[1:]
    glyph = GLYPHS[sign.text]
    point = 2 * sign.size * min(height, width) / sqrt(5**2 + 7**2)
    top, left = sign.y * height - 3.5 * point, sign.x * width - 2.5 * point
    rows, columns = np.arange(int(top), int(top + 7 * point)), np.arange(int(left), int(left + 5 * point))
    row = np.clip((rows + 0.5 - top) / point, 0, 6).astype(int)
    column = np.clip((columns + 0.5 - left) / point, 0, 4).astype(int)
    planes[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:, glyph[row][:, column]] = _column(_INK)


def _column(rgb: tuple[int, int, int]) -> np.ndarray:
    return np.array(rgb, np.float32)[:, None]
