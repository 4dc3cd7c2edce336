"""OmniDrop's schedule: token counts at the input level, PLP over the layers, and the solver that lands on R.

Pure arithmetic on counts, without torch. The rules are those of docs/methods.md; OmniDrop is arXiv 2605.14458.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from omniqa.errors import UsageError
from omniqa.pruning.budget import SLACK, ClipTokens, Plan, bisect, floor_count, nearest
from omniqa.pruning.ttm import TemporalMerge

Curve = Literal["sigmoid", "exp"]
Guidance = Literal["text", "audio"]
ScheduleKind = Literal["exact", "paper"]

_MIN_LAYERS = 4
_MAX_RATE = 0.9  # PLP never drops more than this share after one layer

# (layers, R) -> (p_init, p_final, t_mid, l_div): the paper's constants for the 7B (28) and the 3B model (36).
PAPER_ROWS: dict[tuple[int, float], tuple[float, float, float, int]] = {
    (28, 0.3): (0.0, 0.2, 0.5, 14),
    (28, 0.2): (0.02, 0.5, 0.5, 14),
    (36, 0.3): (0.0, 0.15, 0.5, 19),
    (36, 0.2): (0.02, 0.5, 0.55, 19),
}


@dataclass(frozen=True)
class OmniDropPlan(Plan):
    """OmniDrop's plan (methods.md, omnidrop).

    Attributes:
        t: the input level's dial, 0 at its strongest and 1 where it keeps all; None for plp=False.
        share_audio, share_video: nominal shares kept.
        rho: the TTM rate that share_video asks for.
        keep_audio, keep_video: tokens that the input level's two selections keep.
        thin_to: what they keep is thinned to so many tokens; None where it is not thinned.
        thin_audio: the audio tokens among thin_to, where each modality is thinned by itself (guidance="audio"); else
            None.
        p_init, p_final, t_mid, beta: the PLP curve.
        p: (L-1,) its rates.
        l_div: the first layer that drops by TDS.
    """

    t: float | None
    share_audio: float
    share_video: float
    rho: float
    keep_audio: int
    keep_video: int
    thin_to: int | None
    thin_audio: int | None
    p_init: float
    p_final: float
    t_mid: float
    beta: float
    l_div: int
    p: tuple[float, ...]


@dataclass(frozen=True)
class ScheduleOptions:
    """What the omnidrop solver can be asked for; the fields are omnidrop's options of the same names.

    t_mid and l_div None mean the value that the schedule itself sets. rho: TTM's rate if the video is pruned already;
    None solves for it.
    """

    schedule: ScheduleKind = "exact"
    curve: Curve = "sigmoid"
    plp: bool = True
    guidance: Guidance = "text"
    beta: float = 20.0
    t_mid: float | None = None
    l_div: int | None = None
    rho: float | None = None


def plp(
    p_init: float, p_final: float, t_mid: float, layers: int, beta: float = 20.0, curve: Curve = "sigmoid"
) -> tuple[float, ...]:
    """(L-1,) the share p_l of kept tokens that is pruned after layer l = 0 … L-2 (OmniDrop, progressive layer pruning).

    "sigmoid": p_init + (p_final - p_init) / (1 + exp(-β(l/(L-2) - t_mid))).
    "exp", the ablation: p_init·(p_final/p_init)^(l/(L-2)), p_init = 0 read as p_final/10; t_mid and β unused.
    """
    depths = [layer / (layers - 2) for layer in range(layers - 1)]
    if curve == "exp":
        start = p_init or p_final / 10
        return tuple(start * (p_final / start) ** depth if start else 0.0 for depth in depths)
    # exp's argument is capped where the sigmoid is 0 to the last digit anyway: a steep β must not overflow.
    steps = [1 / (1 + math.exp(min(-beta * (depth - t_mid), 700))) for depth in depths]
    return tuple(p_init + (p_final - p_init) * step for step in steps)


def drops(n0: int, ps: Sequence[float], droppable: int | None = None) -> tuple[int, ...]:
    """(L-1,) k_l = ⌊n_l·p_l⌋ tokens pruned after layer l, of `n0` kept at layer 0.

    Args:
        droppable: how many of the n0 may leave at all (the video tokens, for guidance="audio"); None: all.
    """
    kept, left, counts = n0, n0 if droppable is None else droppable, []
    for p in ps:
        k = min(floor_count(kept * p), left)
        counts.append(k)
        kept, left = kept - k, left - k
    return tuple(counts)


def kept_counts(n0: int, drops: Sequence[int]) -> tuple[int, ...]:
    """(L,) tokens kept at layers 0 … L-1, where drops[l] are pruned after layer l."""
    kept = [n0]
    for k in drops:
        kept.append(kept[-1] - k)
    return tuple(kept)


def nominal_t(retention: float) -> float:
    """The input level's dial at R: 0 (r0 nominally 45 %) up to R = 0.3, 1 (all kept) from R = 2/3."""
    return max(0.0, (min(1.0, 1.5 * retention) - 0.45) / 0.55)


def solve_omnidrop(
    clip: ClipTokens, layers: int, retention: float, options: ScheduleOptions | None = None
) -> OmniDropPlan:
    """The plan by which omnidrop brings `clip` to `retention` on a decoder of `layers` layers.

    schedule="exact" comes within max(0.002, 1/n) of R for every R in (0, 1], L >= 4; "paper" takes the paper's
    constants as they are, and plan.retention says where they land. R = 1 is the untouched model.

    Raises:
        UsageError: R or L is out of range, schedule="paper" has no constants for them, or guidance="audio"
            meets a clip that lacks a modality.
    """
    options = options or ScheduleOptions()
    if not 0 < retention <= 1:
        raise UsageError(f"Retention {retention} is out of range; give a number above 0 and at most 1.")
    if layers < _MIN_LAYERS:
        raise UsageError(f"omnidrop needs a decoder of at least {_MIN_LAYERS} layers; this one has {layers}.")
    if retention == 1:
        return _untouched(clip, layers, options)
    constants = _constants(layers, retention, options)
    if options.guidance == "audio" and not (clip.n_audio and clip.n_video):
        raise UsageError("omnidrop with guidance=audio needs both audio and video; use guidance=text for this clip.")
    if clip.n == 0:
        return _untouched(clip, layers, options)
    budget = _Budget(clip, layers, retention, options, constants)
    if not options.plp:
        return budget.input_level_alone()
    return budget.paper() if options.schedule == "paper" else budget.exact()


@dataclass(frozen=True)
class _Constants:
    """The PLP constants that do not come from the budget; p_final is None where it does."""

    p_init: float
    p_final: float | None
    t_mid: float
    l_div: int


def _constants(layers: int, retention: float, options: ScheduleOptions) -> _Constants:
    """The constants of the asked schedule, t_mid and l_div overridden where the options set them."""
    p_final: float | None = None
    if options.schedule == "paper":
        p_init, p_final, t_mid, l_div = _paper_row(layers, retention)
    else:
        is_3b = layers == 36  # the paper tunes it apart
        p_init = 0.0 if retention >= 0.25 else 0.02
        t_mid = 0.55 if is_3b and retention < 0.25 else 0.5
        l_div = 19 if is_3b else layers // 2
    return _Constants(
        p_init,
        p_final,
        t_mid if options.t_mid is None else options.t_mid,
        l_div if options.l_div is None else options.l_div,
    )


def _paper_row(layers: int, retention: float) -> tuple[float, float, float, int]:
    for (row_layers, row_retention), row in PAPER_ROWS.items():
        if row_layers == layers and math.isclose(row_retention, retention):
            return row
    known = ", ".join(f"L={row_layers} R={row_retention}" for row_layers, row_retention in PAPER_ROWS)
    raise UsageError(f"The paper gives no schedule for L={layers} R={retention}, only for {known}; use schedule=exact.")


@dataclass(frozen=True)
class _InputLevel:
    """What the input level's two selections keep at the given shares, before any thinning."""

    share_audio: float
    share_video: float
    rho: float
    keep_audio: int
    keep_video: int

    @classmethod
    def at(cls, clip: ClipTokens, share_audio: float, share_video: float, rho: float | None = None) -> "_InputLevel":
        # TTM drops from three grids of four, so a share needs ρ = (1 - share)/0.75; below a quarter ρ stays at 1.
        rho = min(1.0, (1 - share_video) / 0.75) if rho is None else rho
        keep_video = sum(TemporalMerge.at(rho, clip.tokens_per_grid).counts(clip.grids, clip.tokens_per_grid))
        return cls(share_audio, share_video, rho, round(share_audio * clip.n_audio), keep_video)

    @property
    def n(self) -> int:
        return self.keep_audio + self.keep_video


@dataclass(frozen=True)
class _Budget:
    """One clip, one decoder, one R: the searches that methods.md describes, each on the real counts."""

    clip: ClipTokens
    layers: int
    retention: float
    options: ScheduleOptions
    constants: _Constants

    def paper(self) -> OmniDropPlan:
        """The paper's constants as they are."""
        assert self.constants.p_final is not None
        t = nominal_t(self.retention)
        return self._plan(self._input_level(t), t, self.constants.p_init, self.constants.p_final)

    def exact(self) -> OmniDropPlan:
        """The constants that land on R: t where the input level leaves too few, then p_final, p_init, thinning."""
        t = self._raised_t()
        entry = self._input_level(t)
        p_init, p_final = self._solve_rates(entry)
        plan = self._plan(entry, t, p_init, p_final)
        if p_init == p_final == _MAX_RATE and not self._reaches(sum(plan.kept)):
            plan = self._plan(entry, t, p_init, p_final, self._solve_thinning(entry))
        return plan

    def input_level_alone(self) -> OmniDropPlan:
        """plp=False: both shares scaled by the smallest f that leaves R·n, the rest thinned; no layer drops."""

        def level(f: float) -> _InputLevel:
            return _InputLevel.at(self.clip, min(1.0, 0.7 * f), min(1.0, 0.4 * f), self.options.rho)

        _, f = bisect(0.0, 1 / 0.4, lambda f: self._leaves_enough(level(f)))
        entry = level(f)
        return self._plan(entry, None, 0.0, 0.0, min(entry.n, max(1, round(self.retention * self.clip.n))))

    @property
    def _goal(self) -> float:
        """R as a sum of kept tokens over all layers."""
        return self.retention * self.clip.n * self.layers

    def _reaches(self, total: int) -> bool:
        """Whether a sum of kept tokens over all layers is down at R."""
        return total <= self._goal + SLACK

    def _input_level(self, t: float) -> _InputLevel:
        return _InputLevel.at(self.clip, 0.7 + 0.3 * t, 0.4 + 0.6 * t, self.options.rho)

    def _leaves_enough(self, entry: _InputLevel) -> bool:
        return entry.n >= max(1.0, self.retention * self.clip.n) - SLACK

    def _raised_t(self) -> float:
        """The smallest t, from the nominal one up, at which the input level leaves at least R·n."""
        return bisect(nominal_t(self.retention), 1.0, lambda t: self._leaves_enough(self._input_level(t)))[1]

    def _solve_rates(self, entry: _InputLevel) -> tuple[float, float]:
        """(p_init, p_final) whose sum of kept tokens is nearest to the goal; (0.9, 0.9) where all leave too many."""

        def total(p_init: float, p_final: float) -> int:
            return sum(self._kept(entry, None, self._rates(p_init, p_final)))

        p_init = self.constants.p_init
        if total(p_init, 0.0) < self._goal - SLACK:
            # p_init alone drops too much already, so it is what has to give.
            return self._nearest(0.0, p_init, lambda p: total(p, 0.0)), 0.0
        if self._reaches(total(p_init, _MAX_RATE)):
            return p_init, self._nearest(0.0, _MAX_RATE, lambda p: total(p_init, p))
        if not self._reaches(total(_MAX_RATE, _MAX_RATE)):
            return _MAX_RATE, _MAX_RATE
        return self._nearest(p_init, _MAX_RATE, lambda p: total(p, _MAX_RATE)), _MAX_RATE

    def _nearest(self, low: float, high: float, total: Callable[[float], int]) -> float:
        """The rate in [low, high] whose total is nearest to the goal, the lower rate on a tie."""
        return nearest(low, high, total, self._goal)

    def _solve_thinning(self, entry: _InputLevel) -> int:
        """The largest m, thinned to which `entry` reaches R at the highest rates; at least one token stays."""
        rates = self._rates(_MAX_RATE, _MAX_RATE)
        low, high = 1, entry.n
        while low < high:
            m = (low + high + 1) // 2
            if self._reaches(sum(self._kept(entry, m, rates))):
                low = m
            else:
                high = m - 1
        return low

    def _rates(self, p_init: float, p_final: float) -> tuple[float, ...]:
        if not self.options.plp:
            return (0.0,) * (self.layers - 1)
        return plp(p_init, p_final, self.constants.t_mid, self.layers, self.options.beta, self.options.curve)

    def _thin_audio(self, entry: _InputLevel, m: int | None) -> int | None:
        """The audio tokens among m: their share, rounded up, so that the audio that guides never vanishes."""
        if m is None or self.options.guidance == "text":
            return None
        return -(-m * entry.keep_audio // entry.n)

    def _kept(self, entry: _InputLevel, m: int | None, rates: Sequence[float]) -> tuple[int, ...]:
        """(L,) kept tokens where `entry`, thinned to m tokens (None: not thinned), meets `rates`."""
        n0 = entry.n if m is None else m
        droppable = None
        if self.options.guidance == "audio":
            audio = self._thin_audio(entry, m)
            droppable = n0 - (entry.keep_audio if audio is None else audio)
        return kept_counts(n0, drops(n0, rates, droppable))

    def _plan(
        self, entry: _InputLevel, t: float | None, p_init: float, p_final: float, thin_to: int | None = None
    ) -> OmniDropPlan:
        if thin_to == entry.n:
            thin_to = None
        rates = self._rates(p_init, p_final)
        return OmniDropPlan(
            clip=self.clip,
            kept=self._kept(entry, thin_to, rates),
            t=t,
            share_audio=entry.share_audio,
            share_video=entry.share_video,
            rho=entry.rho,
            keep_audio=entry.keep_audio,
            keep_video=entry.keep_video,
            thin_to=thin_to,
            thin_audio=self._thin_audio(entry, thin_to),
            p_init=p_init,
            p_final=p_final,
            t_mid=self.constants.t_mid,
            beta=self.options.beta,
            l_div=self.constants.l_div,
            p=rates,
        )


def _untouched(clip: ClipTokens, layers: int, options: ScheduleOptions) -> OmniDropPlan:
    """R = 1, whatever the options, and the clip that has no tokens to drop: the model as it is."""
    options = replace(options, schedule="exact", plp=False, guidance="text")
    budget = _Budget(clip, layers, 1.0, options, _constants(layers, 1.0, options))
    return budget._plan(_InputLevel.at(clip, 1.0, 1.0), 1.0, 0.0, 0.0)
