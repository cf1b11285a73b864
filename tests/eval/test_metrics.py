from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import MEASURES, judged_ranks, measure

GRADES = {
    "graded": {"d1": 2, "d2": 1, "d3": 1, "d9": 0},
    "binary": {"d5": 1},
    "deep": {f"r{i}": 1 for i in range(12)},
    "negative": {"d1": 1, "d2": -1},
    "nothing": {"d7": 1},
}
RANKED = {
    "graded": ["d2", "d9", "d1", "d4", "d3"],
    "binary": [f"x{i}" for i in range(10)] + ["d5"],
    "deep": [name for i in range(12) for name in (f"x{i}", f"r{i}")],
    "negative": ["d2", "d1"],
    "nothing": ["d1", "d2"],
}
# Printed by trec_eval (pytrec-eval-terrier 0.5.11) for the lists above: ndcg_cut_10, recall_5, recall_10, recall_100,
# and recip_rank of the lists cut at 10.
TREC_EVAL = {
    "graded": (0.762346330035624, 1.0, 1.0, 1.0, 1.0),
    "binary": (0.0, 0.0, 0.0, 1.0, 0.0),
    "deep": (0.4451010873575095, 2 / 12, 5 / 12, 1.0, 0.5),
    "negative": (0.6309297535714575, 1.0, 1.0, 1.0, 0.5),
    "nothing": (0.0, 0.0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("name", GRADES)
def test_the_figures_are_those_of_trec_eval(name: str) -> None:
    assert measure(RANKED[name], GRADES[name]) == pytest.approx(dict(zip(MEASURES, TREC_EVAL[name], strict=True)))


def test_ndcg_by_hand() -> None:
    # Found: grade 1 at 1, grade 2 at 3, grade 1 at 5. Best possible: 2, 1, 1.
    dcg = 1 / math.log2(2) + 2 / math.log2(4) + 1 / math.log2(6)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert measure(RANKED["graded"], GRADES["graded"])["ndcg@10"] == pytest.approx(dcg / ideal)


def slow(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    """The definitions once more, by another road: integrals over cut-off sets instead of one pass over gains."""
    relevant = {document for document, grade in grades.items() if grade > 0}

    def dcg(order: list[str]) -> float:
        total = 0.0
        for document in order[:10]:
            if document in relevant:
                total += grades[document] * math.log(2) / math.log(order.index(document) + 2)
        return total

    found = {"ndcg@10": dcg(ranked) / max(dcg(list(order)) for order in [sorted(relevant, key=lambda d: -grades[d])])}
    for depth in (5, 10, 100):
        found[f"recall@{depth}"] = len(relevant.intersection(ranked[:depth])) / len(relevant)
    ranks = [ranked.index(document) + 1 for document in relevant.intersection(ranked[:10])]
    found["mrr@10"] = 1 / min(ranks) if ranks else 0.0
    return found


documents = st.integers(0, 150).map(str)
judged = st.dictionaries(documents, st.integers(-1, 4), min_size=1, max_size=30).filter(lambda g: max(g.values()) > 0)


@given(ranked=st.lists(documents, unique=True, max_size=120), grades=judged)
def test_an_independent_computation_agrees(ranked: list[str], grades: dict[str, int]) -> None:
    assert measure(ranked, grades) == pytest.approx(slow(ranked, grades))


@given(ranked=st.lists(documents, unique=True, max_size=120), grades=judged)
def test_the_ranks_that_are_kept_are_enough_to_compute_everything_again(
    ranked: list[str], grades: dict[str, int]
) -> None:
    kept = judged_ranks(ranked, grades)
    rebuilt = [f"unjudged {place}" for place in range(1, len(ranked) + 1)]
    for document, place in kept.items():
        rebuilt[place - 1] = document
    assert measure(rebuilt, grades) == measure(ranked, grades)


def test_a_document_ranked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        measure(["d1", "d1"], {"d1": 1})


def test_a_question_that_nothing_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="no document"):
        measure(["d1"], {"d1": 0})
