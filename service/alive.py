"""Signs of life: each long-running process keeps a key in Redis that expires soon after the process does."""

from __future__ import annotations

import threading
from contextlib import suppress

from redis import Redis
from redis.exceptions import RedisError

TTL_S = 10
_EVERY_S = 3.0


def alive_key(role: str) -> str:
    """Return the key of a role (`worker`, `scheduler`)."""
    return f"tessera:alive:{role}"


def keep_alive(redis: Redis, role: str) -> threading.Event:
    """Renew the role's key from a thread until the returned event is set."""
    stopped = threading.Event()

    def renew() -> None:
        while True:
            with suppress(RedisError):  # away for now; the key expires and /readyz says so
                redis.set(alive_key(role), "1", ex=TTL_S)
            if stopped.wait(_EVERY_S):
                return

    threading.Thread(target=renew, name=f"alive-{role}", daemon=True).start()
    return stopped
