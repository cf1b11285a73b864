"""A server that makes its callers wait in vain is left alone for a moment.

Circuit breaker (Nygard, "Release It!", 2007): without it every search waits the whole time-out for a server that is
silent, and a tenant's few places are taken by searches that wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_REST_S = 2.0
_IN_VAIN = 2
_LONG_S = 1.0
_NEARLY = 0.9
"""Of a patience that is shorter than that, what counts as all of it."""


class Breaker:
    """Of one server: after two calls in a row that waited long for nothing, calls fail at once; every two seconds one
    is let through to see whether it answers again."""

    def __init__(
        self, patience_s: float, clock: Callable[[], float] = time.monotonic, *, try_s: float | None = None
    ) -> None:
        """Begin; a call may take `patience_s` seconds, and is given at least `try_s` where that is less."""
        self._patience_s = patience_s
        self._long_s = min(_LONG_S, _NEARLY * min(patience_s, try_s or patience_s))
        self._clock = clock
        self._in_vain = 0
        self._rests_until = 0.0

    def admits(self) -> bool:
        """Say whether a call may be made now; whoever is let through while it rests, is so alone."""
        if self._in_vain < _IN_VAIN:
            return True
        now = self._clock()
        if now < self._rests_until:
            return False
        self._rests_until = now + self._patience_s
        return True

    def answered(self) -> None:
        """Note an answer, be it an error: the server is there."""
        self._in_vain = 0

    def failed(self, waited_s: float) -> None:
        """Note a call that was not answered, after so many seconds; one that was refused at once cost nothing."""
        self._in_vain += waited_s >= self._long_s
        if self._in_vain >= _IN_VAIN:
            self._rests_until = self._clock() + _REST_S
