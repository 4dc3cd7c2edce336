"""Intervals and tests give the published values."""

import pytest
from scipy import stats

from omniqa.eval.statistics import Paired, wilson


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
