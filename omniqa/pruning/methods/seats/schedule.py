"""How many tokens SEATS keeps where: budgets of both modalities, drop points, keep factors. Free of torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from omniqa.errors import UsageError
from omniqa.pruning.budget import SLACK, TOLERANCE, ClipTokens, Plan, Unreachable, bisect

LAMBDA = 1.4  # a modality enters with so many times its budget
GRIDS, AUDIO = 2, 50  # of a window of the input level: grids of video, tokens of audio
MIN_LAYERS = 11
_STEPS = (1.0, math.e, math.e**2)  # how the three drops share what leaves

# R -> (r_v, r_a), as published for the 7B.
BUDGETS = ((0.10, (0.06, 0.35)), (0.15, (0.10, 0.45)), (0.25, (0.20, 0.55)), (0.35, (0.30, 0.65)))
# L -> layers after which tokens are dropped and, last, removed; counted from 1.
_PUBLISHED = {28: (16, 18, 20, 23), 48: (27, 31, 35, 39)}


class AboveCeiling(Unreachable):
    """Audio and video is removed before the last layers, so that R can't be as high as was asked."""

    def __init__(self, method: str, asked: float, nearest: float, floor: float) -> None:
        super().__init__(method, asked, nearest, floor)
        self.message = (
            f"{method} can't reach retention {asked:g}: it removes all audio and video before the last layers, so that "
            f"its ceiling here is {nearest:.4f}."
        )
        self.advice = "Ask for that, for 1, or take another method."


@dataclass(frozen=True)
class SeatsPlan(Plan):
    """SEATS' plan (methods.md, seats): targets, from which the windows' own counts may differ a little.

    Attributes:
        r_video, r_audio: a modality's budget, averaged over all layers.
        drop_layers: the three layers, from 0, after which tokens are dropped.
        removal: the one after which none is left.
        keep_video, keep_audio: the shares that the three drops keep.
    """

    r_video: float
    r_audio: float
    drop_layers: tuple[int, ...]
    removal: int | None
    keep_video: tuple[float, ...]
    keep_audio: tuple[float, ...]

    def prunes(self, layer: int) -> bool:
        """After the drop layers and the removal."""
        return layer in self.drop_layers or layer == self.removal


def drop_points(layers: int) -> tuple[int, int, int, int]:
    """After how many layers tokens are dropped, three times, and H, after how many they are removed.

    Raises:
        UsageError: the decoder has too few layers for that.
    """
    points = _PUBLISHED.get(layers) or tuple(round(point * layers / 28) for point in _PUBLISHED[28])
    if not 0 < points[0] < points[1] < points[2] < points[3] < layers:
        raise UsageError(f"seats needs a decoder of at least {MIN_LAYERS} layers; this one has {layers}.")
    return points[0], points[1], points[2], points[3]


def keep_factors(budget: float, layers: int) -> tuple[float, float, float]:
    """The shares of a modality's tokens that the three drops keep, so that its mean over all layers is `budget`."""
    first, second, third, removal = drop_points(layers)
    lengths = first, second - first, third - second, removal - third
    enters = min(1.0, LAMBDA * budget)

    def levels(total: float) -> list[float]:
        gone = [sum(_STEPS[:count]) / sum(_STEPS) * total for count in range(4)]
        return [enters * (1 - share) for share in gone]

    def low_enough(total: float) -> bool:
        held = sum(length * level for length, level in zip(lengths, levels(total), strict=True))
        return held <= budget * layers

    level = levels(bisect(0.0, 1.0, low_enough)[1])
    return level[1] / level[0], level[2] / level[1], level[3] / level[2]


def entering(size: int, budget: float) -> int:
    """How many of a window of `size` tokens the input level keeps."""
    return max(1, min(size, round((budget * LAMBDA) * size)))


def window_sizes(count: int, size: int) -> list[int]:
    """The windows of `count` tokens, each of `size`, the last perhaps shorter."""
    return [min(size, count - start) for start in range(0, count, size)] if count else []


def budgets(clip: ClipTokens, retention: float, layers: int) -> tuple[float, float]:
    """(r_v, r_a) of a clip; a modality that it lacks has 0."""
    if not clip.n_audio or not clip.n_video:
        return (retention, 0.0) if clip.n_video else (0.0, retention)
    for published, row in BUDGETS:
        if math.isclose(retention, published):
            return row
    r_video, r_audio = _interpolated(retention)
    ceiling = drop_points(layers)[3] / layers
    goal = retention * clip.n
    factor = goal / (r_video * clip.n_video + r_audio * clip.n_audio)
    if factor * r_audio > ceiling:  # always the larger of the two: it reaches the ceiling first
        return min(ceiling, (goal - ceiling * clip.n_audio) / clip.n_video), ceiling
    return factor * r_video, factor * r_audio


def _interpolated(retention: float) -> tuple[float, float]:
    """The published row at R, linear between two of them; beyond them the nearest."""
    low, high = BUDGETS[0], BUDGETS[-1]
    for row in BUDGETS:
        low = row if row[0] <= retention else low
    for row in reversed(BUDGETS):
        high = row if row[0] >= retention else high
    if retention <= BUDGETS[0][0] or retention >= BUDGETS[-1][0]:
        return BUDGETS[0][1] if retention <= BUDGETS[0][0] else BUDGETS[-1][1]
    part = (retention - low[0]) / (high[0] - low[0])
    return low[1][0] + part * (high[1][0] - low[1][0]), low[1][1] + part * (high[1][1] - low[1][1])


def plan_seats(clip: ClipTokens, retention: float, layers: int) -> SeatsPlan:
    """The plan for a clip.

    Raises:
        UsageError: the decoder has too few layers.
        Unreachable: R lies above the ceiling H/L, or what the counts come to is more than TOLERANCE away.
    """
    if retention == 1 or not clip.n:
        return SeatsPlan(clip, (clip.n,) * layers, 1.0, 1.0, (), None, (), ())
    ceiling = drop_points(layers)[3] / layers
    if retention > ceiling + SLACK:
        raise AboveCeiling("seats", retention, ceiling, min(_reachable(clip, layers)))
    plan = _planned(clip, budgets(clip, retention, layers), layers)
    if not _meets(plan, retention):
        reached = _reachable(clip, layers)
        raise Unreachable("seats", retention, min(reached, key=lambda one: abs(one - retention)), min(reached))
    return plan


def _meets(plan: Plan, retention: float) -> bool:
    return abs(plan.retention - retention) <= TOLERANCE + SLACK


def _reachable(clip: ClipTokens, layers: int) -> list[float]:
    """Retentions, in steps of 0.005 up to the ceiling, that are met on a clip. Small windows make wide steps."""
    ceiling = drop_points(layers)[3] / layers
    steps = [step / 200 for step in range(1, 200) if step / 200 < ceiling]
    return [one for one in (*steps, ceiling) if _meets(_planned(clip, budgets(clip, one, layers), layers), one)]


def _planned(clip: ClipTokens, shares: tuple[float, float], layers: int) -> SeatsPlan:
    """What budgets come to."""
    points = drop_points(layers)
    windows = window_sizes(clip.grids, GRIDS), window_sizes(clip.n_audio, AUDIO)
    windows = [grids * clip.tokens_per_grid for grids in windows[0]], windows[1]
    factors = [keep_factors(share, layers) if share else (0.0, 0.0, 0.0) for share in shares]
    kept = [0] * layers
    for sizes, share, keeps in zip(windows, shares, factors, strict=True):
        counts = [sum(entering(size, share) for size in sizes)]
        for keep in keeps:
            counts.append(kept_count(counts[-1], keep))
        _add(kept, counts, points)
    return SeatsPlan(
        clip, tuple(kept), *shares, tuple(point - 1 for point in points[:3]), points[3] - 1, factors[0], factors[1]
    )


def kept_count(count: int, keep: float) -> int:
    """How many of a modality's tokens a drop keeps: at least one, if there are any."""
    return max(1, round(keep * count)) if count else 0


def _add(kept: list[int], counts: Sequence[int], points: Sequence[int]) -> None:
    """Add a modality's tokens to all layers: so many from each point on."""
    start = 0
    for count, stop in zip(counts, points, strict=True):
        for layer in range(start, stop):
            kept[layer] += count
        start = stop
