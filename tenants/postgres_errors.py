"""What a refused or failed connection to Postgres means: one sentence with setting, cause and mend.

The driver gives no SQLSTATE for a connection that was not made, only the server's words; they are looked for in
English. In another language the server is taken for one that may answer later, and its words are passed on as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from tenants.engine import place
from tenants.errors import Misconfigured, TesseraError, Unavailable


@dataclass(frozen=True)
class _Refusal:
    words: str
    cause: str
    mend: str


_REFUSALS = (
    _Refusal(
        "password authentication failed|SASL authentication failed|no password supplied|no such user|role .* does not"
        " exist|not permitted to log in|no pg_hba.conf entry|auth failed|authentication failed",
        "refuses the login of role {role}",
        "Correct the role and password in {setting}; `tessera db init` sets them at the server.",
    ),
    _Refusal(
        "database .* does not exist|no such database",
        "has no such database",
        "Correct {setting}, or make the database with `tessera db init`.",
    ),
    _Refusal(
        "permission denied for database",
        "does not let role {role} into the database",
        "`tessera db init` gives the roles what they need.",
    ),
    _Refusal(
        "certificate|does not support SSL|sslmode|SSL error|private key",
        "cannot be trusted or does not speak TLS",
        "Correct sslmode and sslrootcert in {setting}, or the server's certificate.",
    ),
    _Refusal(
        r'invalid connection option|invalid URI|invalid "?\w+"? value|invalid port number|missing "="',
        "has an address that cannot be used",
        "Correct {setting}.",
    ),
    _Refusal(
        "invalid response to SSL negotiation|expected authentication request|invalid message|protocol",
        "does not speak the protocol of Postgres",
        "Correct host and port in {setting}.",
    ),
    _Refusal("unsupported startup parameter", "refuses a start-up parameter", "Take `options` out of {setting}."),
)


def explained(error: DBAPIError, setting: str, url: URL) -> TesseraError:
    """Return what to raise for an error of a first connection.

    Returns:
        Misconfigured when trying again cannot help, else Unavailable.
    """
    words = cause_of(error)
    server = f"{setting}: the Postgres at {place(url)}"
    for refusal in _REFUSALS:
        if re.search(refusal.words, words):
            cause, mend = (part.format(role=url.username, setting=setting) for part in (refusal.cause, refusal.mend))
            return Misconfigured(f"{server} {cause} ({words}). {mend}")
    if getattr(error.orig, "sqlstate", None) == "42501":
        return Misconfigured(f"{server} denies role {url.username} ({words}). `tessera db upgrade` grants it.")
    return Unavailable(
        f"{server} does not answer ({words}). Start it, or correct {setting}.", code="database_unavailable"
    )


def cause_of(error: DBAPIError) -> str:
    """Return the server's or the driver's own words, without the address that it was reached by."""
    words = " ".join(str(error.orig).split())
    return words.rpartition("failed: ")[2].removeprefix("FATAL: ").strip().rstrip(".")
