"""Which replicas one answer was asked of: none is asked twice, and not all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.answer.completion import FailureKind
from rag.answer.replica import Replica


@dataclass
class Tries:
    """The tries of one answer, over everything that fails before its first text has left."""

    asked_at: float
    """On the event loop's clock, in seconds."""
    first_token_s: float | None = None
    """From then to the first token of the replica that writes, None before it."""
    cause: FailureKind | None = None
    """Why the next replica is needed, None for the first."""
    _asked: list[Replica] = field(default_factory=list)
    _refused: int = 0

    @property
    def replicas(self) -> Sequence[Replica]:
        """Those that were asked."""
        return self._asked

    @property
    def spent(self) -> int:
        """How many count: one that refused did no work, and says nothing of the others."""
        return len(self._asked) - self._refused

    def begun(self, replica: Replica) -> None:
        """Note that a replica is asked."""
        self._asked.append(replica)

    def failed(self, kind: FailureKind) -> None:
        """Note that one failed."""
        self.cause = kind
        self._refused += kind == "refused"
