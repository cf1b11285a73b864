"""Addresses of model servers, as they stand in settings."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"[^/]*//([^/?#]*)")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")


def address_fault(url: str) -> str | None:
    """Return what is wrong with the address of a model server, the end of a sentence that names the setting; None for a
    good one. A password in it is not repeated."""
    authority = _AUTHORITY.match(url)
    if authority and "@" in authority[1]:
        return (
            "has an address with a user or a password in it, which would be seen in logs and metrics: take them out,"
            " the key of a server has its own setting."
        )
    if not _can_be_asked(url):
        return f"has {url!r}, which is no address of a server: write it as http://host:8000/v1."
    return None


def _can_be_asked(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for what is no number, or above 65535
    except ValueError:
        return False
    whole = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return whole and not (parts.query or parts.fragment or _BLANK.search(url))
