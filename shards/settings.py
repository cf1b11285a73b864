"""Settings of the index: vector store, lexical store, embedder, cells."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from tenants.context import MAX_RECALL, MIN_RECALL

MOST_CELLS = 980
"""Cells of a tenant: of the 1,024 partitions of a Milvus collection, some are kept for cells that are being divided."""


class MilvusEndpoint(BaseModel):
    """Another Milvus server, for tenants that are isolated on it."""

    uri: str
    token: SecretStr = SecretStr("")
    partition_budget: int = Field(default=8192, ge=1)


class MilvusSettings(BaseModel):
    """The vector store."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    uri: str = ""
    """`http://host:port` of a Milvus or Milvus Lite server."""
    token: SecretStr = SecretStr("")
    """Token or `user:password` of the Milvus server."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for an answer of Milvus."""
    partition_budget: int = Field(default=8192, ge=1)
    """Partitions that the server may hold in all. A tenant for which there is no room is refused (507). Milvus allows
    65,536; Milvus Lite takes about 0.1 MB of memory for each."""
    endpoints: dict[str, MilvusEndpoint] = Field(default_factory=dict)
    """Further servers for isolated tenants, by name: `{"eu": {"uri": "http://...", "token": "..."}}`."""
    consistency: Literal["Strong", "Bounded", "Session", "Eventually"] = "Bounded"
    """What a search on a Milvus cluster must have seen. Bounded may miss the last seconds' writes; Strong waits for
    them, about 0.2 s a search. Milvus Lite always sees everything."""


class LexicalSettings(BaseModel):
    """The BM25 index."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: Path = Path(".tessera/lexical")
    """Folder of the tantivy indexes, one folder a tenant."""
    heading_boost: float = Field(default=0.4, ge=0)
    """What a term in the heading adds, beside counting as text."""
    max_terms: int = Field(default=64, ge=1)
    """Terms of a query that are searched; of more, the rarest."""
    open_readers: int = Field(default=64, ge=1)
    """Indexes kept open in a process. Opening one takes 0.2 ms; each open one has a thread."""
    lock_wait_s: float = Field(default=10.0, gt=0)
    """How long a writer waits for another process to finish with the same index."""


class EmbedModel(BaseModel):
    """A further embedding model, for tenants that are moved to it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai", "sentence-transformers"]
    dim: int = Field(ge=2, le=32_768)
    url: str = ""
    """`openai`: what stands before `/embeddings`, for example `http://host:8000/v1`."""
    model: str = ""
    """The name that the server knows, or the model's name or folder; the declared name without it."""
    key: SecretStr = SecretStr("")
    max_tokens: int = Field(default=512, ge=64)
    """What the model reads at most, counted with the tokens of the bundled model."""
    timeout_s: float = Field(default=30.0, gt=0)
    passage_prefix: str = ""
    query_prefix: str = ""

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.kind == "openai" and not self.url:
            raise ValueError("an `openai` model needs its `url`")
        return self


class EmbedSettings(BaseModel):
    """The embedding models."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str = "all-MiniLM-L6-v2"
    """The model of tenants that have no document yet; a tenant stays with its model until it is moved to another. A
    name of TESSERA_EMBED_MODELS, or one of the two that are bundled: `all-MiniLM-L6-v2`, `all-MiniLM-L6-v2-float32`."""
    models: dict[str, EmbedModel] = Field(default_factory=dict, max_length=16)
    """Further models by name, JSON: `{"e5": {"kind": "openai", "url": "http://host:8000/v1", "dim": 1024}}`, or of kind
    `sentence-transformers` (needs `tessera[torch]`). A process loads a model when it first needs it."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of one embedder; 0 takes every core."""
    cache_dir: Path = Path(".tessera/models")
    """Where the converted model is kept."""
    precision: Literal["auto", "int8", "float32"] = "auto"
    """How passages are computed; `auto` takes int8 where the processor has instructions for it. Vectors of both
    may stand in one index. Questions are always computed in float32."""


class ShardSettings(BaseModel):
    """Cells of a tenant's index."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    threshold: int = Field(default=4000, ge=1)
    """Chunks from which k-means cells pay; below it one partition holds everything."""
    rows_per_cell: int = Field(default=250, ge=50)
    """Mean size of a cell, in chunks. Smaller cells are told apart better; each is a partition of the engine. 250 suits
    Milvus Lite; a Milvus server searches 1,000 with 64 micro-cells each as fast, and loads them five times sooner."""
    max_cells: int = Field(default=960, ge=1, le=MOST_CELLS)
    """Most cells of one tenant; larger tenants have larger ones. A Milvus collection takes 1,024 partitions, and cells
    that are being divided need some beside those that are read."""
    pooled_rows: int = Field(default=4000, ge=1)
    """Chunks from which a tenant has a collection of its own; a smaller one shares one with others."""
    demote_at: float = Field(default=0.25, gt=0, lt=1)
    """A tenant goes back to the pool when it has shrunk below this share of `pooled_rows`."""
    pool_buckets: int = Field(default=256, ge=1, le=16384)
    """Buckets of the pool; a tenant lies in one of them, which is searched as a whole. Another number holds for tenants
    that come later."""
    micros_per_cell: int = Field(default=16, ge=1, le=64)
    """Micro-cells in a cell: what queries are routed by. More tell rows apart better and cost memory."""
    max_micros_per_cell: int = Field(default=32, ge=1, le=64)
    """Most micro-cells in a cell, where `max_cells` makes cells larger than `rows_per_cell`. With 384 dimensions
    30,000 micro-cells take 90 MB in each process that searches."""
    recall_target: float = Field(default=0.98, ge=MIN_RECALL, le=MAX_RECALL)
    """Mean recall@10 that a search of the cells keeps, for tenants that do not choose their own."""
    calibration_sentences: int = Field(default=300, ge=50)
    """Sentences of its own chunks that a tenant's threshold is calibrated on."""
    shadow_share: float = Field(default=0.02, ge=0, le=1)
    """Share of the questions that are asked again of every cell, in the background, to measure recall."""
    shadow_load: float = Field(default=0.05, gt=0, le=1)
    """Most of an engine's time that these take."""
    release_after_s: float = Field(default=86_400.0, ge=0)
    """Seconds without a question or an upload after which a tenant's own collection is released from the engine's
    memory; it wakes with its next question. 0 keeps all loaded."""
    usage_every_s: float = Field(default=10.0, gt=0)
    """How often counted visits are written down."""
    retrain_growth: float = Field(default=2.0, gt=1)
    """A new generation is trained when the tenant has grown this many times since the last."""
