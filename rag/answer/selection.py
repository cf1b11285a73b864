"""Which units make the answer: ranked by a linear score, near-duplicates left out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rag.answer.candidates import Candidate
from rag.answer.evidence import Evidence

MAX_UNITS = 3
MAX_CHARACTERS = 900
MARGIN = 2.0
"""How far below the best a further unit may score, in log-odds of being the one that answers."""
SAME = 0.8
"""Share of common stems from which two units say the same."""


WEIGHTS = {"cosine": 6.3, "late": 6.6, "own": 2.3, "passage": 4.0, "typed": 0.8, "place": -0.57, "former": 2.5}
"""Of the measures of `Evidence`: a conditional logit fitted by `bench/answer.py`. Only `former`, which is zero outside
follow-up questions, was set by hand, on the follow-ups of the examples."""


def rank_scores(evidence: Evidence, weights: Mapping[str, float] = WEIGHTS) -> NDArray[np.float64]:
    """Log-odds, up to a constant, of each candidate, float64 (n,), of being the one that answers."""
    scores = np.zeros(len(evidence.candidates), dtype=np.float64)
    for name, weight in weights.items():
        scores += weight * getattr(evidence, name)
    return scores


def choose(evidence: Evidence, scores: NDArray[np.float64]) -> list[int]:
    """Positions of one to three candidates, best first; empty only without candidates."""
    chosen: list[int] = []
    characters = 0
    for at in np.argsort(-scores, kind="stable").tolist():
        one = evidence.candidates[at]
        if chosen:
            if len(chosen) == MAX_UNITS or scores[at] < scores[chosen[0]] - MARGIN:
                break
            if not _is_whole(one) or characters + len(one.text) > MAX_CHARACTERS:
                continue
            if any(_same(one, evidence.candidates[other]) for other in chosen):
                continue
        chosen.append(at)
        characters += len(one.text)
    return chosen


def _is_whole(one: Candidate) -> bool:
    """Whether a unit is more than a caption or a page footer."""
    return one.unit.kind != "sentence" or one.text[-1] in ".!?:;。！？…\"'”’»)]"


def _same(one: Candidate, other: Candidate) -> bool:
    joint = len(one.own | other.own)
    return joint == 0 or len(one.own & other.own) / joint >= SAME
