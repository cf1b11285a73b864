"""Which tests `make test-servers` runs: those of the stack, and those that reach for a server, by whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.servers import server

STACKS = {"stack", "fragile_stack"}
OF_THE_STACK = "tests.server_stack"
"""Asks for servers on behalf of every test of a stack."""
LOCAL_ALONE = {
    "tests/faults/": "kills, holds still and cuts off the servers that a stack has started itself",
    "tests/service/local/": "is about what starts and keeps the servers of the local stack",
    "tests/e2e/": "starts and ends whole stacks of its own; `make up SERVERS=1` is its counterpart",
    "tests/ingestion/test_removal.py::test_a_tenant_whose_lexical_index_is_damaged": "damages a file of tantivy",
    "tests/ingestion/test_fsck_stores.py::test_an_index_that_cannot_be_read_is_made_again[damaged": "the same",
    "tests/ingestion/test_fsck_stores.py::test_originals": "changes originals in their folder, behind the store's back",
}
"""Tests of a stack that stay on the local one, by where they are, with the reason."""


def mark_of(item: pytest.Item) -> str:
    """Return `stack` for a test that runs on a whole stack, `servers` for one that asks for a server, else ""."""
    local = any(item.nodeid.startswith(place) for place in LOCAL_ALONE)
    if not local and STACKS & set(getattr(item, "fixturenames", [])):
        return "stack"
    return "servers" if reaches_server(item) else ""


def reaches_server(item: pytest.Item) -> bool:
    """Say whether a test, a fixture that it may use or a function that they call asks for a server."""
    known = item.session._fixturemanager
    called = getattr(getattr(item, "callspec", None), "params", {}).values()
    waiting: list[Any] = [getattr(item, "function", None), *getattr(item, "fixturenames", []), *called]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if value is server:
            return True
        if isinstance(value, str):
            waiting += [one.func for one in known.getfixturedefs(value, item) or ()]
        elif getattr(value, "__module__", "") == OF_THE_STACK:
            continue
        elif id(value) not in seen and str(getattr(value, "__module__", "")).startswith("tests."):
            seen.add(id(value))
            waiting += vars(value).values() if isinstance(value, type) else named_in(value)
    return False


def named_in(function: Any) -> Iterator[Any]:
    """Yield what a function names: what its module knows by that name, and words, which may be names of fixtures."""
    if not isinstance(function, FunctionType):
        return
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)
        yield from (word for word in code.co_consts if isinstance(word, str))
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
