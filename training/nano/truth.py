"""What is true of each audio and video token of a clip: the names of what is shown and heard there and then."""

import numpy as np
from numpy.typing import NDArray

from omniqa.models.base import STANDARD, MediaShape
from omniqa.nano.picture import centre, scene_at
from omniqa.nano.scenes import COLOURS, DIGITS, LETTERS, MOTIONS, SHAPES, SOUNDS, Scene, Script
from omniqa.nano.words import WORDS

SEEN = (*COLOURS, *SHAPES, *MOTIONS, *DIGITS, *LETTERS)
HEARD = (*SOUNDS, *WORDS)

_PER_SECOND = STANDARD.audio_tokens_per_second


def seen(script: Script, shape: MediaShape, fps: int) -> NDArray[np.float32]:
    """(grids, tokens_per_grid, SEEN), 1 where it lies on the token, NaN throughout where a scene ends inside the grid.

    Args:
        fps: frames a second, two of which are a grid.
    """
    names = np.zeros((shape.grids, shape.rows, shape.cols, len(SEEN)), np.float32)
    for grid, start in zip(names, shape.grid_times, strict=True):
        times = [float(start) + k / fps for k in range(2)]
        scene, later = (scene_at(script, time) for time in times)
        if scene != later:
            grid[:] = np.nan
            continue
        for thing in scene.things:
            for time in times:
                covered = _covered(*centre(thing, time - scene.start), thing.size, *grid.shape[:2])
                for name in (thing.colour, thing.shape, thing.motion):
                    grid[..., SEEN.index(name)][covered] = 1
        if scene.sign:
            covered = _covered(scene.sign.x, scene.sign.y, scene.sign.size, *grid.shape[:2])
            grid[..., SEEN.index(scene.sign.text)][covered] = 1
    return names.reshape(shape.grids, shape.tokens_per_grid, len(SEEN))


def heard(script: Script, shape: MediaShape) -> NDArray[np.float32]:
    """(audio tokens, HEARD), 1 where it is heard then."""
    names = np.zeros((shape.audio_tokens, len(HEARD)), np.float32)
    for sound in script.sounds:
        tokens = slice(int(sound.start * _PER_SECOND), int(sound.end * _PER_SECOND) + 1)
        names[tokens, HEARD.index(sound.kind)] = 1
        if sound.word:
            names[tokens, HEARD.index(sound.word)] = 1
    return names


def shown(script: Script, shape: MediaShape) -> NDArray[np.float32]:
    """(audio tokens, SEEN), 1 where it is shown anywhere in the picture while the token is heard."""
    names = np.zeros((shape.audio_tokens, len(SEEN)), np.float32)
    for scene in script.scenes:
        tokens = slice(int(scene.start * _PER_SECOND), int(scene.end * _PER_SECOND))
        names[tokens, [SEEN.index(name) for name in _names(scene)]] = 1
    return names


def _names(scene: Scene) -> set[str]:
    things = {name for thing in scene.things for name in (thing.colour, thing.shape, thing.motion)}
    return things | ({scene.sign.text} if scene.sign else set())


def _covered(x: float, y: float, size: float, rows: int, cols: int) -> NDArray[np.bool_]:
    """(rows, cols), the tokens with their middle in a circle; where it is too small for any, the nearest one."""
    down, right = np.mgrid[:rows, :cols]
    distance = np.hypot((right + 0.5) / cols - x, (down + 0.5) / rows - y)
    return distance <= max(size, distance.min())
