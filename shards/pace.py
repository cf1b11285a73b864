"""How work on an index leaves room for queries: computed at low priority, written with rests in between."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

_NICE = 10


def _step_back() -> None:
    with suppress(OSError, AttributeError):  # Linux gives a thread, and those it starts, a priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


_CALM = ThreadPoolExecutor(1, thread_name_prefix="upkeep", initializer=_step_back)


async def at_low_priority(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run `work` in a thread that takes the processor time others leave."""
    return await asyncio.get_running_loop().run_in_executor(_CALM, partial(work, *arguments, **named))


@dataclass(frozen=True)
class Pace:
    """How to compute, and how to rest for so many seconds."""

    compute: Callable[..., Awaitable[Any]] = at_low_priority
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep
