"""Token counts: a clip's, a plan's, and the ratio that brings a method to the asked retention.

Pure arithmetic, so that `omniqa plan` answers without torch and without weights (methods.md, Solving for R).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from omniqa.errors import UsageError

TOLERANCE = 0.01  # how far the achieved R may be from the asked one
MAX_RHO_V = 0.95
SLACK = 1e-6  # counts are integers; anything below this is rounding of R
_HALVINGS = 50


@dataclass(frozen=True)
class ClipTokens:
    """The audio and video tokens of a clip before any pruning, as counts.

    Attributes:
        n_audio: audio tokens.
        grids: temporal patches.
        tokens_per_grid: tokens of one grid, merged 2x2. A modality that the clip lacks has 0.

    Raises:
        ValueError: no clip has such counts.
    """

    n_audio: int
    grids: int
    tokens_per_grid: int

    def __post_init__(self) -> None:
        if min(self.n_audio, self.grids, self.tokens_per_grid) < 0 or (self.grids and not self.tokens_per_grid):
            raise ValueError(
                f"no clip has {self.n_audio} audio tokens and {self.grids} grids of {self.tokens_per_grid} tokens"
            )

    @property
    def n_video(self) -> int:
        """Video tokens, all grids together."""
        return self.grids * self.tokens_per_grid

    @property
    def n(self) -> int:
        """Audio and video tokens together."""
        return self.n_audio + self.n_video


@dataclass(frozen=True)
class Plan:
    """How many audio and video tokens each decoder layer will hold.

    Attributes:
        clip: the counts before pruning.
        kept: (L,) tokens that layer 0 … L-1 computes, kept[0] being what the input level leaves.
    """

    clip: ClipTokens
    kept: tuple[int, ...]

    @property
    def layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self.kept)

    @property
    def drops(self) -> tuple[int, ...]:
        """(L-1,) drops[l] tokens are kept at layer l and no longer at l+1."""
        return tuple(before - after for before, after in pairwise(self.kept))

    @property
    def retention(self) -> float:
        """Mean over layers of the share of tokens kept: the measured R, not the asked one."""
        return retention(self.kept, self.clip.n)

    def prunes(self, layer: int) -> bool:
        """Whether the method is asked which tokens leave after `layer`; here: where some do."""
        return self.kept[layer] > self.kept[layer + 1]

    @staticmethod
    def untouched(clip: ClipTokens, layers: int) -> "Plan":
        """Every token in every layer."""
        return Plan(clip, (clip.n,) * layers)


def floor_count(x: float) -> int:
    """⌊x + 10⁻⁹⌋, so that (1 - 0.8)·20 = 3.9999999999999996 is four tokens."""
    return math.floor(x + 1e-9)


def retention(kept: Sequence[int], n: int) -> float:
    """R: mean over the layers of kept tokens / n tokens before pruning. A clip without tokens has lost none: 1."""
    return sum(kept) / (len(kept) * n) if n else 1.0


class Unreachable(UsageError):
    """A method can't come within TOLERANCE of the asked retention on this clip.

    Args:
        method: its name.
        asked: the retention asked for.
        nearest: the retention nearest to it that the method reaches.
        floor: the lowest that it reaches. The method at `nearest` in place of `asked` serves the clip.
    """

    def __init__(self, method: str, asked: float, nearest: float, floor: float) -> None:
        super().__init__(
            f"{method} can't bring this clip to retention {asked:g}; its floor here is {floor:.4f} and the nearest it "
            f"reaches is {nearest:.4f}.",
            field="retention",
            advice="Ask for that, or take another method.",
        )
        self.args = (method, asked, nearest, floor)  # what unpickling passes
        self.method, self.asked, self.nearest, self.floor = method, asked, nearest, floor


def bisect(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """The ends around the point from which `holds`, false below and true above it, is true: 50 halvings.

    `holds(high)` is taken for granted; where it holds at `low` already, both ends are `low`.
    """
    if holds(low):
        return low, low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return low, high


def nearest(low: float, high: float, total: Callable[[float], int], goal: float) -> float:
    """The ratio in [low, high] whose total is nearest to `goal`, the lower ratio on a tie.

    A higher ratio never leaves more tokens, floors included, so halving finds the step. Where `goal` is out of
    reach, it is the nearer end.
    """
    low, high = bisect(low, high, lambda ratio: total(ratio) <= goal + SLACK)
    return high if abs(total(high) - goal) < abs(total(low) - goal) - SLACK else low


def check_reached(method: str, retention: float, n: int, total: int, least: int) -> None:
    """Raises Unreachable where `total` of `n` tokens is more than TOLERANCE off `retention`; `least`: the floor's."""
    if abs(total - retention * n) > TOLERANCE * n + SLACK:
        raise Unreachable(method, retention, total / n, least / n)


def solve_ratios(
    method: str, retention: float, n: int, rho_audio: float, total: Callable[[float, float], int]
) -> tuple[float, float]:
    """(ρ_a, ρ_v) that bring a clip of n tokens to `retention`.

    total(ρ_a, ρ_v): the tokens that the ratios leave. ρ_v is solved in [0, 0.95] with ρ_a = `rho_audio`; where R lies
    outside what that reaches, or more than TOLERANCE from all of it, ρ_v stays and ρ_a is solved in [0, 1].

    Raises:
        Unreachable: that is not within TOLERANCE either.
    """
    goal = retention * n
    rho_v = nearest(0.0, MAX_RHO_V, lambda rho: total(rho_audio, rho), goal)
    inside = total(rho_audio, MAX_RHO_V) - SLACK <= goal <= total(rho_audio, 0.0) + SLACK
    if not inside or abs(total(rho_audio, rho_v) - goal) > TOLERANCE * n:
        rho_audio = nearest(0.0, 1.0, lambda rho: total(rho, rho_v), goal)
    check_reached(method, retention, n, total(rho_audio, rho_v), total(1.0, MAX_RHO_V))
    return rho_audio, rho_v
