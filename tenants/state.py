"""What every route finds in `request.state`, with its type; the application's lifespan puts it there."""

from __future__ import annotations

from fastapi import Request

from tenants.cursor import CursorSigner
from tenants.db import Database


def database_of(request: Request) -> Database:
    """Return the database of the role `tessera_app`."""
    database: Database = request.state.database
    return database


def models_of(request: Request) -> frozenset[str]:
    """Return the names of the models that the installation declares."""
    names: frozenset[str] = request.state.generation_models
    return names


def cursors_of(request: Request) -> CursorSigner:
    """Return the signer of list cursors."""
    signer: CursorSigner = request.state.cursors
    return signer
