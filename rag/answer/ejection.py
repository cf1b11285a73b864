"""A replica that fails gets no requests for a while, longer each time, and then one to see whether it is back.

Outlier detection as in Envoy, with a circuit breaker's half-open state (Nygard, "Release It!", 2007).
"""

from __future__ import annotations

FIRST_S = 1.0
LONGEST_S = 30.0
_MOST_DOUBLINGS = 10
IN_A_ROW = 3
"""Failures one after the other from which a replica is left alone; one is enough when it was not even reached."""


class Ejection:
    """Whether one replica is left alone, and until when; `now` is the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._times = 0
        self._until = 0.0

    @property
    def out(self) -> bool:
        """Whether it is left alone, or has yet to prove itself."""
        return self._times > 0

    def due(self, now: float) -> bool:
        """Whether its pause is over: one request may find out."""
        return self.out and now >= self._until

    def failed(self, now: float, *, gone: bool) -> None:
        """Note a failure. `gone`: it could not be reached, or broke a connection."""
        if self.out and now < self._until:
            return  # of a request from before: it does not make the pause longer
        self._failures += 1
        if gone or self.out or self._failures >= IN_A_ROW:
            self._until = now + min(LONGEST_S, FIRST_S * 2.0 ** min(self._times, _MOST_DOUBLINGS))
            self._times += 1

    def answered(self) -> None:
        """Note a first token: it is there again."""
        self._failures = self._times = 0

    def reached(self, now: float) -> None:
        """Note that it can be reached again: what was left alone may be tried at once."""
        self._until = min(self._until, now)
