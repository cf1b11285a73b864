"""What routes find in `request.state` of the indexes, with its type."""

from __future__ import annotations

from fastapi import Request

from shards.embed_models import EmbedModels
from shards.index import TenantIndexes


def indexes_of(request: Request) -> TenantIndexes:
    """Return the indexes of all tenants."""
    indexes: TenantIndexes = request.state.indexes
    return indexes


def models_of(request: Request) -> EmbedModels:
    """Return the embedding models of the installation."""
    models: EmbedModels = request.state.models
    return models
