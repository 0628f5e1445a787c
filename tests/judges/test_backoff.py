from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.judges.backoff import Spacing


def spaced(*gaps: float) -> Spacing:
    """Attempts with these gaps."""
    return Spacing.of([100.0, *(100.0 + each for each in itertools.accumulate(gaps))])


firsts = st.floats(0.05, 20)


@given(
    first=firsts,
    factor=st.floats(1.6, 2.9),
    steps=st.integers(3, 8),
    jitter=st.lists(st.floats(0.98, 1.02), min_size=9),
)
def test_exponential_growth_is_a_backoff_in_both_readings(
    first: float, factor: float, steps: int, jitter: list[float]
) -> None:
    spacing = spaced(*(first * factor**step * jitter[step] for step in range(steps)))
    assert spacing.lenient_problem() is None
    assert spacing.strict_problem() is None


@given(first=firsts, cap=st.integers(2, 4), steps=st.integers(1, 5))
def test_a_cap_is_no_deviation(first: float, cap: int, steps: int) -> None:
    gaps = [first * 2 ** min(step, cap) for step in range(cap + steps)]
    assert spaced(*gaps).lenient_problem() is None
    assert spaced(*gaps).strict_problem() is None


@given(gap=firsts, count=st.integers(3, 10), jitter=st.lists(st.floats(0.95, 1.05), min_size=10))
def test_constant_gaps_are_no_backoff(gap: float, count: int, jitter: list[float]) -> None:
    spacing = spaced(*(gap * jitter[each] for each in range(count)))
    assert spacing.lenient_problem() is not None
    assert spacing.strict_problem() is not None


@given(first=firsts, count=st.integers(5, 10))
def test_linear_growth_passes_leniently_and_is_told_apart(first: float, count: int) -> None:
    spacing = spaced(*(first * each for each in range(1, count + 1)))
    assert spacing.lenient_problem() is None
    assert spacing.strict_problem() is not None
    assert str(spacing).endswith("the gaps grow by the same amount each time")


def test_a_gap_that_shrinks_is_told() -> None:
    assert spaced(2, 4, 8, 2).lenient_problem() == "a gap of 2.00 s after one of 8.00 s"


def test_growth_that_is_too_fast_is_strict_only() -> None:
    assert spaced(1, 10, 100).lenient_problem() is None
    assert spaced(1, 10, 100).strict_problem() == "a gap of 10.00 s after one of 1.00 s: 10.0 times"


def test_a_doubtful_measurement_is_no_accusation() -> None:
    doubtful = Spacing(spaced(1.0, 1.1, 1.7).times, error=0.1)
    assert doubtful.lenient_problem() is None


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ((2, 4, 8, 16), "attempts at 0, 2.0, 6.0, 14.0, 30.0 s: the gaps double"),
        ((0.1, 0.2, 0.4, 0.4), "attempts at 0, 0.10, 0.30, 0.70, 1.1 s: the gaps double, then stay"),
        ((1, 1, 1), "attempts at 0, 1.0, 2.0, 3.0 s: the gaps are all the same"),
        ((1, 3, 4), "attempts at 0, 1.0, 4.0, 8.0 s: each gap is 1.3 to 3.0 times the one before"),
        ((5,), "attempts at 0, 5.0 s"),
        ((), "attempts at 0 s"),
    ],
)
def test_what_was_measured_is_told(gaps: tuple[float, ...], said: str) -> None:
    assert str(spaced(*gaps)) == said


def test_three_gaps_are_enough() -> None:
    assert not spaced(1, 2).enough
    assert spaced(1, 2, 4).enough


def test_more_than_ten_attempts_in_ten_seconds_run_hot() -> None:
    assert spaced(*([0.9] * 10)).hot() == 11
    assert spaced(*([1.0] * 20)).hot() is None
    assert spaced(*([0.04] * 20)).hot(0.05) == 13
