"""A server of models, or several that serve the same one: asked over HTTP, within a budget of time.

Who does not answer, or asks for patience, is passed over for the next; when all were asked there is a pause, as long as
they want (`Retry-After`) or twice the last, until the budget is spent. One that makes its callers wait in vain is left
alone for a moment (`breaker.py`). So a question waits for an absent server once or twice, not each time. Where somebody
waits, each that is still to be asked has an equal share of the time that is left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from shards.authorities import authorities
from shards.breaker import Breaker
from tenants.errors import Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
_FIRST_PAUSE_S = 0.2
_LEAST_S = 0.05
_SAID = 300
_RESTS = "It is left alone for a moment."
_OF_CONTENT = (400, 413, 422)
_PASSING = (408, 424, 425, 429)
"""Statuses below 500 that say nothing of what was asked; 424 is TEI's for a model that could not compute it."""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection, for an answer, and in all. Where somebody waits, `swift`, the time until it is
    one's turn counts too."""

    connect_s: float
    answer_s: float
    total_s: float
    swift: bool = False


class Away(Unavailable):
    """No server did what it was asked. `detail` may be shown to a tenant; `why` names addresses and says what they
    answered, and is for the operator. `lasts` when a setting has to be mended before it is otherwise."""

    def __init__(self, detail: str, why: str, *, code: str, lasts: bool = False) -> None:
        super().__init__(detail, code=code)
        self.why, self.lasts = why, lasts


class Refusal(Away):
    """A server refuses what it is asked, and would again: 400, 413 or 422 (the content), 401 or 403 (the key), 404 (the
    model)."""

    def __init__(self, detail: str, why: str, status: int, *, code: str) -> None:
        super().__init__(detail, why, code=code)
        self.answered = status

    @property
    def of_content(self) -> bool:
        """Whether another or a smaller content may be taken."""
        return self.answered in _OF_CONTENT


@dataclass(frozen=True)
class _Trouble:
    """Why one server did not do it, and when it wants to be asked again."""

    why: str
    pause_s: float = 0.0
    lasts: bool = False


class ModelServer:
    """Asks for JSON with JSON. Every failure is `Away` with the code that was given, or a `Refusal`."""

    def __init__(
        self, what: str, addresses: Sequence[str], key: SecretStr, patience: Patience, *, code: str, at_once: int
    ) -> None:
        self._what, self._code, self._patience = what, code, patience
        share_s = patience.total_s / len(addresses) if patience.swift else patience.answer_s
        try_s = min(patience.connect_s, share_s)
        self._breakers = {address.rstrip("/"): Breaker(patience.answer_s, try_s=try_s) for address in addresses}
        self._order = list(self._breakers)
        self._turn = asyncio.Semaphore(at_once)
        secret = key.get_secret_value()
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._client = httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, verify=authorities())

    async def ask(self, path: str, body: dict[str, Any], *, until: float | None = None) -> Any:
        """Return the answer to a POST.

        Args:
            path: what stands after the address.
            body: is sent as JSON.
            until: when the budget ends, on the monotonic clock; without it, after the whole of it.

        Raises:
            Refusal: a server refuses it.
            Away: none did it within the budget, or the answer is no JSON.
        """
        deadline = until if until is not None else time.monotonic() + self._patience.total_s
        try:
            async with asyncio.timeout(deadline - time.monotonic() if self._patience.swift else None):
                await self._turn.acquire()
        except TimeoutError as error:
            raise self.away(f"not within {self._patience.total_s:g} s") from error
        try:
            if not self._patience.swift:
                deadline = time.monotonic() + self._patience.total_s
            return await self._asked(path, body, deadline)
        finally:
            self._turn.release()

    async def _asked(self, path: str, body: dict[str, Any], deadline: float) -> Any:
        pause = _FIRST_PAUSE_S
        while True:
            trouble = _Trouble(_RESTS)
            admitted = [address for address in self._order if self._breakers[address].admits()]
            for at, address in enumerate(admitted):
                found = await self._try(address, path, body, self._may_take_s(deadline, len(admitted) - at))
                if not isinstance(found, _Trouble):
                    self._prefer(address)
                    return found
                trouble = found
            wait = max(pause, trouble.pause_s)
            if not admitted or time.monotonic() + wait >= deadline:
                raise self.away(trouble.why, lasts=trouble.lasts)
            await asyncio.sleep(wait)
            pause *= 2

    def away(self, why: str, *, lasts: bool = False) -> Away:
        """Return the error of a server that does not do what it should, and log why."""
        if why != _RESTS:
            log.warning("%s does not answer: %s", self._what, why[: 2 * _SAID])
        return Away(f"{self._what} does not answer.", why[: 2 * _SAID], code=self._code, lasts=lasts)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _prefer(self, address: str) -> None:
        """Ask the one that answered first from now on."""
        if self._order[0] != address:
            self._order = [address, *(other for other in self._order if other != address)]

    def _may_take_s(self, deadline: float, to_ask: int) -> float:
        """Return the seconds that one of so many servers has for its answer. Where nobody waits, the budget says how
        long it is tried again: what has begun may take its time."""
        if not self._patience.swift:
            return self._patience.answer_s
        return max(_LEAST_S, min(self._patience.answer_s, (deadline - time.monotonic()) / to_ask))

    async def _try(self, address: str, path: str, body: dict[str, Any], may_take_s: float) -> Any:
        began = time.monotonic()
        timeout = httpx.Timeout(may_take_s, connect=min(may_take_s, self._patience.connect_s))
        try:
            async with asyncio.timeout(may_take_s):
                answer = await self._client.post(address + path, json=body, timeout=timeout)
        except (httpx.HTTPError, TimeoutError) as error:
            self._breakers[address].failed(time.monotonic() - began)
            untrusted = untrusted_certificate(error)
            said = f"{address} ({type(error).__name__}{str(error) and f': {error}'})"
            return _Trouble(f"{said}{untrusted and f': {untrusted}'}", lasts=bool(untrusted))
        self._breakers[address].answered()
        status = answer.status_code
        said = f"{address} answers {status}: {_said(answer)}"
        if status in _PASSING or status >= 500:
            return _Trouble(said, asked_pause_s(answer.headers) or 0.0)
        if status >= 400:
            refusal = Refusal(f"{self._what} is refused by its server ({status}).", said, status, code=self._code)
            log.log(logging.INFO if refusal.of_content else logging.WARNING, "%s is refused: %s", self._what, said)
            raise refusal
        with suppress(ValueError):
            if status < 300:
                return answer.json()
        return _Trouble(_no_server(address, path, status), lasts=True)


async def by_itself(addresses: Sequence[str], look: Callable[[str], Awaitable[T]]) -> list[T]:
    """Look at each of several servers of one model; return what was found at those that are there.

    Raises:
        Unavailable: none is. While another one is, it is only logged.
        TesseraError: as `look` does, for one server that is another than it should be.
    """
    found = await asyncio.gather(*map(look, addresses), return_exceptions=True)
    seen: list[T] = []
    away: list[Unavailable] = []
    for one in found:
        if isinstance(one, Unavailable):
            away.append(one)
        elif isinstance(one, BaseException):
            raise one
        else:
            seen.append(one)
    if away and not seen:
        raise away[0]
    return seen


async def in_halves(ask: Callable[[Sequence[T]], Awaitable[list[Any]]], batch: Sequence[T]) -> list[Any]:
    """Ask for what a batch gives, one thing each; for one that is refused for its content, such as its size, in halves.

    Raises:
        Refusal: one alone is refused, or the batch for another reason.
    """
    try:
        return await ask(batch)
    except Refusal as error:
        if not error.of_content or len(batch) < 2:
            raise
    half = len(batch) // 2
    return [*await in_halves(ask, batch[:half]), *await in_halves(ask, batch[half:])]


def untrusted_certificate(error: Exception) -> str:
    """Return how a certificate comes to be trusted, the end of a sentence, where an error is about that; else ""."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return "name the PEM file of the authority that signed its certificate in SSL_CERT_FILE, or correct the certificate"


def _no_server(address: str, path: str, status: int) -> str:
    what = f"answers {status}" if status >= 300 else "answers no JSON"
    return f"{address} is no server of {path} ({what}): write what stands before {path}, as in http://host:8000/v1"


def _said(answer: httpx.Response) -> str:
    return " ".join(answer.text[:_SAID].split())


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks for in `Retry-After`, None without; its form with a date is not read."""
    given = headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdigit() else None
