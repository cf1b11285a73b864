"""Versions are asked for by numbers that anybody may write into a path."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ingestion import repository
from shards.models import Document
from tenants.errors import NotFound

if TYPE_CHECKING:
    from tenants.db import Database


@pytest.mark.parametrize("number", [-1, 0, 1, 2**31 - 1, 2**31, 99_999_999_999, 2**64])
async def test_a_number_of_no_version_is_not_found(app_database: Database, number: int) -> None:
    document = Document(tenant_id=uuid4(), id=uuid4())
    async with app_database.tenant(document.tenant_id) as session:
        with pytest.raises(NotFound):
            await repository.get_version(session, document, number)
