"""What every process does before it serves: look at each server, wait a while for those that do not answer, refuse.

Nothing half-starts. What is wrong for good ends the process at once; a server that cannot be reached ends it after some
patience. Either way with one sentence, and an exit status that says which of the two it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from tenants.errors import Misconfigured, TesseraError, Unavailable

log = logging.getLogger(__name__)
_PAUSE_S = 0.5
_LOOK_S = 10.0
"""A look may take as long though patience be over: who has little waits for one answer at least."""


@dataclass(frozen=True)
class Check:
    """A look at one server: returns what it found, raises `Misconfigured` or `Unavailable`."""

    subject: str
    look: Callable[[], Awaitable[object]]
    needed: bool = True
    """Whether the service refuses to start without its answer. What it says of wrong settings counts anyway."""


async def all_good(checks: Iterable[Check], patience_s: float, *, look_s: float = _LOOK_S) -> None:
    """Return when every server has answered and will do.

    Args:
        checks: of the servers.
        patience_s: how long to wait for those that do not answer.
        look_s: how long one look may take at least.

    Raises:
        Misconfigured: one will never do; the first that is found.
        Unavailable: one that is needed has not answered in time.
    """
    deadline = asyncio.get_running_loop().time() + patience_s
    looking = [asyncio.ensure_future(_good(check, deadline, look_s)) for check in checks]
    try:
        await asyncio.gather(*looking)
    finally:
        for one in looking:
            one.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


async def _good(check: Check, deadline: float, look_s: float) -> None:
    clock, told = asyncio.get_running_loop().time, False
    while True:
        try:
            await _bounded(check, max(look_s, deadline - clock()))
        except Unavailable as error:
            if not check.needed:
                log.warning("starting without %s: %s", check.subject, error.detail)
                return
            if clock() >= deadline:
                raise
            if not told:
                log.warning("waiting for %s: %s", check.subject, error.detail)
                told = True
            await asyncio.sleep(_PAUSE_S)
        else:
            return


async def _bounded(check: Check, seconds: float) -> None:
    """Look. A server may take a connection and say nothing: a pooler does so while all of its own are taken."""
    try:
        async with asyncio.timeout(seconds):
            await check.look()
    except TimeoutError:
        raise Unavailable(f"{check.subject} does not answer.") from None


def exit_status(error: TesseraError) -> int:
    """Return what a program ends with: `EX_CONFIG` for wrong settings, `EX_TEMPFAIL` for a server that is away."""
    return os.EX_CONFIG if isinstance(error, Misconfigured) else os.EX_TEMPFAIL


def refuse(program: str, error: TesseraError) -> NoReturn:
    """End a program that cannot start, with a sentence on standard error."""
    print(f"The {program} cannot start: {error.detail}", file=sys.stderr, flush=True)  # noqa: T201  its last words
    raise SystemExit(exit_status(error))
