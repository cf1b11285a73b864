"""What an embedder must give back: a unit vector of the index's dimension for every chunk, or the document fails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenants.errors import DocumentRejected

_OFF_UNIT = 0.01
"""How far from one the length of a vector may be; int8 arithmetic stays far within it."""


def unsound(vectors: NDArray[np.float32], *, dim: int) -> DocumentRejected | None:
    """Return why a document with these chunk vectors (chunks, any) cannot be indexed, naming its first bad chunk."""
    if vectors.shape[1] != dim:
        return _refused(f"Chunk 0 was embedded in {vectors.shape[1]} dimensions; the index has {dim}.")
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    lengths = np.linalg.norm(np.where(finite[:, None], vectors, 0.0), axis=1)
    for what, bad in (
        ("that holds no number (NaN or infinity)", ~finite),
        ("of length zero", finite & (lengths == 0)),
        ("that is not of length one", finite & (np.abs(lengths - 1) > _OFF_UNIT)),
    ):
        if bad.any():
            return _refused(f"Chunk {int(np.argmax(bad))} was embedded as a vector {what}.")
    return None


def _refused(detail: str) -> DocumentRejected:
    return DocumentRejected(detail, code="embedding_invalid")
