"""Addresses of model servers, as they stand in settings."""

from __future__ import annotations

import importlib
import re
from urllib.parse import urlsplit

from tenants.urls import without_secrets

_AUTHORITY = re.compile(r"[^/]*//([^/?#]*)")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")


def address_fault(url: str) -> str | None:
    """Return what is wrong with the address of a model server, the end of a sentence that names the setting; None for a
    good one. A password or a query in it is not repeated."""
    good, authority = can_be_asked(url), _AUTHORITY.match(url)
    # A password that nobody encoded may hold any character: "@" is good in the path of a good address alone.
    if "@" in (authority[1] if good and authority else url):
        return (
            "has an address with a user or a password in it, which would be seen in logs and metrics: take them out,"
            " the key of a server has its own setting."
        )
    if good:
        return None
    said = without_secrets(url)
    if said != url and can_be_asked(said):
        return f"has {said!r} with a query or a fragment behind it: take that out, a key has its own setting."
    return f"has {said!r}, which is no address of a server: write it as http://host:8000/v1."


def can_be_asked(url: str) -> bool:
    """Whether a URL is the address of a web server, without query and fragment, that the client takes."""
    httpx = importlib.import_module("httpx")  # a fifth of what settings take to be read, for who gives an address
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for what is no number, or above 65535
        httpx.URL(url).host.encode("idna")
    except (ValueError, httpx.InvalidURL):
        return False
    whole = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return whole and not (parts.query or parts.fragment or _BLANK.search(url))
