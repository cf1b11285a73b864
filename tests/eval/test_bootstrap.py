from __future__ import annotations

import numpy as np
import pytest

from eval.bootstrap import mean_interval, paired_difference, quantile_intervals


def test_the_interval_of_a_mean_is_near_the_one_of_the_normal_law() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.4, size=400)
    found = mean_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        found = mean_interval(rng.random(40).tolist())
        covered += found.low <= 0.5 <= found.high
    assert 50 <= covered <= 60


def test_the_same_values_give_the_same_interval() -> None:
    values = [0.0, 1.0, 0.3, 0.7, 0.2]
    assert mean_interval(values) == mean_interval(values)


def test_quantiles_are_those_of_the_sample_and_lie_in_their_intervals() -> None:
    values = np.random.default_rng(3).lognormal(size=300).tolist()
    p50, p95 = quantile_intervals(values, (0.5, 0.95))
    assert p50.value == pytest.approx(np.quantile(values, 0.5))
    assert p95.value == pytest.approx(np.quantile(values, 0.95))
    assert p50.low < p50.value < p50.high < p95.low < p95.value < p95.high


def test_one_value_has_an_interval_without_width() -> None:
    found = mean_interval([0.25])
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_pairing_finds_a_small_difference_that_the_single_intervals_hide() -> None:
    a = np.random.default_rng(4).random(300)
    b = np.clip(a + 0.01, 0, None)
    difference = paired_difference(a.tolist(), b.tolist())
    assert difference.value == pytest.approx(0.01)
    assert difference.low > 0
    assert difference.p < 0.001
    assert mean_interval(a.tolist()).high > mean_interval(b.tolist()).low


def test_the_difference_of_a_run_with_itself_is_nothing() -> None:
    difference = paired_difference([0.1, 0.9, 0.4], [0.1, 0.9, 0.4])
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_unpaired_or_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_difference([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
