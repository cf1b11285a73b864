"""Texts in batches that cost a model about the same: of like length together, bounded in number and padded tokens."""

from __future__ import annotations

from collections.abc import Sequence

_BYTES_A_TOKEN = 3
"""Fewer than most tokenizers have, so that a batch is rather too small."""


def batches(texts: Sequence[str], *, most: int, tokens: int) -> list[list[int]]:
    """Return the places of texts, the longest first, in batches of at most `most` texts and about `tokens` tokens, each
    counted as long as the longest of its batch; a longer one goes alone."""
    lengths = [len(text.encode()) // _BYTES_A_TOKEN + 2 for text in texts]
    found: list[list[int]] = []
    for at in sorted(range(len(texts)), key=lambda at: -lengths[at]):
        last = found[-1] if found else []
        if last and len(last) < most and lengths[last[0]] * (len(last) + 1) <= tokens:
            last.append(at)
        else:
            found.append([at])
    return found
