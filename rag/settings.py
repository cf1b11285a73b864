"""Settings of the read line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tenants.given_keys import HeaderKey

ModelName = Annotated[str, Field(min_length=1, max_length=200)]
SaltRule = Literal["auto", "required", "off"]


class SearchSettings(BaseModel):
    """Retrieval, fusion, reranking."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    bm25_weight: float = Field(default=0.4, ge=0, le=1)
    """Share of BM25 in the fusion for tenants that do not choose their own."""
    candidates: int = Field(default=100, ge=10, le=1000)
    """Hits asked of each engine."""
    concurrent_per_tenant: int = Field(default=8, ge=1)
    """Searches of one tenant that run at once, over all API processes; others of it wait, so that they cannot take all
    of the service."""
    queue_per_tenant: int = Field(default=32, ge=0)
    """Searches of one tenant that may wait in one API process; of more, the answer is 429."""
    patience_s: float = Field(default=10.0, gt=0)
    """Longest that a search waits for its turn."""
    rerank_depth: int = Field(default=30, ge=0, le=200)
    """Best fused hits that are reranked."""
    rerank_weight: float = Field(default=1.0, ge=0)
    """Weight of the reranker's scaled score beside the fused score."""
    reranker: str = "late_interaction"
    """`late_interaction`, `none`, `cross_encoder:<model name or folder>` (in the API process, with `tessera[torch]`),
    or `remote:<model>` on a server of `/rerank`."""
    rerank_url: str = ""
    """`remote`: what stands before `/rerank`, for example `http://host:8000/v1`; several, separated by commas, are
    asked in turn."""
    rerank_key: HeaderKey = SecretStr("")
    """`remote`: key of that server."""
    rerank_form: Literal["cohere", "tei"] = "cohere"
    """`remote`: how it is spoken to: as Cohere, Jina and vLLM are, or as text-embeddings-inference is."""
    rerank_timeout_s: float = Field(default=1.5, gt=0)
    """`remote`: longest that a search waits for its reranking; then the order is that of the fusion."""
    rerank_at_once: int = Field(default=16, ge=1)
    """`remote`: requests of one process that are under way at one time."""
    rerank_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`cross_encoder`: where it computes; `auto` is the first GPU, or the processor without one."""
    rerank_precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`cross_encoder`: `auto` is half precision on a GPU."""


class GenerationModel(BaseModel):
    """A further model, which tenants may be allowed."""

    model_config = ConfigDict(extra="forbid")

    base_urls: list[str] = Field(min_length=1, max_length=64)
    model: str = ""
    """The name that its servers know; the declared name without it."""
    adapters: list[ModelName] = Field(default_factory=list, max_length=256)
    """LoRA adapters that its servers hold: each is a model of its own to whoever is allowed it."""
    api_key: HeaderKey = SecretStr("")
    cache_salt: SaltRule = "auto"


class GenerationSettings(BaseModel):
    """The answerer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    base_url: str = ""
    """An OpenAI-compatible server (vLLM); empty means the built-in extractive answerer."""
    base_urls: list[str] = Field(default_factory=list, max_length=64)
    """Several such servers that serve the same model, JSON: `["http://gpu-1:8000/v1", "http://gpu-2:8000/v1"]`."""
    api_key: HeaderKey = SecretStr("")
    """Key of these servers."""
    model: str = ""
    """Name of the model there, which tenants have that are given no other; without servers, one of
    TESSERA_GENERATION_MODELS."""
    adapters: list[ModelName] = Field(default_factory=list, max_length=256)
    """LoRA adapters that these servers hold, JSON list: each is a model of its own to tenants that are allowed it."""
    models: dict[ModelName, GenerationModel] = Field(default_factory=dict, max_length=256)
    """Further models by name, JSON: `{"large": {"base_urls": ["http://gpu-3:8000/v1"], "model": "org/large",
    "adapters": ["acme-legal"]}}`; also `api_key` and `cache_salt`. A tenant gets those of its `generation_models`."""
    fallbacks: list[ModelName] = Field(default_factory=list, max_length=16)
    """Models that are tried in this order when the one that was asked does not begin, JSON list; a tenant's only if it
    is allowed them. The built-in answerer is the last in any case."""
    cache_salt: SaltRule = "auto"
    """Whether each tenant's prompts are cached by themselves (`cache_salt` of vLLM): `auto` leaves the salt out with
    servers that refuse it by name, `required` does not use such servers and wants each to say in its `/version` that
    it is vLLM 0.9 or newer, `off` never sends it."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens of the model."""
    passages: int = Field(default=6, ge=1, le=20)
    """Passages that an answer may use."""
    concurrent_per_tenant: int = Field(default=16, ge=1)
    """Answers of one tenant that models write at once, over all processes of the API."""
    queue_per_tenant: int = Field(default=64, ge=0)
    """Answers of one tenant that may wait for that in a process; further ones are the built-in answerer's."""
    patience_s: float = Field(default=3.0, gt=0)
    """Longest that they wait; then the built-in answerer answers."""
    concurrent_per_replica: int = Field(default=64, ge=1)
    """Answers that a process has written by one server at once; others wait, within the time to the first token."""
    poll_s: float = Field(default=1.0, gt=0)
    """Seconds between two looks at the servers' `/health` and `/metrics` while they are in use."""
    tries: int = Field(default=3, ge=1, le=10)
    """Servers that one answer is asked of at most before its first text, without those that refuse it; never another
    one after it."""
    hedge_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the answers that may be asked of a second server because the first token is late; 0 for none."""
    connect_timeout_s: float = Field(default=2.0, gt=0)
    """Seconds to wait for a connection to a server."""
    first_token_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for the first token, over all tries and models; then the built-in answerer answers."""
    idle_timeout_s: float = Field(default=15.0, gt=0)
    """Seconds to wait between two tokens."""
    total_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds after which an answer that is still being written is given up."""
