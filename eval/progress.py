"""How an evaluation tells how far it is, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A sequence of stages, each counted up to a total."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage; the one before is over."""
        ...

    def reach(self, done: int) -> None:
        """Say how many of the stage's total are done."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, stage: str, total: int) -> None:
        """See Progress."""

    def reach(self, done: int) -> None:
        """See Progress."""
