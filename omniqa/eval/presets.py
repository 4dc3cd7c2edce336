"""Frames, pixels and answer lengths of the harnesses; docs/eval.md has them in a table."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from omniqa.errors import UsageError
from omniqa.media.sampling import ClipOptions
from omniqa.runtime.generation_options import GenerationOptions

_TOKEN = 28 * 28  # pixels of a token, in which the harnesses count
_MOST_FRAMES = 768  # of the published preprocessing, where the harness sets no bound of its own
_TOTAL = round(128_000 * 0.9) * _TOKEN  # likewise
_VIDEO_TOTAL = 24_576 * _TOKEN
_DENSE = 1000.0  # frames a second; a fixed number of frames is the tighter bound then


@dataclass(frozen=True)
class Preset:
    """Which frames of a clip are used, and how long an answer may be.

    Attributes:
        fps: frames a second.
        max_frames: most frames.
        min_pixels: fewest of a frame.
        max_pixels: most of a frame.
        total_pixels: most of all frames, as `ClipOptions` counts them.
        max_new_tokens: longest answer.
    """

    fps: float
    max_frames: int
    min_pixels: int
    max_pixels: int
    total_pixels: int
    max_new_tokens: int

    def sampling(self, options: ClipOptions, given: Collection[str]) -> ClipOptions:
        """These options with the preset's values, but for those that are `given`, by name."""
        return replace(options, **self._rest(given, without="max_new_tokens"))

    def decoding(self, options: GenerationOptions, given: Collection[str]) -> GenerationOptions:
        """These options with the preset's answer length, unless it is `given`."""
        return options if "max_new_tokens" in given else replace(options, max_new_tokens=self.max_new_tokens)

    def _rest(self, given: Collection[str], without: str) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in (*given, without)}


def _lmms_eval(layout: str) -> Preset:
    return Preset(2.0, _MOST_FRAMES, 128 * _TOKEN, 768 * _TOKEN, _TOTAL, 1024 if layout == "worldsense" else 16)


def _omnizip(layout: str) -> Preset:
    return Preset(2.0, _MOST_FRAMES, 128 * _TOKEN, 768 * _TOKEN, _TOTAL, 100)


def _omnizip_paper(layout: str) -> Preset:
    return replace(_omnizip(layout), max_pixels=128 * _TOKEN)


def _seats(layout: str) -> Preset:
    frames = {"worldsense": 128, "dailyomni": 128, "omnivideobench": 256}.get(layout, _MOST_FRAMES)
    tokens = {"worldsense": 1024, "dailyomni": 32, "omnivideobench": 32}.get(layout, 16)
    return Preset(2.0, frames, 128 * _TOKEN, 144 * _TOKEN, _VIDEO_TOTAL, tokens)


def _vlmevalkit(fps: float, frames: int) -> Callable[[str], Preset]:
    return lambda layout: Preset(fps, frames, 128 * _TOKEN, 768 * _TOKEN, _VIDEO_TOTAL, 2048)


_PRESETS: Mapping[str, Callable[[str], Preset]] = {
    "lmms-eval": _lmms_eval,
    "omnizip": _omnizip,
    "omnizip-paper": _omnizip_paper,
    "seats": _seats,
    "vlmevalkit-8frame": _vlmevalkit(_DENSE, 8),
    "vlmevalkit-32frame": _vlmevalkit(_DENSE, 32),
    "vlmevalkit-64frame": _vlmevalkit(_DENSE, 64),
    "vlmevalkit-1fps": _vlmevalkit(1.0, _MOST_FRAMES),
    "vlmevalkit-0.5fps": _vlmevalkit(0.5, _MOST_FRAMES),
}
PRESETS = tuple(_PRESETS)


def check_preset(name: str | None) -> None:
    """Raises UsageError for a name that is not in PRESETS; None is no preset."""
    if name is not None and name not in PRESETS:
        raise UsageError(f"There is no preset {name!r}: use {', '.join(PRESETS)}.", field="preset")


def find(name: str, layout: str) -> Preset:
    """The values of a harness for a set of this layout.

    Raises:
        UsageError: the name is not in PRESETS.
    """
    check_preset(name)
    return _PRESETS[name](layout)
