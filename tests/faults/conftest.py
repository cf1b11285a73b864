"""A stack of its own for the tests that would break the session's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.local.state import StackState
from tests.faults.own_stack import own_stack


@pytest.fixture
def fragile_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """A whole stack that may be killed piece by piece."""
    with own_stack(tmp_path_factory.mktemp("fragile") / "data") as stack:
        yield stack
