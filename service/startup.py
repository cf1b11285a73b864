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
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import NoReturn

from tenants.errors import Misconfigured, TesseraError, Unavailable
from tenants.urls import without_secrets

log = logging.getLogger(__name__)
_PAUSE_S = 0.5
_LOOK_S = 10.0
"""A look may take as long though patience be over: who has little waits for one answer at least."""
_SHOWN = 200
"""Characters of a message that nobody foresaw."""


@dataclass(frozen=True)
class Check:
    """A look at one server: returns what it found, raises `Misconfigured` or `Unavailable`."""

    subject: str
    look: Callable[[], Awaitable[object]]
    needed: bool = True
    """Whether the service refuses to start without its answer. What it says of wrong settings counts anyway."""
    setting: str = "its settings"
    """What names the server, for what the look itself says nothing of."""


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
            await looked(check, max(look_s, deadline - clock()))
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


async def looked(check: Check, seconds: float) -> object:
    """Look for so many seconds at most, and return what was found. A server may take a connection and say nothing: a
    pooler does so while all of its own are taken.

    Raises:
        Misconfigured: the look says so, or fails as nobody foresaw.
        Unavailable: the look says so, or takes longer.
    """
    try:
        with Foreseen(check.subject, check.setting):
            async with asyncio.timeout(seconds):
                return await check.look()
    except TimeoutError:
        raise Unavailable(f"{_capital(check.subject)} does not answer. Start it, or correct {check.setting}.") from None


@dataclass(frozen=True)
class Foreseen(ContextDecorator):
    """Raises `Misconfigured` for an error that nobody foresaw: clients fail in many ways at values they cannot use.
    Its trace is in the log, for who asks for it (debug)."""

    subject: str
    setting: str

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Let pass what is foreseen."""
        if isinstance(error, Exception) and not isinstance(error, (TesseraError, TimeoutError)):
            log.debug("%s cannot be used", self.subject, exc_info=error)
            why = f"{_capital(self.subject)} cannot be used ({_described(error)})"
            raise Misconfigured(f"{why}: correct {self.setting}.") from error


@dataclass(frozen=True)
class Refusing:
    """Ends a program by any error of its start, as `refuse` does."""

    program: str

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End the program, if there is an error."""
        if isinstance(error, Exception):
            refuse(self.program, error)


def _described(error: Exception) -> str:
    """Say an error in a line, without secrets. What cannot be encoded may be a letter of a password."""
    told = error.reason if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)) else str(error)
    words = (without_secrets(word) if "://" in word or "@" in word else word for word in told.split())
    return f"{type(error).__name__}: {' '.join(words)}"[:_SHOWN].rstrip(":. ")


def _capital(subject: str) -> str:
    return f"{subject[0].upper()}{subject[1:]}"


def exit_status(error: Exception) -> int:
    """Return what a program ends with: `EX_CONFIG` for wrong settings, `EX_TEMPFAIL` for a server that is away,
    `EX_SOFTWARE` for what nobody foresaw."""
    if isinstance(error, Misconfigured):
        return os.EX_CONFIG
    return os.EX_TEMPFAIL if isinstance(error, TesseraError) else os.EX_SOFTWARE


def refuse(program: str, error: Exception) -> NoReturn:
    """End a program that cannot start, with a sentence on standard error; an error that nobody foresaw is logged."""
    if isinstance(error, TesseraError):
        why = error.detail
    else:
        log.error("the %s cannot start", program, exc_info=error)
        why = f"{_described(error)}. The trace is in its log."
    print(f"The {program} cannot start: {why}", file=sys.stderr, flush=True)  # noqa: T201  its last words
    raise SystemExit(exit_status(error))
