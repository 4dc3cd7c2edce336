"""Lines of tokens kept by layer, as the points of an SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omniqa.report.data import Layer

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34
_LABELS = 14  # most on the axis of layers


@dataclass(frozen=True)
class Line:
    """One line: a class of the style sheet, its name, and its points as SVG has them."""

    kind: str
    name: str
    points: str


@dataclass(frozen=True)
class Chart:
    """A chart's lines, and where its labels stand.

    Attributes:
        layers: (x, number) of the labels below; shares: (y, percent) of those at the left.
        step: x from layer to layer.
    """

    lines: tuple[Line, ...]
    layers: tuple[tuple[float, int], ...]
    shares: tuple[tuple[float, int], ...]
    step: float

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Chart":
        """The chart of a run's layers."""
        step = (WIDTH - LEFT - RIGHT) / max(1, len(layers) - 1)
        every = -(-len(layers) // _LABELS)
        kinds: list[tuple[str, str, Callable[[Layer], float | None]]] = [
            ("planned", "planned, both together", lambda layer: layer.planned),
            ("both", "both together", lambda layer: layer.both),
            ("video", "picture", lambda layer: layer.video),
            ("audio", "sound", lambda layer: layer.audio),
        ]
        return cls(
            tuple(
                Line(kind, name, _points([share(layer) for layer in layers], step))
                for kind, name, share in kinds
                if share(layers[0]) is not None
            ),
            tuple((_x(number, step), number) for number in range(0, len(layers), every)),
            tuple((_y(share / 100), share) for share in (0, 25, 50, 75, 100)),
            step,
        )


def _points(shares: Sequence[float | None], step: float) -> str:
    return " ".join(f"{_x(number, step)},{_y(share or 0.0)}" for number, share in enumerate(shares))


def _x(number: int, step: float) -> float:
    return round(LEFT + number * step, 1)


def _y(share: float) -> float:
    return round(TOP + (1 - min(1.0, share)) * (HEIGHT - TOP - BOTTOM), 1)
