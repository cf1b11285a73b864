from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from shards.calibration import Calibration, calibrate, true_cells
from tests.shards.clustered import Clustered, clustered


@pytest.fixture(scope="module")
def corpus() -> Clustered:
    return clustered(6000, 24)


def measured(corpus: Clustered, seed: int, source: str, count: int = 300) -> Calibration:
    queries = corpus.queries(count, seed)
    in_cell = corpus.division.cell_of[corpus.division.micro_of]
    truth = true_cells(corpus.vectors, in_cell, queries)
    return calibrate(corpus.routing, queries, truth, source=source)


@pytest.mark.parametrize("target", [0.93, 0.96, 0.99])
def test_the_promise_holds_for_other_queries(corpus: Clustered, target: float) -> None:
    threshold = measured(corpus, 1, "sentences").threshold(target)
    other = measured(corpus, 2, "sentences", count=600)
    at = int(np.argmin(np.abs(np.array(other.worth) - threshold.worth)))
    assert other.recall[at] == pytest.approx(target, abs=0.02)
    assert other.rows[at] == pytest.approx(threshold.rows, abs=0.04)
    assert threshold.rows < 0.9


def test_a_lower_threshold_visits_more_and_finds_more(corpus: Clustered) -> None:
    curve = measured(corpus, 3, "questions")
    assert list(curve.worth) == sorted(curve.worth, reverse=True)
    assert list(curve.recall) == sorted(curve.recall)
    assert list(curve.rows) == sorted(curve.rows)
    found = [curve.threshold(target) for target in (0.7, 0.9, 0.99)]
    assert [one.rows for one in found] == sorted(one.rows for one in found)


def test_real_questions_are_given_a_margin(corpus: Clustered) -> None:
    as_sentences, as_questions = (measured(corpus, 4, source) for source in ("sentences", "questions"))
    assert as_questions.threshold(0.95).rows > as_sentences.threshold(0.95).rows


def test_without_questions_everything_is_visited() -> None:
    nothing = calibrate(clustered(200, 2).routing, np.empty((0, 32), dtype=np.float32), [], source="sentences")
    assert nothing.threshold(0.98).worth == 0.0


def test_it_comes_back_from_json(corpus: Clustered) -> None:
    curve = measured(corpus, 5, "questions", count=50)
    curve = replace(curve, filtered=measured(corpus, 6, "sentences", count=50))
    again = Calibration.from_json(json.loads(json.dumps(curve.to_json())))
    assert again.filtered is not None
    assert again.threshold(0.99, filtered=True).worth <= again.threshold(0.99).worth
    assert again.threshold(0.9).worth == pytest.approx(curve.threshold(0.9).worth, abs=1e-5)
