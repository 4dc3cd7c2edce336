"""Plain ways to see what is in a picture, for pictures from arrays and from files alike."""

import numpy as np

from omniqa.nano.picture import BACKGROUND_RGB, COLOUR_RGB, centre

_POINT = {"ring": (0.8, 0.0)}  # of a unit shape, where its colour surely is; for all others the middle


def colour_at(picture, thing, elapsed):
    """Name of the colour nearest to what a few pixels of a thing show."""
    height, width = picture.shape[:2]
    x, y = centre(thing, elapsed)
    to_x, to_y = _POINT.get(thing.shape, (0.0, 0.0))
    radius = thing.size * min(height, width)
    column, row = int(x * width + to_x * radius), int(y * height + to_y * radius)
    patch = picture[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    return nearest(np.median(patch, axis=(0, 1)), COLOUR_RGB | BACKGROUND_RGB)


def nearest(rgb, palette):
    return min(palette, key=lambda name: np.abs(rgb - np.array(palette[name])).sum())


def background_of(picture):
    """Name of the background: things cover less than half of a picture."""
    return nearest(np.median(picture.reshape(-1, 3), axis=0), BACKGROUND_RGB)


def mask_of(picture, colour):
    """Where a colour is, coding noise or not: bool (H, W)."""
    names = [*COLOUR_RGB, *BACKGROUND_RGB]
    palette = np.array([*COLOUR_RGB.values(), *BACKGROUND_RGB.values()])
    near = np.abs(picture[:, :, None].astype(int) - palette).sum(-1).argmin(-1)
    return near == names.index(colour)
