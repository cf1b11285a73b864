"""Confidence intervals by the percentile bootstrap over questions (Efron 1979; Sakai, SIGIR 2006, for retrieval).

The questions of a set are one sample of the questions that could have been asked: the same number is drawn from them
with replacement RESAMPLES times, and the interval holds the middle 95% of what was computed. The seed is fixed, so a
stored run gives the same interval again. Not covered: other corpora, and other runs of the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 7
_TAILS = (0.025, 0.975)
_BLOCK = 1_000_000
"""Numbers drawn at a time: bounds the memory, and keeps a block in the processor's cache."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean of b - a over the same questions; `p` is the two-sided share of resamples beyond zero."""

    value: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one value a question. Raises ValueError when there is none."""
    return _intervals(values, lambda rows: rows.mean(axis=-1, keepdims=True))[0]


def quantile_intervals(values: Sequence[float], shares: Sequence[float]) -> list[Interval]:
    """Return the quantiles at `shares` (0..1), interpolated linearly. Raises ValueError when there is no value."""
    return _intervals(values, lambda rows: np.quantile(rows, shares, axis=-1).T)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two systems by one value a question each, in the same order of questions.

    Raises:
        ValueError: the lengths differ, or are 0.
    """
    deltas = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if len(a) != len(b) or not len(deltas):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    means = np.concatenate([drawn.mean(axis=-1) for drawn in _resamples(deltas)])
    low, high = np.quantile(means, _TAILS)
    p = min(1.0, 2 * float(min((means <= 0).mean(), (means >= 0).mean())))
    return Difference(float(deltas.mean()), float(low), float(high), p)


def _intervals(values: Sequence[float], statistic: Statistic) -> list[Interval]:
    """Apply `statistic` ((resamples, n) -> (resamples, figures)) to the sample and to every resample."""
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError("no values")
    drawn = np.concatenate([statistic(rows) for rows in _resamples(sample)])
    bounds = np.quantile(drawn, _TAILS, axis=0)
    figures = statistic(sample[None, :])[0]
    return [Interval(float(v), float(lo), float(hi)) for v, lo, hi in zip(figures, *bounds, strict=True)]


def _resamples(sample: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(SEED)
    rows = max(1, _BLOCK // len(sample))
    for start in range(0, RESAMPLES, rows):
        shape = (min(rows, RESAMPLES - start), len(sample))
        yield sample[rng.integers(0, len(sample), size=shape, dtype=np.int32)]
