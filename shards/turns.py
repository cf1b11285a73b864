"""Sharing a pool of threads item by item between the calls that use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_NO_ITEM: Any = object()


def in_turns(pool: Executor, work: Callable[[T], object], items: Iterable[T], *, threads: int) -> None:
    """Call `work` with every item in a pool of `threads` threads that others use too; return when all are done.

    After each item the next goes to the end of the pool's queue. So the calls under way take turns item by item, and
    one with a single item need not wait for one with hundreds. Raises what the first failing item raised.
    """
    left, taking, stopped = iter(items), threading.Lock(), threading.Event()
    links: SimpleQueue[Future[bool]] = SimpleQueue()

    def link() -> bool:
        with taking:
            item = _NO_ITEM if stopped.is_set() else next(left, _NO_ITEM)
        if item is _NO_ITEM:
            return False
        done = False
        try:
            work(item)
            done = True
        finally:
            if not done:  # the caller may learn of it much later
                stopped.set()
        links.put(pool.submit(link))
        return True

    # One more than there are threads, so that one is waiting when a thread becomes free.
    chains = threads + 1
    try:
        for _ in range(chains):
            links.put(pool.submit(link))
        while chains:
            chains -= not links.get().result()
    finally:
        stopped.set()
