"""Every table of every package, gathered so that a test can compare the models with the migrations."""

from __future__ import annotations

from ingestion import models as ingestion_models
from ingestion.fsck import models as fsck_models
from ingestion.sources import models as source_models
from rag import models as rag_models
from shards import index_models, usage_models
from shards import models as shard_models
from tenants import models as tenant_models
from tenants.db import Base

PACKAGES = (
    tenant_models,
    shard_models,
    index_models,
    usage_models,
    ingestion_models,
    source_models,
    fsck_models,
    rag_models,
)
METADATA = Base.metadata
