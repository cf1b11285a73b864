from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.cursor import CursorSigner, Position
from tenants.errors import InvalidCursor

SIGNER = CursorSigner("p" * 32)
HERE = Position(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), uuid4())


def test_a_cursor_gives_its_position_back() -> None:
    assert SIGNER.decode("documents:a", SIGNER.encode("documents:a", HERE)) == HERE
    assert SIGNER.decode_number("chunks", SIGNER.encode_number("chunks", 41)) == 41


def test_a_cursor_is_bound_to_its_list_and_installation() -> None:
    cursor = SIGNER.encode("documents:a", HERE)
    with pytest.raises(InvalidCursor):
        SIGNER.decode("documents:b", cursor)
    with pytest.raises(InvalidCursor):
        CursorSigner("q" * 32).decode("documents:a", cursor)


@given(st.text(max_size=80))
def test_no_text_is_mistaken_for_a_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor):
        SIGNER.decode("documents:a", text)
