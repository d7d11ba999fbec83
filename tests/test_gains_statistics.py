"""Paired differences, intervals and Holm's correction against numbers worked out elsewhere."""

from math import inf, isnan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gains.statistics import holm, paired_difference


def test_five_pairs_by_hand() -> None:
    """Mean 2, sd sqrt(2.5); t(0.975, 4) = 2.776445 from the printed tables."""
    found = paired_difference([0.0, 1.0, 2.0, 3.0, 4.0])
    half = 2.776445 * sqrt(2.5) / sqrt(5)
    assert (found.pairs, found.mean) == (5, 2.0)
    assert found.sd == pytest.approx(sqrt(2.5))
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert found.p == pytest.approx(0.0474, abs=1e-4)  # t = 2.8284 with 4 degrees of freedom
    assert found.excludes_zero


def test_students_sleep_data() -> None:
    """Student (1908): extra hours of sleep of ten patients; t = 4.0621, p = 0.002833, interval 0.70 to 2.46."""
    found = paired_difference([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert found.mean == pytest.approx(1.58)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_one_pair_says_nothing() -> None:
    found = paired_difference([3.0])
    assert (found.pairs, found.mean, found.low, found.high, found.p) == (1, 3.0, -inf, inf, 1.0)
    assert not found.excludes_zero


def test_no_pair_says_nothing() -> None:
    found = paired_difference([])
    assert found.pairs == 0
    assert isnan(found.mean)
    assert found.p == 1.0


def test_equal_differences_have_no_width() -> None:
    assert paired_difference([0.5, 0.5]).p == 0.0
    assert paired_difference([0.0, 0.0]).p == 1.0
    assert not paired_difference([0.0, 0.0]).excludes_zero


def test_holm_by_hand() -> None:
    """Smallest times 4, next times 3, ..., never falling: R's p.adjust(c(.01, .04, .03, .005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_a_probability() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_plain_and_bonferroni(p_values: list[float]) -> None:
    for plain, corrected in zip(p_values, holm(p_values), strict=True):
        assert plain <= corrected <= min(1.0, plain * len(p_values))
