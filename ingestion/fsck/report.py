"""What a check found: differences by store and class, with some examples of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Store = Literal["postgres", "vectors", "lexical", "objects"]
Class = Literal[
    "missing",  # in Postgres and not in the store
    "orphan",  # in the store, and nothing in Postgres is it
    "stale",  # of a version that is known, and neither served nor on its way
    "misplaced",  # in another cell than the generation assigns, or there twice
    "wrong_tenant",  # in a shared collection, of a tenant that does not belong there
    "checksum",  # the content is not what was uploaded
    "text",  # the lexical entry does not hold its chunk's words
    "damaged",  # the index cannot be read
    "active_version",  # a document does not have exactly the active version it says
    "chunk_count",  # a version does not have as many chunks as it says
    "fields",  # the filterable fields are not those of the metadata
    "catalog",  # what is known of an index does not add up
    "job",  # work that is due and that nobody will do
]
_EXAMPLES = 10


@dataclass
class Report:
    """Counts of differences and examples of them, of one tenant or of the whole installation."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    """How much was compared, by kind."""
    not_checked: list[dict[str, str]] = field(default_factory=list)
    """What could not be looked at, and why: nothing is known of its differences."""

    @property
    def total(self) -> int:
        """Return the number of differences."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    def add(self, store: Store, kind: Class, what: str, *, number: int = 1, why: str = "") -> None:
        """Count a difference; the first of each class are kept as examples."""
        classes = self.counts.setdefault(store, {})
        if classes.get(kind, 0) < _EXAMPLES:
            example = {"store": store, "class": kind, "what": what}
            self.examples.append(example | ({"why": why} if why else {}))
        classes[kind] = classes.get(kind, 0) + number

    def skip(self, what: str, why: str) -> None:
        """Say what could not be looked at."""
        self.not_checked.append({"what": what, "why": why})

    def count(self, kind: str, number: int = 1) -> None:
        """Count what was compared."""
        self.checked[kind] = self.checked.get(kind, 0) + number

    def shown(self) -> dict[str, Any]:
        """Return it for the result of a job."""
        return {
            "total": self.total,
            "differences": {store: dict(sorted(classes.items())) for store, classes in sorted(self.counts.items())},
            "examples": self.examples,
            "checked": dict(sorted(self.checked.items())),
            "not_checked": self.not_checked,
        }


def merged(counts: Mapping[str, Mapping[str, int]], more: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return the sum of two counts."""
    total = {store: dict(classes) for store, classes in counts.items()}
    for store, classes in more.items():
        mine = total.setdefault(store, {})
        for kind, number in classes.items():
            mine[kind] = mine.get(kind, 0) + number
    return total
