"""One thing that was looked at: good, or wrong with a way to mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A sentence about one subject."""

    subject: str
    good: bool
    detail: str
    mend: str = ""
    """What to do; empty when nothing is wrong."""
    tail: tuple[str, ...] = ()
    """Last lines of the log that says more."""


def good(subject: str, detail: str) -> Finding:
    """Return a finding with nothing to mend."""
    return Finding(subject, True, detail)


def wrong(subject: str, detail: str, mend: str, tail: tuple[str, ...] = ()) -> Finding:
    """Return a finding with its mend."""
    return Finding(subject, False, detail, mend, tail)
