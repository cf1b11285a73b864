"""Settings of the read line."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class SearchSettings(BaseModel):
    """Retrieval, fusion, reranking."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    bm25_weight: float = Field(default=0.4, ge=0, le=1)
    """Share of BM25 in the fusion for tenants that do not choose their own."""
    candidates: int = Field(default=100, ge=10, le=1000)
    """Hits asked of each engine."""
    concurrent_per_tenant: int = Field(default=8, ge=1)
    """Searches of one tenant that run at once in a process; others of it wait, so that they cannot take all of it."""
    queue_per_tenant: int = Field(default=32, ge=0)
    """Searches of one tenant that may wait; of more, the answer is 429."""
    patience_s: float = Field(default=10.0, gt=0)
    """Longest that a search waits for its turn."""
    rerank_depth: int = Field(default=30, ge=0, le=200)
    """Best fused hits that are reranked."""
    rerank_weight: float = Field(default=1.0, ge=0)
    """Weight of the reranker's scaled score beside the fused score."""
    reranker: str = "late_interaction"
    """`late_interaction`, `none`, or `cross_encoder:<model name or folder>`."""


class GenerationSettings(BaseModel):
    """The answerer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    base_url: str = ""
    """An OpenAI-compatible server (vLLM); empty means the built-in extractive answerer."""
    api_key: SecretStr = SecretStr("")
    """Key of that server."""
    model: str = ""
    """Name of the model there."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens of the model."""
    passages: int = Field(default=6, ge=1, le=20)
    """Passages that an answer may use."""
    connect_timeout_s: float = Field(default=2.0, gt=0)
    """Seconds to wait for a connection to the generator."""
    first_token_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for its first token; then the built-in answerer answers."""
    idle_timeout_s: float = Field(default=15.0, gt=0)
    """Seconds to wait between two tokens."""
    total_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds after which an answer that is still being written is given up."""
