"""Who is calling: the first argument of everything that touches a tenant's data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_RECALL, MAX_RECALL = 0.5, 0.999
"""The range of recall targets."""


class Retention(BaseModel):
    """What is kept of a tenant's documents, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_versions: int = Field(default=1, ge=1, le=1000)
    """So many versions of a document can be downloaded, the newest ones. What was replaced is never searched."""
    max_age_days: int | None = Field(default=None, ge=1, le=36_500)
    """A document that was not updated for so many days is deleted."""


class TenantSettings(BaseModel):
    """What a tenant may choose for itself; `None` means the installation's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recall_target: float | None = Field(default=None, ge=MIN_RECALL, le=MAX_RECALL)
    """Mean recall@10 that a search of the tenant's cells keeps; the service's own without one."""
    bm25_weight: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of BM25 in the fusion, 0..1."""
    language: str | None = Field(default=None, pattern="^[a-z]{2}$")
    """Language of the answers' fixed sentences."""
    retention: Retention | None = None
    generation_models: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        default=None, min_length=1, max_length=16
    )
    """Models and adapters that the tenant's chats may be answered by, the first unless they name one; the operator sets
    it."""


class Placement(BaseModel):
    """Where the operator wants a tenant's index: in a tier, or in the one that its size asks for (`auto`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tier: Literal["auto", "pooled", "dedicated", "isolated"] = "auto"
    endpoint: str = Field(default="", max_length=63, pattern="^[a-z0-9-]*$", examples=["", "eu"])
    """With `isolated`: the name of the Milvus server; empty for a database of its own on the one that all use."""

    @model_validator(mode="after")
    def _only_isolated(self) -> Placement:
        if self.endpoint and self.tier != "isolated":
            raise ValueError("an endpoint goes with the tier isolated only")
        return self


@dataclass(frozen=True)
class TenantContext:
    """The authenticated caller: one tenant, one principal. Explicit, never ambient, never defaulted."""

    tenant_id: UUID
    slug: str
    principal: str
    """The id of the API key, or `worker` inside a task."""
    settings: TenantSettings = field(default_factory=TenantSettings)


@dataclass(frozen=True)
class AdminContext:
    """The authenticated operator of the installation. Sees tenants and keys, never their content."""

    principal: str
