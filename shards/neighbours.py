"""A chunk's vector in the light of its document: a passage that was cut out of a text leans on what stands beside it.

The vector searched is the unit vector of `chunk + 0.6 * unit mean of its two neighbours`. A kin of late chunking
(Guenther et al., 2024, arXiv 2409.04701) that needs no second pass. Measured on whole corpora: the dense side gains
.028 nDCG@10 where passages were cut in two or three (mtrag cloud) and stays within .005 elsewhere; the whole search was
nowhere worse by more than .001 (docs/benchmarks.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WEIGHT = 0.6


def with_neighbours(vectors: NDArray[np.float32], *, weight: float = WEIGHT) -> NDArray[np.float32]:
    """Return the unit vectors (chunks, dim) of one document's chunks, in order, each leaning on its neighbours."""
    if len(vectors) < 2 or weight == 0:
        return vectors
    beside = np.zeros_like(vectors)
    beside[1:] += vectors[:-1]
    beside[:-1] += vectors[1:]
    leaning = vectors + weight * _unit(beside)
    return _unit(leaning)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return scaled
