"""Statistics of arms and seeds, against SciPy and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmgan.experiments.differences import Difference, detectable, difference, holm, needed, power, verdict


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=9))
def test_a_difference_is_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.round(column, 3) for column in zip(*pairs, strict=True))
    if np.ptp(a - b) < 1e-6:
        return
    found = difference(dict(enumerate(a)), dict(enumerate(b)))
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval()
    expected = Difference(float(np.mean(a - b)), low, high, len(a), test.pvalue, float(np.std(a - b, ddof=1)))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_only_seeds_of_both_arms_count() -> None:
    found = difference({0: 1.0, 1: 3.0, 2: 2.0, 7: 9.0}, {2: 1.0, 1: 2.5, 0: 0.9, 5: 4.0})
    assert found.n == 3
    assert found.mean == pytest.approx(1.6 / 3)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert difference({0: 1.0}, {0: 3.0})[:4] == (-2.0, -np.inf, np.inf, 1)
    assert np.isnan(difference({0: 1.0}, {0: 3.0}).p)
    assert np.isnan(difference({0: 1.0}, {1: 3.0}).mean)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({0: 1.0, 1: 1.1, 2: 0.9}, "shows"),
        ({0: 3.0, 1: 3.2, 2: 3.1}, "the opposite shows"),
        ({0: 1.0, 1: 2.9, 2: 2.0}, "undecided"),
        ({0: 1.0}, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_difference(arm: dict[int, float], words: str) -> None:
    assert verdict(difference(arm, {0: 2.0, 1: 2.2, 2: 1.9})) == words


def test_a_corrected_p_value_decides_where_there_is_one() -> None:
    found = difference({0: 1.0, 1: 1.1, 2: 0.9}, {0: 2.0, 1: 2.2, 2: 1.9})
    assert (verdict(found), verdict(found, 0.06)) == ("shows", "undecided")
    assert verdict(found, direction="above") == "the opposite shows"
    assert verdict(difference({}, {}), 0.01) == "no pairs"


@pytest.mark.parametrize(("effect", "n", "level"), [(0.5, 34, 0.05), (1.0, 3, 0.05), (0.0, 5, 0.05), (0.8, 10, 0.01)])
def test_power_is_that_of_the_noncentral_t_and_of_simulated_experiments(effect: float, n: int, level: float) -> None:
    bound, shift = stats.t.ppf(1 - level / 2, n - 1), effect * np.sqrt(n)
    exact = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
    assert power(effect, n, level) == pytest.approx(exact, abs=1e-5)
    drawn = np.random.default_rng(0).normal(effect, 1, (20_000, n))
    found = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < level).mean()
    assert power(effect, n, level) == pytest.approx(found, abs=0.015)


def test_the_seeds_needed_are_those_of_the_tables() -> None:
    assert needed(0.5, 1.0) == 34  # Cohen's medium effect, power 80 %, level 5 %, two-sided: his tables, G*Power
    assert needed(-0.8, 1.0) == 15
    assert detectable(2.0, 34) == pytest.approx(2 * 0.495, abs=0.001)
    assert power(detectable(1.0, 3, 0.05 / 26), 3, 0.05 / 26) == pytest.approx(0.8)
    assert needed(0.0, 1.0) is None
    assert needed(1e-4, 1.0) is None, "more than anybody runs"
    with pytest.raises(ValueError, match="deviation must be positive"):
        needed(0.1, 0.0)
    assert np.isnan(detectable(float("nan"), 1))


def test_holms_adjustment_worked_out_by_hand() -> None:
    # sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.04 * 1; never below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_holm_does_not_count_arms_without_a_p_value() -> None:
    found = holm([0.02, np.nan, 0.01])
    assert found[0] == pytest.approx(0.02)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p: list[float]) -> None:
    found = np.array(holm(p))
    assert (found >= np.array(p) - 1e-12).all()
    assert (found <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()
