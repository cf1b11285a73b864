"""URLs as they may stand in a message, in a log or on a screen."""

from __future__ import annotations

import re

_QUERY = re.compile(r"[?#&]")


def without_secrets(url: str) -> str:
    """Return a URL, or what somebody took for one, without user, password, query and fragment.

    All up to the last `@` goes: a password that nobody encoded may hold any character.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{_QUERY.split(rest.rpartition('@')[2], maxsplit=1)[0]}"
