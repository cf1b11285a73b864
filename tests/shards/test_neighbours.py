from __future__ import annotations

import numpy as np

from shards.neighbours import with_neighbours

RNG = np.random.default_rng(7)


def units(count: int) -> np.ndarray:
    rows = RNG.normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_each_row_leans_on_the_rows_beside_it_and_on_no_other() -> None:
    rows = units(5)
    leaning = with_neighbours(rows, weight=0.6)
    middle = rows[1] + rows[3]
    expected = rows[2] + 0.6 * middle / np.linalg.norm(middle)
    assert np.allclose(leaning[2], expected / np.linalg.norm(expected), atol=1e-6)
    first = rows[0] + 0.6 * rows[1]
    assert np.allclose(leaning[0], first / np.linalg.norm(first), atol=1e-6)
    assert np.allclose(np.linalg.norm(leaning, axis=1), 1, atol=1e-6)


def test_a_single_chunk_stays_as_it_is() -> None:
    row = units(1)
    assert with_neighbours(row) is row


def test_neighbours_that_cancel_out_do_no_harm() -> None:
    row = units(1)[0]
    leaning = with_neighbours(np.stack([row, units(1)[0], -row]).astype(np.float32))
    assert np.isfinite(leaning).all()
