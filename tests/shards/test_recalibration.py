from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from shards.calibration import Calibration
from shards.recalibration import is_due, running_recall
from shards.usage_models import ProbeSample
from tests.shards.clustered import clustered
from tests.shards.generations import generation_of


def samples(count: int, recall: float) -> list[ProbeSample]:
    return [ProbeSample(id=uuid4(), recall=recall, rows_share=0.1, truth=[], vector=b"") for _ in range(count)]


def test_the_interval_narrows_with_the_samples() -> None:
    few, many = (running_recall([*samples(n, 1.0), *samples(n, 0.9)]) for n in (10, 200))
    assert few is not None
    assert many is not None
    assert (few.recall, many.recall) == (pytest.approx(0.95), pytest.approx(0.95))
    assert few.low < many.low < 0.95 < many.high < few.high
    certain = running_recall(samples(5, 1.0))
    assert certain is not None
    assert certain.low < 1.0, "five questions prove little"
    assert running_recall([]) is None


def test_it_is_due_once_there_are_questions_and_when_recall_falls() -> None:
    live = generation_of(clustered(2000, 8))

    def due(found: list[ProbeSample], source: str, questions: int) -> bool:
        known = Calibration(source, questions, (), (), (), (), ())
        return is_due(replace(live, header=replace(live.header, calibration=known)), found, 0.98)

    assert not due(samples(99, 0.9), "sentences", 300)
    assert due(samples(100, 0.99), "sentences", 300)
    assert not due(samples(120, 0.99), "questions", 100)
    assert due(samples(150, 0.99), "questions", 100)
    assert due(samples(120, 0.9), "questions", 100), "recall fell"
