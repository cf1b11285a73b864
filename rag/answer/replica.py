"""One server of a model, and what is known of it: from itself, and from the requests that this process has there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag.answer.ejection import Ejection
from rag.answer.server_metrics import ServerLoad

if TYPE_CHECKING:
    import openai  # half a second at the start of whoever only checks the servers

QUEUE_WEIGHT = 4.0
"""What a request that waits at the server counts beside one that it computes: it says that there is no room."""
FULL_CACHE = 0.9
"""Share of the cache from which a server is about to put requests back."""
SLOW_FACTOR, SLOW_S = 2.0, 0.1
"""A replica is slow when its first tokens take this many times as long as the fastest one's, and so much more."""
PROBE_EVERY_S = 5.0
"""How often a slow replica gets a request, to see whether it is slow still."""
_MEMORY_S = 10.0
"""Over how long first tokens are averaged."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Reading:
    """What a server said, when it was asked, and how many requests this process had there then."""

    load: ServerLoad
    at: float
    outstanding: int


@dataclass(eq=False)
class Replica:
    """The state of one server. `now` is the pool's clock everywhere, in seconds."""

    url: str
    client: openai.AsyncOpenAI
    most: int
    """Requests that this process may have there at once."""
    fresh_s: float
    """How long a reading is believed."""
    outstanding: int = 0
    reachable: bool = True
    """What its `/health` said last; a server without one counts as reachable."""
    absent: bool = False
    """Its name has no address at the moment: fewer servers run than there may be."""
    takes_salt: bool = True
    reading: Reading | None = None
    ejection: Ejection = field(default_factory=Ejection)
    _busy_until: float = 0.0
    _asked_at: float = float("-inf")
    _waiting: dict[int, float] = field(default_factory=dict)
    """When each request began that has no first token yet."""
    _average_s: float = 0.0
    _averaged_at: float = 0.0

    def first_token_s(self, now: float) -> float:
        """Seconds to the first token: the recent average, or the age of the oldest request that waits for one if that
        is more; 0.0 while nothing is known."""
        oldest = min(self._waiting.values(), default=now)
        return max(self._average_s, now - oldest)

    @property
    def average_s(self) -> float:
        """The recent average of the seconds to the first token, 0.0 before the first."""
        return self._average_s

    @property
    def up(self) -> bool:
        """Whether it can be asked, as far as is known."""
        return self.reachable and not self.ejection.out

    @property
    def last_load(self) -> ServerLoad | None:
        """What it said of its load last, however long ago."""
        return None if self.reading is None else self.reading.load

    def usable(self, now: float) -> bool:
        """Whether it may get requests, room aside."""
        return self.may_be_asked(now) and not self.ejection.out

    def may_be_asked(self, now: float) -> bool:
        """Whether it can be reached and has not said that it has too many requests."""
        return self.reachable and now >= self._busy_until

    @property
    def has_room(self) -> bool:
        """Whether this process may have one more request there."""
        return self.outstanding < self.most

    def forget(self) -> None:
        """Believe no longer what it said of itself: it may be another one by now."""
        self.reachable, self.absent, self.reading = True, False, None

    def probe_due(self, now: float, fastest_s: float) -> bool:
        """Whether one request should find out how it is: it was left alone, or slow, long enough."""
        if self._waiting or not self.may_be_asked(now):
            return False
        if self.ejection.out:
            return self.ejection.due(now)
        return self.is_slow(now, fastest_s) and now - self._asked_at >= PROBE_EVERY_S

    def is_slow(self, now: float, fastest_s: float) -> bool:
        """Whether its first tokens are late beside the fastest replica's; none is slow before the first."""
        return fastest_s > 0 and self.first_token_s(now) > SLOW_FACTOR * fastest_s + SLOW_S

    def load(self, now: float) -> ServerLoad | None:
        """What it said last, None when that is too old."""
        fresh = self.reading is not None and now - self.reading.at <= self.fresh_s
        return self.reading.load if fresh and self.reading is not None else None

    def is_pressed(self, now: float) -> bool:
        """Whether requests wait there, or its cache is nearly full."""
        load = self.load(now)
        return load is not None and (load.waiting > 0 or load.cache >= FULL_CACHE)

    def cost(self, now: float) -> float:
        """What one more request costs there: requests, by the share of its cache that is free.

        What the server said is carried on by what this process has begun and ended there since, and is never less than
        what this process has there: without a reading that alone is the cost (least outstanding).
        """
        load = self.load(now)
        if load is None or self.reading is None:
            return 1.0 + self.outstanding
        running = load.running + load.waiting + self.outstanding - self.reading.outstanding
        requests = max(running, float(self.outstanding)) + (QUEUE_WEIGHT - 1) * load.waiting
        return (1.0 + requests) / (1.0 - min(load.cache, 0.95))

    def busy(self, until: float) -> None:
        """Note that it refused a request for having too many."""
        self._busy_until = max(self._busy_until, until)

    def begun(self, number: int, now: float) -> None:
        """Note that a request begins."""
        self.outstanding += 1
        self._asked_at = now
        self._waiting[number] = now

    def first_token(self, number: int, now: float) -> float:
        """Note a request's first token; return how long it took."""
        took = now - self._waiting.pop(number)
        self._note(took, now)
        self.ejection.answered()
        return took

    def overtaken(self, number: int, now: float) -> None:
        """Note that another replica was faster: this one would have taken at least so long."""
        waited = now - self._waiting.pop(number, now)
        if waited > self._average_s:
            self._note(waited, now)

    def ended(self, number: int) -> None:
        """Note that a request has ended, whatever became of it."""
        self.outstanding -= 1
        self._waiting.pop(number, None)

    def _note(self, took: float, now: float) -> None:
        kept = 0.5 ** ((now - self._averaged_at) / _MEMORY_S) * 0.9 if self._average_s else 0.0
        self._average_s = kept * self._average_s + (1 - kept) * took
        self._averaged_at = now
