"""Settings of the index: vector store, lexical store, embedder, cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from shards.addresses import address_fault
from tenants.context import MAX_RECALL, MIN_RECALL
from tenants.given_keys import HeaderKey
from tenants.urls import without_secrets

_SERVER = re.compile(r"https?://[^\s/@]*[^\s/@:]/?")
MAX_DATABASES = 63
"""A Milvus server takes 64 databases, one of them its own."""
MOST_CELLS = 980
"""Cells of a tenant: of the 1,024 partitions of a Milvus collection, some are kept for cells that are being divided."""


def is_server(url: str) -> bool:
    """Say whether a URL names a server: http or https, host, perhaps a port that there can be, and nothing else."""
    return _SERVER.fullmatch(url) is not None and address_fault(url) is None


class MilvusServer(BaseModel):
    """How a Milvus server is reached."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    uri: str = ""
    """`http://host:port` of a Milvus or Milvus Lite server, `https://...` with TLS."""
    token: SecretStr = SecretStr("")
    """Token or `user:password` of the Milvus server."""
    ca: Path | None = None
    """PEM file of the authority that signed the server's certificate; those that the machine trusts without it."""
    client_cert: Path | None = None
    """PEM file of our own certificate, where the server asks for one; needs the key and the authority too."""
    client_key: Path | None = None
    """PEM file of its key."""
    server_name: str = ""
    """Name in the server's certificate, where it is not the one in the URI."""
    partition_budget: int = Field(default=8192, ge=1)
    """Partitions that the server may hold in all. A tenant for which there is no room is refused (507). Milvus allows
    65,536; Milvus Lite takes about 0.1 MB of memory for each."""
    databases: int = Field(default=MAX_DATABASES, ge=0, le=MAX_DATABASES)
    """Databases that may be made on it for isolated tenants. 0 where it has none to give, or its user may make none:
    then an endpoint takes one isolated tenant, and the main server none."""


class MilvusSettings(MilvusServer):
    """The vector store."""

    model_config = ConfigDict(extra="ignore")

    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for an answer of Milvus."""
    endpoints: dict[str, MilvusServer] = Field(default_factory=dict)
    """Further servers for isolated tenants, by name: `{"eu": {"uri": "https://...", "token": "..."}}`, with the same
    settings as the main one."""

    @model_validator(mode="after")
    def _no_server_twice(self) -> Self:
        known = [self.uri, *(server.uri for server in self.endpoints.values())]
        twice = {uri for uri in known if uri and known.count(uri) > 1}
        if twice:
            said = ", ".join(sorted(map(without_secrets, twice)))
            raise ValueError(f"{said} stands for two servers: what lies there would be counted twice")
        return self


class LexicalSettings(BaseModel):
    """The BM25 index."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: Path = Path(".tessera/lexical")
    """Folder of the tantivy indexes, one folder a tenant."""
    heading_boost: float = Field(default=0.4, ge=0)
    """What a term in the heading adds, beside counting as text."""
    max_terms: int = Field(default=64, ge=1, le=64)
    """Terms of a query that are searched, 64 at most; of more, the rarest."""
    open_readers: int = Field(default=64, ge=1)
    """Indexes kept open in a process. Opening one takes 0.2 ms; each open one has a thread."""
    lock_wait_s: float = Field(default=10.0, gt=0)
    """How long a writer waits for another process to finish with the same index."""
    url: str = ""
    """`https://host:port` of an OpenSearch server, 2.19 or newer, which then holds the indexes. Empty: the folder."""
    user: str = ""
    """Its user; empty for a server without a login."""
    password: SecretStr = SecretStr("")
    """The user's password."""
    ca: Path | None = None
    """File of the certificate authority (PEM) that the server's certificate is checked with; else the well-known
    ones."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for an answer of OpenSearch."""
    prefix: str = Field(default="tessera-", pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    """What the names of all its indexes and aliases begin with. Two installations on one server need two."""
    shared_indexes: int = Field(default=2, ge=1, le=64)
    """Indexes that pooled tenants share. Another number holds for tenants that come later."""
    shared_shards: int = Field(default=2, ge=1, le=64)
    """Shards of each; a tenant lies in one of them. Another number holds for indexes that are made later."""
    shards: int = Field(default=1, ge=1, le=64)
    """Shards of a tenant's own index. Another number holds for indexes that are made later."""
    replicas: int = Field(default=1, ge=0, le=8)
    """Copies of each shard, as far as there are nodes for them."""

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("user and password belong into TESSERA_LEXICAL_USER and TESSERA_LEXICAL_PASSWORD")
        if url and not is_server(url):
            raise ValueError("it is not of the form http://host:port or https://host:port")
        return url


class EmbedModel(BaseModel):
    """A further embedding model, for tenants that are moved to it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["openai", "sentence-transformers"]
    """`openai`: on a server. `sentence-transformers`: in those workers that have `tessera[torch]`."""
    dim: int = Field(ge=2, le=32_768)
    url: str | list[str] = ""
    """What stands before `/embeddings`, for example `http://host:8000/v1`; of several the next is asked when one is
    away. With `sentence-transformers`: where the same model embeds questions, for processes without torch."""
    model: str = ""
    """The name that the server knows, or the model's name or folder; the declared name without it."""
    served_as: str = ""
    """`sentence-transformers`: the name that the server of `url` knows, where it is another."""
    key: HeaderKey = SecretStr("")
    max_tokens: int = Field(default=512, ge=64)
    """What the model reads at most, counted with the tokens of the bundled model."""
    passage_prefix: str = ""
    query_prefix: str = ""
    batch_texts: int = Field(default=64, ge=1)
    """Passages of one request, or of one pass through the model."""
    batch_tokens: int = Field(default=16_384, ge=64)
    """Their tokens, about, each counted as long as the longest."""
    at_once: int = Field(default=4, ge=1)
    """Requests of one process that are under way at one time."""
    connect_timeout_s: float = Field(default=3.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one request for passages may take."""
    budget_s: float = Field(default=20.0, gt=0)
    """Seconds in which they are tried again, before the job is put back; a try that has begun has its time."""
    question_timeout_s: float = Field(default=3.0, gt=0)
    """Seconds that a question is tried for; then words alone find."""
    encoding: Literal["base64", "float"] = "base64"
    """The form of vectors that the server is asked for."""
    shortened: bool = False
    """Whether the server is asked for vectors of `dim` dimensions; otherwise it gives what it has."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`sentence-transformers`: where it computes; `auto` is the first GPU, or the processor without one."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`sentence-transformers`: `auto` is half precision on a GPU."""
    queue: str = Field(default="gpu", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """`sentence-transformers`: the queue of the workers that compute it."""

    @property
    def addresses(self) -> list[str]:
        """Return where it is served."""
        return [self.url] if isinstance(self.url, str) and self.url else list(self.url)

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.kind == "openai" and not self.addresses:
            raise ValueError("an `openai` model needs its `url`")
        for fault in filter(None, map(address_fault, self.addresses)):
            raise ValueError(f"its `url` {fault.rstrip('.')}")
        return self


class EmbedSettings(BaseModel):
    """The embedding models."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str = "all-MiniLM-L6-v2"
    """The model of tenants that have no document yet; a tenant stays with its model until it is moved to another. A
    name of TESSERA_EMBED_MODELS, or one of the two that are bundled: `all-MiniLM-L6-v2`, `all-MiniLM-L6-v2-float32`."""
    models: dict[str, EmbedModel] = Field(default_factory=dict, max_length=16)
    """Further models by name, JSON: `{"e5": {"kind": "openai", "url": "http://host:8000/v1", "dim": 1024}}`, or of kind
    `sentence-transformers`, which GPU workers compute (`tessera[torch]`). See docs/models.md."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of one embedder; 0 takes every core."""
    cache_dir: Path = Path(".tessera/models")
    """Where the converted model is kept."""
    precision: Literal["auto", "int8", "float32"] = "auto"
    """How passages are computed; `auto` takes int8 where the processor has instructions for it. Vectors of both
    may stand in one index. Questions are always computed in float32."""

    def queue_of(self, name: str) -> str:
        """Return the queue of the workers that can compute a model; "" when every worker can."""
        found = self.models.get(name)
        return found.queue if found is not None and found.kind == "sentence-transformers" else ""

    @property
    def queues(self) -> list[str]:
        """Return the queues of all models, beside that of every worker."""
        return sorted({self.queue_of(name) for name in self.models} - {""})


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
