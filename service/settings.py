"""All settings, composed: the only place that reads the environment.

Every value is `TESSERA_<GROUP>_<NAME>`, for example `TESSERA_DATABASE_URL`. A server whose address is given is used;
one whose address is missing is started by the local stack.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestion.settings import IngestSettings
from ingestion.sources.settings import SourceSettings
from rag.settings import GenerationSettings, SearchSettings
from shards.settings import EmbedSettings, LexicalSettings, MilvusSettings, ShardSettings
from tenants.settings import DatabaseSettings, ObjectSettings, RedisSettings, SecretSettings


class ApiSettings(BaseModel):
    """The HTTP server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address the API listens on; loopback unless a proxy with TLS stands before it."""
    port: int = 8321
    """Preferred port; the local stack takes a free one when it is in use."""


class Settings(BaseSettings):
    """The whole configuration of one process."""

    model_config = SettingsConfigDict(
        env_prefix="TESSERA_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path(".tessera")
    """Where the local stack keeps everything (mode 0700)."""
    admin_key: SecretStr | None = None
    """Bootstrap key of the admin API; without it the admin API answers 401."""
    api: ApiSettings = Field(default_factory=ApiSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    objects: ObjectSettings = Field(default_factory=ObjectSettings)
    secret: SecretSettings = Field(default_factory=SecretSettings)
    milvus: MilvusSettings = Field(default_factory=MilvusSettings)
    lexical: LexicalSettings = Field(default_factory=LexicalSettings)
    embed: EmbedSettings = Field(default_factory=EmbedSettings)
    shards: ShardSettings = Field(default_factory=ShardSettings)
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    sources: SourceSettings = Field(default_factory=SourceSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
