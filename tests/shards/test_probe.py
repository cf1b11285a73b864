from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.probe import probe

CENTROIDS = np.eye(5, dtype=np.float32)
QUERY = np.array([0.1, 0.9, 0.3, 0.2, 0.0], dtype=np.float32)  # nearest cells: 1, 2, 3, 0, 4


def visited(rows: list[int], share: float, least: int = 0) -> list[int]:
    return probe(QUERY, CENTROIDS, np.array(rows, dtype=np.int64), share=share, rows=least)


def test_takes_the_nearest_cells_until_they_hold_the_share() -> None:
    assert visited([20, 20, 20, 20, 20], 0.2) == [1]
    assert visited([20, 20, 20, 20, 20], 0.21) == [1, 2]
    assert visited([20, 20, 20, 20, 20], 0.6) == [1, 2, 3]
    assert visited([5, 5, 80, 5, 5], 0.5) == [1, 2]


def test_a_share_of_everything_visits_everything() -> None:
    assert visited([20, 20, 20, 20, 20], 1.0) == [1, 2, 3, 0, 4]


def test_takes_at_least_so_many_rows() -> None:
    assert visited([20, 20, 20, 20, 20], 0.1, least=40) == [1, 2]
    assert visited([20, 20, 20, 20, 20], 0.1, least=41) == [1, 2, 3]
    assert visited([20, 20, 20, 20, 20], 0.5, least=30) == [1, 2, 3]
    assert visited([20, 20, 20, 20, 20], 0.1, least=5000) == [1, 2, 3, 0, 4]


def test_empty_cells_are_passed_over() -> None:
    assert visited([10, 0, 10, 0, 10], 0.5) == [2, 0]
    assert visited([0, 0, 0, 0, 7], 0.1) == [4]


def test_counts_that_are_all_zero_are_not_believed() -> None:
    assert visited([0, 0, 0, 0, 0], 0.1) == [1, 2, 3, 0, 4]


def test_one_cell_is_visited() -> None:
    assert probe(QUERY, CENTROIDS[:1], np.array([3], dtype=np.int64), share=0.01) == [0]


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_holds_the_share_with_no_cell_to_spare(rows: list[int], share: float, seed: int) -> None:
    query = np.random.default_rng(seed).standard_normal(5).astype(np.float32)
    cells = probe(query, CENTROIDS, np.array(rows, dtype=np.int64), share=share)
    assert len(set(cells)) == len(cells) > 0
    assert all(isinstance(cell, int) for cell in cells)
    if sum(rows):
        held = [rows[cell] for cell in cells]
        assert sum(held) >= share * sum(rows) - 1e-6
        assert sum(held[:-1]) < share * sum(rows) + 1e-6
        scores = [query[cell] for cell in cells]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("number", range(3))
def test_more_share_only_adds_cells(number: int) -> None:
    rng = np.random.default_rng(number)
    centroids = rng.standard_normal((30, 8)).astype(np.float32)
    rows = rng.integers(1, 100, 30)
    query = rng.standard_normal(8).astype(np.float32)
    less, more = (probe(query, centroids, rows, share=share) for share in (0.2, 0.5))
    assert more[: len(less)] == less
