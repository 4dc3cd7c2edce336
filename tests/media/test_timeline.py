import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniqa.errors import UsageError
from omniqa.media.timeline import exact, sample_times

RATES = st.fractions(min_value=Fraction(1, 100), max_value=60, max_denominator=1001)
STARTS = st.fractions(min_value=0, max_value=1000, max_denominator=90_000)
LENGTHS = st.fractions(min_value=Fraction(1, 1000), max_value=100, max_denominator=90_000)


@given(STARTS, LENGTHS, RATES)
def test_without_a_cap_every_multiple_of_the_spacing_before_the_end_is_there(start, length, fps):
    times = sample_times(start, start + length, fps, 10**6)
    assert times == tuple(start + k / fps for k in range(len(times)))
    assert times[-1] < start + length <= start + len(times) / fps


@given(STARTS, LENGTHS, RATES, st.integers(1, 50))
def test_the_cap_gives_exactly_that_many_spread_evenly_over_the_range(start, length, fps, cap):
    times = sample_times(start, start + length, fps, cap)
    assert len(times) <= cap
    if len(times) < length * fps:
        step = length / cap
        assert times == tuple(start + k * step for k in range(cap))


@pytest.mark.parametrize("fps", [2.6, "2.6", Fraction(13, 5), "13/5"])
def test_2_6_frames_a_second_are_13_fifths_however_written(fps):
    times = sample_times(0, 10, fps, 1000)
    assert times[13] == 5
    assert len(times) == 26


def test_a_range_shorter_than_the_spacing_has_one_time():
    assert sample_times(3, "3.01", 2, 128) == (3,)


@pytest.mark.parametrize(
    ("start", "end", "fps", "cap", "word"),
    [
        (0, 1, 0, 1, "frame rate"),
        (0, 1, -2, 1, "frame rate"),
        (0, 1, float("nan"), 1, "frame rate"),
        (0, 1, float("inf"), 1, "frame rate"),
        (0, 1, "fast", 1, "frame rate"),
        (0, 1, 1, 0, "frame"),
        (1, 1, 1, 1, "end"),
        (2, 1, 1, 1, "end"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(start, end, fps, cap, word):
    with pytest.raises(UsageError, match=word):
        sample_times(start, end, fps, cap)


def test_numbers_are_read_as_they_are_written():
    assert [exact(n) for n in (0.1, "0.1", "1e-3", 7, "30000/1001")] == [
        Fraction(1, 10),
        Fraction(1, 10),
        Fraction(1, 1000),
        7,
        Fraction(30000, 1001),
    ]


def test_importing_the_timeline_imports_nothing_heavy():
    code = "import omniqa.media.timeline, sys; print({'torch', 'av', 'librosa', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
