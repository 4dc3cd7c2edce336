"""Intervals and tests give the published values."""

import numpy as np
import pytest
from scipy import stats

from omniqa.eval.statistics import Paired, clustered, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_published_values(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_is_scipys():
    for n in (1, 2, 7, 100, 3172):
        for correct in {0, 1, n // 3, n - 1, n}:
            expected = stats.binomtest(correct, n).proportion_ci(0.95, "wilson")
            assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_asked_is_nothing_known():
    assert wilson(0, 0) == (0.0, 1.0)
    assert (Paired(0, 0, 0).exact_p, Paired(0, 0, 0).mid_p, Paired(0, 0, 0).difference) == (1.0, 1.0, 0.0)


def test_mcnemars_test_has_the_published_values():
    """Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13 (2013) 91: 1 and 7 of 21 pairs."""
    paired = Paired(21, 1, 7)
    assert paired.exact_p == pytest.approx(0.0703, abs=5e-5)
    assert paired.mid_p == pytest.approx(0.0391, abs=5e-5)
    assert paired.difference == pytest.approx(-6 / 21)


def test_mcnemars_exact_test_is_the_binomial_one():
    for first, second in [(0, 1), (3, 3), (10, 25), (0, 40), (300, 420)]:
        expected = stats.binomtest(first, first + second).pvalue
        assert Paired(1000, first, second).exact_p == pytest.approx(expected, rel=1e-9)
        assert Paired(1000, first, second).exact_p == Paired(1000, second, first).exact_p
        assert 0 <= Paired(1000, first, second).mid_p < Paired(1000, first, second).exact_p


def test_many_questions_are_no_trouble():
    assert Paired(100_000, 3000, 3200).mid_p == pytest.approx(0.0111, abs=3e-4)
    assert Paired(100_000, 0, 5000).exact_p == 0.0


def test_the_clustered_interval_of_single_questions_is_wilsons():
    assert clustered([(1, 1)] * 30 + [(0, 1)] * 20) == pytest.approx(wilson(30, 50))


def test_questions_that_hang_together_wholly_are_worth_one_a_clip():
    once = clustered([(1, 1)] * 30 + [(0, 1)] * 20)
    assert clustered([(8, 8)] * 30 + [(0, 8)] * 20) == pytest.approx(once, abs=2e-3)
    assert clustered([(8, 8)] * 50) == wilson(50, 50), "the same where all are right"


def test_the_clustered_interval_is_never_narrower_than_wilsons():
    assert clustered([(2, 4)] * 40) == pytest.approx(wilson(80, 160)), "clips that are more alike than chance"


def test_little_is_known_from_one_clip():
    low, high = clustered([(7, 10)])
    assert high - low > 0.7
    assert clustered([]) == clustered([(0, 0)]) == (0.0, 1.0)


def test_the_clustered_interval_covers_the_truth_where_wilsons_does_not():
    random = np.random.default_rng(0)
    hits = {wilson: 0, clustered: 0}
    for _ in range(400):
        counts = [(int(random.binomial(6, share)), 6) for share in random.beta(0.6, 0.4, size=60)]
        right = sum(got for got, _ in counts)
        for interval, (low, high) in ((wilson, wilson(right, 360)), (clustered, clustered(counts))):
            hits[interval] += low <= 0.6 <= high
    assert hits[clustered] / 400 == pytest.approx(0.95, abs=0.03)
    assert hits[wilson] / 400 < 0.8


def test_the_bootstrap_finds_a_difference_only_where_clips_agree_on_it():
    apart, noise = [(1, 2)] * 25 + [(0, 2)] * 25, [(1, 2)] * 25 + [(-1, 2)] * 25
    found = paired_bootstrap(apart)
    assert 0.1 < found.low < 0.25 < found.high < 0.4
    assert found.p < 0.001
    found = paired_bootstrap(noise)
    assert found.low < 0 < found.high
    assert found.p > 0.5
    assert paired_bootstrap(noise) == found, "the same each time"
    assert paired_bootstrap([(1, 9)]) is None


def test_the_bootstraps_interval_is_that_of_the_mean_for_single_questions():
    random = np.random.default_rng(1)
    more = random.integers(-1, 2, size=400)
    found = paired_bootstrap([(int(one), 1) for one in more])
    spread = 1.96 * more.std() / 400**0.5
    assert (found.low, found.high) == pytest.approx((more.mean() - spread, more.mean() + spread), abs=0.01)
