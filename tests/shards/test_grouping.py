from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.grouping import CAPACITY, group


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_every_cell_is_used_and_none_is_overfull(micros: int, data: st.DataObject) -> None:
    cells = data.draw(st.integers(1, micros))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    centroids = rng.standard_normal((micros, 6)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    rows = rng.integers(0, 40, micros)
    found = group(centroids, rows, cells, seed=1)
    assert set(found) == set(range(cells))
    held = np.bincount(found, weights=np.maximum(rows, 1), minlength=cells)
    largest = max(1, int(rows.max()))
    # What fits nowhere goes to the emptiest cell, which holds at most the mean then.
    assert held.max() <= max(CAPACITY * held.mean(), held.mean() + largest) + 1e-6
    assert np.array_equal(found, group(centroids, rows, cells, seed=1))


def test_neighbours_stay_together() -> None:
    directions = np.eye(4, dtype=np.float32)
    rng = np.random.default_rng(3)
    centroids = np.repeat(directions, 8, axis=0) + 0.05 * rng.standard_normal((32, 4)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    found = group(centroids, np.full(32, 10), 4, seed=1)
    assert [len(set(found[at : at + 8])) for at in range(0, 32, 8)] == [1, 1, 1, 1]


@pytest.mark.parametrize("cells", [0, 6])
def test_more_cells_than_micro_cells_are_refused(cells: int) -> None:
    with pytest.raises(ValueError, match="of 5 micro-cells"):
        group(np.eye(5, dtype=np.float32), np.ones(5, dtype=np.int64), cells, seed=1)
