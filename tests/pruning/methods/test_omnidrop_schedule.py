"""The schedule: counts, PLP and the solver that lands on the asked retention."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from omniqa.errors import UsageError
from omniqa.pruning.budget import ClipTokens, Plan, floor_count, retention
from omniqa.pruning.methods.omnidrop.schedule import (
    PAPER_ROWS,
    ScheduleOptions,
    drops,
    kept_counts,
    nominal_t,
    plp,
    solve_omnidrop,
)
from omniqa.pruning.ttm import TemporalMerge
from tests.pruning import reference

CLIP = ClipTokens(n_audio=1600, grids=64, tokens_per_grid=144)
DEPTHS = st.integers(4, 48)
RETENTIONS = st.floats(0.05, 1.0) | st.integers(1, 20).map(lambda i: i / 20)


@st.composite
def clips(draw, smallest=60, largest=20_000, both=False):
    """Any mix: audio alone, video alone, skewed, tiny grids, one grid."""
    tokens_per_grid = draw(st.sampled_from([1, 4, 5, 9, 36, 144, 288]) | st.integers(1, 300))
    grids = draw(st.integers(1 if both else 0, max(1, largest // tokens_per_grid)))
    n_audio = draw(st.integers(1 if both else 0, max(1, largest - grids * tokens_per_grid)))
    clip = ClipTokens(n_audio, grids, tokens_per_grid)
    assume(smallest <= clip.n <= largest)
    return clip


def off_target(plan, R):
    return abs(plan.retention - R) / max(0.002, 1 / plan.clip.n)


# --- the parts ---


def test_floor_forgives_the_last_digit():
    assert (1 - 0.8) * 20 < 4
    assert floor_count((1 - 0.8) * 20) == 4
    assert floor_count(3.999) == 3


@given(st.integers(0, 30), st.integers(1, 40), st.floats(0, 1))
def test_ttms_counts_are_what_the_slow_merge_keeps(grids, tokens_per_grid, rho):
    video = [[[1.0]] * tokens_per_grid for _ in range(grids)]
    assert list(TemporalMerge.at(rho, tokens_per_grid).counts(grids, tokens_per_grid)) == [
        sum(grid) for grid in reference.ttm(video, rho)
    ]


def test_ttm_at_0_8_keeps_40_percent():
    assert sum(TemporalMerge.at(0.8, 100).counts(64, 100)) / 6400 == 0.4


@pytest.mark.parametrize("curve", ["sigmoid", "exp"])
@given(
    st.floats(0, 0.9, allow_subnormal=False),
    st.floats(0, 0.9, allow_subnormal=False),
    st.floats(0, 1),
    DEPTHS,
    st.floats(0, 100),
)
def test_plp_is_the_formula(curve, p_init, p_final, t_mid, layers, beta):
    rates = plp(p_init, p_final, t_mid, layers, beta, curve)
    assert rates == pytest.approx(reference.rates(p_init, p_final, t_mid, layers, beta, curve))
    assert len(rates) == layers - 1


def test_exp_reads_no_p_init_as_a_tenth_of_p_final():
    rates = plp(0.0, 0.5, 0.5, 28, curve="exp")
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.5)
    assert set(plp(0.0, 0.0, 0.5, 28, curve="exp")) == {0.0}


def test_a_step_as_steep_as_can_be_does_not_overflow():
    assert plp(0.0, 0.5, 0.5, 28, beta=1e6) == pytest.approx([0.0] * 13 + [0.25] + [0.5] * 13)


@given(st.integers(0, 5000), st.lists(st.floats(0, 0.9), min_size=3, max_size=40), st.none() | st.integers(0, 3000))
def test_kept_counts_are_the_recurrence(n0, rates, droppable):
    droppable = None if droppable is None else min(droppable, n0)
    alive = kept_counts(n0, drops(n0, rates, droppable))
    assert list(alive) == reference.alive(n0, rates, droppable)
    assert alive[-1] >= n0 - (n0 if droppable is None else droppable)


def test_retention_is_the_mean_over_layers():
    assert retention([10, 10, 5, 0], 10) == 0.625
    assert retention([0, 0], 0) == 1.0


def test_a_plan_tells_its_drops():
    plan = Plan(ClipTokens(10, 0, 0), (10, 7, 7, 2))
    assert plan.drops == (3, 0, 5)
    assert plan.layers == 4
    assert plan.retention == 0.65


def test_no_clip_has_negative_counts_or_empty_grids():
    for counts in ((-1, 0, 0), (5, -1, 4), (5, 2, 0)):
        with pytest.raises(ValueError, match="no clip has"):
            ClipTokens(*counts)


# --- the paper's schedule ---


def test_the_papers_constants_land_where_methods_md_says():
    n = 10**8
    landed = []
    for (layers, _), (p_init, p_final, t_mid, _) in PAPER_ROWS.items():
        n0 = round(0.45 * n)
        landed.append(round(retention(kept_counts(n0, drops(n0, plp(p_init, p_final, t_mid, layers))), n), 3))
    assert landed == [0.288, 0.206, 0.291, 0.206]


@pytest.mark.parametrize(("layers", "R"), list(PAPER_ROWS))
def test_the_paper_schedule_takes_its_row_as_it_is(layers, R):
    plan = solve_omnidrop(CLIP, layers, R, ScheduleOptions(schedule="paper"))
    assert (plan.p_init, plan.p_final, plan.t_mid, plan.l_div) == PAPER_ROWS[layers, R] == reference.PAPER[layers, R]
    assert plan.t == 0
    assert plan.thin_to is None
    assert list(plan.kept) == reference.omnidrop(1600, 64, 144, layers, R, schedule="paper")["kept"]


@pytest.mark.parametrize(("layers", "R"), [(28, 0.25), (32, 0.3), (36, 0.5)])
def test_the_paper_schedule_knows_nothing_else(layers, R):
    with pytest.raises(UsageError, match=r"L=28 R=0\.3, L=28 R=0\.2, L=36 R=0\.3, L=36 R=0\.2"):
        solve_omnidrop(CLIP, layers, R, ScheduleOptions(schedule="paper"))


def test_t_mid_and_l_div_override_either_schedule():
    for schedule in ("exact", "paper"):
        plan = solve_omnidrop(CLIP, 28, 0.3, ScheduleOptions(schedule, t_mid=0.7, l_div=3))
        assert (plan.t_mid, plan.l_div) == (0.7, 3)


# --- the exact schedule ---


@settings(max_examples=400)
@given(clips(), DEPTHS, RETENTIONS, st.sampled_from(["sigmoid", "exp"]), st.booleans())
def test_any_retention_is_reached_on_any_clip(clip, layers, R, curve, layer_level):
    plan = solve_omnidrop(clip, layers, R, ScheduleOptions(curve=curve, plp=layer_level))
    assert off_target(plan, R) <= 1


@settings(max_examples=200)
@given(clips(both=True), DEPTHS, RETENTIONS, st.sampled_from(["sigmoid", "exp"]))
def test_any_retention_is_reached_where_audio_guides(clip, layers, R, curve):
    plan = solve_omnidrop(clip, layers, R, ScheduleOptions(curve=curve, guidance="audio"))
    assert off_target(plan, R) <= 1
    audio = plan.keep_audio if plan.thin_audio is None else plan.thin_audio
    assert 1 <= audio <= plan.kept[-1]


@settings(max_examples=100)
@given(clips(), st.integers(4, 400), st.floats(1e-4, 0.05))
def test_even_a_retention_below_five_percent_is_reached(clip, layers, R):
    plan = solve_omnidrop(clip, layers, R)
    assert off_target(plan, R) <= 1
    assert plan.kept[-1] >= 1


@settings(max_examples=200)
@given(
    clips(smallest=1, largest=400, both=True),
    st.integers(4, 40),
    RETENTIONS,
    st.sampled_from(["sigmoid", "exp"]),
    st.booleans(),
    st.sampled_from(["text", "audio"]),
)
def test_the_counts_are_those_of_the_slow_reading(clip, layers, R, curve, layer_level, guidance):
    plan = solve_omnidrop(clip, layers, R, ScheduleOptions(curve=curve, plp=layer_level, guidance=guidance))
    slow = reference.omnidrop(
        clip.n_audio, clip.grids, clip.tokens_per_grid, layers, R, curve=curve, plp=layer_level, guidance=guidance
    )
    slow["kept"] = tuple(slow["kept"])
    slow["rho"] = pytest.approx(slow["rho"], abs=1e-12)
    assert {name: getattr(plan, name) for name in slow} == slow


@settings(max_examples=100)
@given(clips(), DEPTHS, RETENTIONS)
def test_a_plan_agrees_with_itself(clip, layers, R):
    plan = solve_omnidrop(clip, layers, R)
    assert len(plan.kept) == layers
    assert len(plan.p) == len(plan.drops) == layers - 1
    assert plan.kept[0] == (plan.thin_to or plan.keep_audio + plan.keep_video)
    assert plan.keep_audio == round(plan.share_audio * clip.n_audio)
    assert plan.keep_video == sum(
        TemporalMerge.at(plan.rho, clip.tokens_per_grid).counts(clip.grids, clip.tokens_per_grid)
    )
    assert drops(plan.kept[0], plan.p) == plan.drops


def test_the_input_level_opens_with_retention():
    assert [nominal_t(R) for R in (0.05, 0.3, 2 / 3, 1.0)] == [0, 0, 1, 1]
    shares = [solve_omnidrop(CLIP, 28, R) for R in (0.2, 0.3, 0.5, 0.7)]
    assert [(plan.share_audio, plan.share_video) for plan in shares[:2]] == [(0.7, 0.4)] * 2
    assert (0.7, 0.4) < (shares[2].share_audio, shares[2].share_video) < (1.0, 1.0)
    assert (shares[3].keep_audio, shares[3].keep_video) == (CLIP.n_audio, CLIP.n_video)


@pytest.mark.parametrize(
    ("layers", "R", "constants"),
    [
        (28, 0.3, (0.0, 0.5, 14)),
        (28, 0.2, (0.02, 0.5, 14)),
        (36, 0.3, (0.0, 0.5, 19)),
        (36, 0.2, (0.02, 0.55, 19)),
        (36, 0.25, (0.0, 0.5, 19)),
        (7, 0.3, (0.0, 0.5, 3)),
    ],
)
def test_the_exact_schedule_starts_from_the_constants_of_methods_md(layers, R, constants):
    plan = solve_omnidrop(CLIP, layers, R)
    assert (plan.p_init, plan.t_mid, plan.l_div) == constants
    assert 0 < plan.p_final < 0.9


def test_a_tie_between_the_two_ends_goes_to_the_lower_rate():
    # One token leaves or none: with n = 2 over 4 layers, R = 0.9375 lies midway between 8/8 and 7/8.
    plan = solve_omnidrop(ClipTokens(2, 0, 0), 4, 0.9375)
    assert plan.kept == (2, 2, 2, 2)


def test_where_the_input_level_leaves_too_few_t_rises_to_the_first_that_is_enough():
    clip = ClipTokens(
        0, 32, 4
    )  # 4 tokens a grid: at ρ = 0.8 nothing of a later grid stays, a quarter of the clip in all
    plan = solve_omnidrop(clip, 28, 0.3)

    def left(t):
        return sum(TemporalMerge.at(0.8 * (1 - t), clip.tokens_per_grid).counts(clip.grids, clip.tokens_per_grid))

    assert left(0) < 0.3 * clip.n <= plan.kept[0] == left(plan.t)
    assert left(plan.t - 1e-6) < 0.3 * clip.n


def test_p_init_rises_where_no_p_final_is_enough():
    plan = solve_omnidrop(CLIP, 12, 0.1)
    assert plan.p_final == 0.9
    assert 0.02 < plan.p_init < 0.9
    assert plan.thin_to is None


def test_the_input_is_thinned_to_the_largest_m_where_no_rate_is_enough():
    plan = solve_omnidrop(CLIP, 4, 0.05)
    assert (plan.p_init, plan.p_final) == (0.9, 0.9)
    assert plan.retention <= 0.05
    one_more = kept_counts(plan.thin_to + 1, drops(plan.thin_to + 1, plan.p))
    assert retention(one_more, CLIP.n) > 0.05


def test_p_init_gives_way_where_it_drops_too_much_by_itself():
    # 400 layers at 2 % each leave next to nothing of the early half already.
    plan = solve_omnidrop(CLIP, 400, 0.2)
    assert plan.p_final == 0
    assert 0 < plan.p_init < 0.02
    assert off_target(plan, 0.2) <= 1


def test_the_input_level_alone_leaves_the_same_in_every_layer():
    plan = solve_omnidrop(CLIP, 28, 0.3, ScheduleOptions(plp=False))
    assert set(plan.kept) == {round(0.3 * CLIP.n)}
    assert set(plan.p) == {0.0}
    assert plan.share_audio / 0.7 == pytest.approx(plan.share_video / 0.4)


@pytest.mark.parametrize("guidance", ["text", "audio"])
@pytest.mark.parametrize("schedule", ["exact", "paper"])
@pytest.mark.parametrize("layer_level", [True, False])
@pytest.mark.parametrize("clip", [CLIP, ClipTokens(100, 0, 0), ClipTokens(0, 3, 5)])
def test_retention_1_is_the_untouched_model(clip, schedule, layer_level, guidance):
    plan = solve_omnidrop(clip, 28, 1.0, ScheduleOptions(schedule, plp=layer_level, guidance=guidance))
    assert set(plan.kept) == {clip.n}
    assert (plan.keep_audio, plan.keep_video, plan.thin_to) == (clip.n_audio, clip.n_video, None)


def test_a_clip_without_tokens_has_nothing_to_lose():
    plan = solve_omnidrop(ClipTokens(0, 0, 0), 28, 0.3)
    assert set(plan.kept) == {0}
    assert plan.retention == 1.0


@pytest.mark.parametrize("R", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_a_retention_out_of_range_is_refused(R):
    with pytest.raises(UsageError, match="out of range"):
        solve_omnidrop(CLIP, 28, R)


def test_too_shallow_a_decoder_is_refused():
    with pytest.raises(UsageError, match="at least 4 layers"):
        solve_omnidrop(CLIP, 3, 0.3)


@pytest.mark.parametrize("clip", [ClipTokens(100, 0, 0), ClipTokens(0, 8, 36)])
def test_audio_can_guide_only_where_there_is_audio_and_video(clip):
    with pytest.raises(UsageError, match="both audio and video"):
        solve_omnidrop(clip, 28, 0.3, ScheduleOptions(guidance="audio"))


def test_where_audio_guides_no_audio_token_leaves_after_a_layer():
    clip = ClipTokens(n_audio=3000, grids=8, tokens_per_grid=20)  # so much audio that thinning must help
    plan = solve_omnidrop(clip, 28, 0.3, ScheduleOptions(guidance="audio"))
    assert plan.kept[-1] == plan.thin_audio
    assert plan.thin_audio < plan.keep_audio
    assert off_target(plan, 0.3) <= 1
