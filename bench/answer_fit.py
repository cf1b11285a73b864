"""The two small regressions behind the built-in answerer, in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def logistic(rows: Floats, answers: Floats, weights: Floats) -> Floats:
    """Weighted logistic regression by Newton's method, float64 (columns,); the last column should be constant."""
    scale = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
    scaled = rows / scale
    fitted = np.zeros(rows.shape[1])
    ridge = 1e-4 * len(rows) * np.eye(rows.shape[1])
    ridge[-1, -1] = 0.0
    for _ in range(50):
        likely = 1 / (1 + np.exp(-np.clip(scaled @ fitted, -30, 30)))
        slope = scaled.T @ (weights * (likely - answers)) + ridge @ fitted
        bend = (scaled * (weights * likely * (1 - likely) + 1e-9)[:, None]).T @ scaled + ridge
        fitted = fitted - np.linalg.solve(bend, slope)
    return fitted / scale


def conditional_logit(groups: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> Floats:
    """Weights under which, in each group (rows, which of them are right), softmax puts most on the right rows.

    McFadden's conditional logit (1974) with several right choices allowed, by Adam. float64 (columns,).
    """
    usable = [(rows, right) for rows, right in groups if right.any()]
    rows = np.vstack([rows for rows, _ in usable])
    right = np.concatenate([right for _, right in usable])
    sizes = [len(right) for _, right in usable]
    group = np.repeat(np.arange(len(usable)), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    scale = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
    scaled = rows / scale
    fitted = np.zeros(rows.shape[1])
    first = second = np.zeros(rows.shape[1])
    for step in range(1, 401):
        scores = scaled @ fitted
        scores -= np.maximum.reduceat(scores, starts)[group]
        odds = np.exp(scores)
        every = odds / np.add.reduceat(odds, starts)[group]
        correct = odds * right
        wanted = correct / np.add.reduceat(correct, starts)[group]
        slope = scaled.T @ (every - wanted) / len(usable) + 1e-3 * fitted
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        fitted = fitted - 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return fitted / scale
