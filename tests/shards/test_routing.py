"""Expected hits: the sums come out as they must, and the true hits lie where they are expected."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.routing import Routing, _above, effective_dimension
from tests.shards.clustered import DIM, Clustered, clustered, unit


@pytest.fixture(scope="module")
def corpus() -> Clustered:
    return clustered(6000, 24)


@given(st.floats(-8, 8))
def test_the_normal_distribution_function(x: float) -> None:
    exact = 0.5 * math.erfc(-x / math.sqrt(2))
    assert float(_above(np.array([x], dtype=np.float32))[0]) == pytest.approx(exact, abs=2e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 100))
def test_k_rows_are_expected_above_the_kth_score(corpus: Clustered, seed: int, k: int) -> None:
    [query] = corpus.queries(1, seed)
    expected = corpus.routing.expect(query, k)
    # No score is above 1, even where the distributions would have it so.
    assert float(expected.hits.sum()) == pytest.approx(k, rel=0.1) or expected.score > 0.999
    assert (expected.hits >= 0).all()
    assert (expected.hits <= corpus.routing.cell_rows * 1.001).all()


def test_the_predicted_kth_score_follows_the_true_one(corpus: Clustered) -> None:
    queries = corpus.queries(200, seed=2)
    true = [float(corpus.vectors[corpus.best(query, 10)[-1]] @ query) for query in queries]
    predicted = [corpus.routing.expect(query, 10).score for query in queries]
    assert np.corrcoef(true, predicted)[0, 1] > 0.9


def test_cells_with_most_expected_hits_hold_most_true_ones(corpus: Clustered) -> None:
    in_cell = corpus.division.cell_of[corpus.division.micro_of]
    found = 0.0
    for query in corpus.queries(200, seed=3):
        best = np.argsort(-corpus.routing.worth(corpus.routing.expect(query, 10)))[:8]
        found += np.isin(in_cell[corpus.best(query, 10)], best).mean() / 200
    assert found > 0.9


def test_a_filter_moves_the_expectation_to_the_cells_that_match(corpus: Clustered) -> None:
    routing = corpus.routing
    only = np.where(routing.cell_of == 5, routing.rows, 0)
    expected = routing.expect(corpus.queries(1, seed=4)[0], 10, matching=only)
    assert expected.hits[5] == pytest.approx(10, rel=0.2)
    assert expected.hits.sum() == expected.hits[5]


def test_fewer_matches_than_wanted_are_all_expected(corpus: Clustered) -> None:
    few = np.zeros(len(corpus.routing.rows), dtype=np.int64)
    few[:4] = 1
    expected = corpus.routing.expect(corpus.queries(1, seed=4)[0], 10, matching=few)
    assert expected.hits.sum() == pytest.approx(4, abs=1e-3)


def test_empty_micro_cells_expect_nothing() -> None:
    sums = np.zeros((3, DIM), dtype=np.float32)
    routing = Routing(sums, np.zeros(3, dtype=np.int64), np.arange(3), np.arange(3), 10.0)
    query: NDArray[np.float32] = np.eye(DIM, dtype=np.float32)[0]
    assert routing.expect(query, 10).hits.tolist() == [0, 0, 0]
    assert np.isfinite(routing.worth(routing.expect(query, 10))).all()


def test_the_effective_dimension_of_round_noise_is_its_dimension() -> None:
    rng = np.random.default_rng(6)
    means = unit(rng.standard_normal((4000, DIM)))
    noise = 0.1 * rng.standard_normal((4000, DIM)).astype(np.float32)
    assert effective_dimension(unit(means + noise), means) == pytest.approx(DIM, rel=0.2)


def test_of_very_many_micro_cells_those_of_the_nearest_cells_are_enough() -> None:
    rng = np.random.default_rng(6)
    cells, micros = 200, 64
    centres = unit(rng.standard_normal((cells, DIM)))
    cell_of = rng.permutation(np.repeat(np.arange(cells), micros))
    means = 0.9 * unit(centres[cell_of] + 0.5 * rng.standard_normal((len(cell_of), DIM)) / np.sqrt(DIM))
    rows = rng.integers(8, 24, len(cell_of))
    routing = Routing((means * rows[:, None]).astype(np.float32), rows, cell_of, np.arange(cells), float(DIM))
    for query in unit(means[:50] + 0.3 * rng.standard_normal((50, DIM)) / np.sqrt(DIM)):
        some, every = routing.expect(query, 10), routing.expect(query, 10, matching=rows)
        assert np.count_nonzero(some.above) < len(rows)
        assert some.score == pytest.approx(every.score, abs=0.01)
        assert some.hits == pytest.approx(every.hits, abs=0.1)


def test_dividing_some_cells_leaves_the_worth_of_the_others(corpus: Clustered) -> None:
    routing = corpus.routing
    cell_of = routing.cell_of.copy()
    for cell in range(12):  # every second micro-cell of half the cells into a new one
        cell_of[np.flatnonzero(cell_of == cell)[::2]] = len(routing.cells) + cell
    cells = np.arange(len(routing.cells) + 12)
    divided = replace(routing, cell_of=cell_of, cells=cells, reference_rows=routing.mean_rows)
    [query] = corpus.queries(1, seed=6)
    before, after = (one.worth(one.expect(query, 10)) for one in (routing, divided))
    assert after[12:24] == pytest.approx(before[12:24], rel=1e-4)
    unmeasured = replace(divided, reference_rows=None)
    assert unmeasured.worth(unmeasured.expect(query, 10))[12:24] == pytest.approx(before[12:24] * 24 / 36, rel=1e-4)
