from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.cells import assign, assign_finely, cell_count, divide, micros_a_cell, train, train_finely
from shards.settings import ShardSettings

DIM = 24


def topics(rows: int, topics: int, seed: int, spread: float = 0.4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors around random directions, and which direction each belongs to."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((topics, DIM))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    topic = rng.integers(0, topics, rows)
    vectors = (centres[topic] + spread * rng.standard_normal((rows, DIM)) / np.sqrt(DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), topic


@pytest.mark.parametrize(
    ("rows", "cells"),
    [(0, 1), (3999, 1), (4000, 8), (20_000, 40), (20_300, 41), (128_000, 256), (10_000_000, 256)],
)
def test_cells_follow_the_rows(rows: int, cells: int) -> None:
    settings = ShardSettings(threshold=4000, rows_per_cell=500, max_cells=256)
    assert cell_count(rows, settings) == cells


def test_past_the_threshold_there_are_at_least_two_cells() -> None:
    assert cell_count(10, ShardSettings(threshold=10, rows_per_cell=500)) == 2
    assert cell_count(10, ShardSettings(threshold=10, rows_per_cell=500, max_cells=1)) == 1


@pytest.mark.parametrize(("rows", "micros"), [(4000, 16), (20_000, 16), (40_000, 32), (55_000, 44), (900_000, 48)])
def test_larger_cells_have_more_micro_cells(rows: int, micros: int) -> None:
    settings = ShardSettings(rows_per_cell=200, max_cells=100, max_micros_per_cell=48)
    assert micros_a_cell(rows, cell_count(rows, settings), settings) == micros


def test_centroids_are_unit_vectors() -> None:
    vectors, _ = topics(2000, 12, seed=1)
    centroids = train(vectors, 12, seed=1)
    assert centroids.shape == (12, DIM)
    assert centroids.dtype == np.float32
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(12), abs=1e-5)


def test_the_same_seed_gives_the_same_cells() -> None:
    vectors, _ = topics(3000, 10, seed=2)
    assert np.array_equal(train(vectors, 10, seed=5), train(vectors, 10, seed=5))
    assert not np.array_equal(train(vectors, 10, seed=5), train(vectors, 10, seed=6))


def test_rows_of_one_topic_share_a_cell() -> None:
    vectors, topic = topics(3000, 6, seed=3)
    cells = assign(vectors, train(vectors, 12, seed=1))
    for cell in range(12):
        members = topic[cells == cell]
        if len(members):
            assert np.bincount(members).max() / len(members) > 0.95


def test_assign_takes_the_nearest_centroid() -> None:
    vectors, _ = topics(500, 5, seed=4)
    centroids = train(vectors, 7, seed=1)
    nearest = [int(np.argmax([float(vector @ centroid) for centroid in centroids])) for vector in vectors]
    assert assign(vectors, centroids).tolist() == nearest


def test_assign_does_not_depend_on_the_size_of_its_blocks() -> None:
    vectors, _ = topics(40_000, 5, seed=5)
    centroids = train(vectors, 9, seed=1)
    whole = np.argmax(vectors @ centroids.T, axis=1)
    assert np.array_equal(assign(vectors, centroids), whole)
    assert assign(vectors[:0], centroids).shape == (0,)


def test_comparing_some_of_many_centroids_finds_the_nearest_nearly_always(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = topics(8000, 60, seed=12, spread=0.8)
    centroids = train_finely(vectors, 600, seed=1)
    exactly = assign(vectors, centroids)
    assert np.array_equal(assign_finely(vectors, centroids, seed=1), exactly)
    monkeypatch.setattr("shards.cells._COMPARED_AT_ONCE", 500)
    assert (assign_finely(vectors, centroids, seed=1) == exactly).mean() > 0.97


def test_no_cell_is_empty_and_none_holds_most_rows() -> None:
    vectors, _ = topics(20_000, 300, seed=6, spread=0.8)
    sizes = np.bincount(assign(vectors, train(vectors, 40, seed=1)), minlength=40)
    assert sizes.min() > 0
    assert sizes.max() / sizes.mean() < 4


def test_repeated_rows_can_be_divided() -> None:
    vectors, _ = topics(4, 2, seed=7)
    centroids = train(np.repeat(vectors, 100, axis=0), 4, seed=1)
    assert np.isfinite(centroids).all()


def test_more_cells_than_rows_are_refused() -> None:
    vectors, _ = topics(5, 2, seed=8)
    for cells in (0, 6):
        with pytest.raises(ValueError, match="cells of 5 rows"):
            train(vectors, cells, seed=1)


def test_two_levels_give_about_as_many_centroids_and_lose_little() -> None:
    vectors, _ = topics(8000, 60, seed=9, spread=0.8)
    fine, flat = train_finely(vectors, 500, seed=1), train(vectors, 500, seed=1)
    assert 450 <= len(fine) <= 550
    assert np.linalg.norm(fine, axis=1) == pytest.approx(np.ones(len(fine)), abs=1e-5)
    near = [float((vectors * centroids[assign(vectors, centroids)]).sum(axis=1).mean()) for centroids in (fine, flat)]
    assert near[0] > 0.97 * near[1]


def test_a_division_covers_every_row_with_balanced_cells() -> None:
    vectors, _ = topics(6000, 40, seed=10, spread=0.6)
    made = divide(vectors, 24, 16, seed=2)
    rows = np.bincount(made.cell_of[made.micro_of], minlength=24)
    assert rows.sum() == 6000
    assert rows.min() > 0
    assert rows.max() / rows.mean() < 1.35
    again = divide(vectors, 24, 16, seed=2)
    assert np.array_equal(made.cell_of, again.cell_of)
    assert np.array_equal(made.micro_of, again.micro_of)


def test_a_division_of_few_rows_has_fewer_micro_cells() -> None:
    vectors, _ = topics(100, 4, seed=11)
    made = divide(vectors, 4, 16, seed=1)
    assert len(made.centroids) == 12
    assert set(made.cell_of) == {0, 1, 2, 3}
