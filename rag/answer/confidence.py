"""Whether the evidence for the best unit suffices to answer: a logistic rule of five measures.

The constants are fitted by `bench/answer.py` (logistic regression on answerable, unanswerable, foreign and altered
questions) and held against questions that were not fitted; figures in docs/decisions/0006-answering-and-abstaining.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rag.answer.candidates import passage_text
from rag.answer.evidence import Evidence
from rag.answer.names import code_forms, codes, is_stated
from rag.passages import Passage

WEIGHTS = {
    "words": 7.01,
    "late": 2.23,
    "cosine": 3.74,
    "code_missing": -3.46,
    "name_missing": -3.71,
    "always": -6.31,
}
"""`always` is the fitted intercept less the log-odds at which the answerer begins to speak."""


def measures(question: str, passages: Sequence[Passage], evidence: Evidence, best: int) -> dict[str, float]:
    """What is known of the chosen unit (`best`, a position in `evidence.candidates`) and its passage.

    words: how well each content word of the question is matched anywhere in the passage, weighted by idf;
    late, cosine: of the unit itself; code_missing: 1 if a number or code of the question is not in the passage;
    name_missing: share of the question's weight in names that are not in the passage.
    """
    place = int(evidence.place[best])
    in_passage = evidence.matches[:, evidence.place == place].max(axis=1)
    weights = evidence.weights / max(float(evidence.weights.sum()), 1e-6)
    forms = code_forms(passage_text(passages[place]))
    total = sum(term.weight for term in evidence.terms) or 1.0
    unnamed = [
        term.weight
        for term in evidence.terms
        if term.named and term.word.isalpha() and term.stem not in evidence.in_passage[place]
    ]
    return {
        "words": float(np.dot(weights, in_passage)),
        "late": float(evidence.late[best]),
        "cosine": float(evidence.cosine[best]),
        "code_missing": float(any(not is_stated(code, forms) for code in codes(question))),
        "name_missing": sum(unnamed) / total,
    }


def confidence(found: Mapping[str, float], weights: Mapping[str, float] = WEIGHTS) -> float:
    """Log-odds that the unit answers, by its `measures`; below 0 the answerer abstains."""
    return sum(weight * found.get(name, 1.0) for name, weight in weights.items())
