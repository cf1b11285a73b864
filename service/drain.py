"""How a process that serves requests leaves: it says so, lets balancers go elsewhere, then ends what would not end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Drain:
    """`begin` when told to stop; for `delay_s` seconds requests are still taken, while `/readyz` says otherwise."""

    delay_s: float = 0.0
    leaving: bool = False
    """From the signal on: not ready, and answers ask the client to connect anew."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """From the end of the delay on: no connection is taken, and streams that would go on end with a hint."""
    _closes_at: float = 0.0

    def begin(self) -> None:
        """Leave; safe in a signal handler, and again."""
        if not self.leaving:
            self.leaving, self._closes_at = True, time.monotonic() + self.delay_s

    def is_over(self) -> bool:
        """Say whether the delay has passed; from then on it is `closing`. Asked from the event loop."""
        if self.leaving and time.monotonic() >= self._closes_at:
            self.closing.set()
        return self.closing.is_set()
