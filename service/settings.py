"""All settings, composed: the only place that reads the environment.

Every value is `TESSERA_<GROUP>_<NAME>`, for example `TESSERA_DATABASE_URL`. A server whose address is given is used;
one whose address is missing is started by the local stack.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from ingestion.settings import IngestSettings
from ingestion.sources.settings import SourceSettings
from rag.settings import GenerationSettings, SearchSettings
from service.servers.settings import ServerSettings
from shards.settings import EmbedSettings, LexicalSettings, MilvusSettings, ShardSettings
from tenants.errors import Misconfigured
from tenants.settings import DatabaseSettings, ObjectSettings, RedisSettings, SecretSettings


class ApiSettings(BaseModel):
    """The HTTP server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address the API listens on; loopback unless a proxy with TLS stands before it."""
    port: int = 8321
    """Preferred port; the local stack takes a free one when it is in use."""
    processes: int = Field(default=1, ge=1, le=16)
    """API processes of the local stack. Each has a port of its own: a proxy before them makes one address of it."""
    drain_delay_s: float = Field(default=0.0, ge=0)
    """Seconds after SIGTERM in which requests are still taken while `/readyz` says that this process leaves. As long as
    the balancer before it needs to notice; 0 where there is none."""
    drain_s: float = Field(default=10.0, ge=0)
    """Seconds that requests under way have to end after that; then they are cut off."""


class ProcessSettings(BaseModel):
    """What the keeper of a process, such as a supervisor or an orchestrator, tells it about itself."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str = ""
    """What the process is called in metrics and among the signs of life; by default after its role, host and number."""
    alive_file: str = ""
    """A file that the worker and the scheduler touch every three seconds as long as they answer, for liveness probes
    that look at its age."""


class StartSettings(BaseModel):
    """How processes start."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    patience_s: float = 30.0
    """Seconds that API, worker and scheduler wait at their start for servers that do not answer yet, before they
    end."""


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
    process: ProcessSettings = Field(default_factory=ProcessSettings)
    start: StartSettings = Field(default_factory=StartSettings)
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
    servers: ServerSettings = Field(default_factory=ServerSettings)

    def __init__(self, **values: Any) -> None:
        """Read the environment; `values` come before it.

        Raises:
            Misconfigured: a setting has a value that it may not have; the values are not said, some are secret.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise Misconfigured(" ".join(map(_refusal, error.errors(include_input=False)))) from None
        except SettingsError as error:
            raise Misconfigured(_not_json(error)) from None


def _not_json(error: SettingsError) -> str:
    """Say which setting is not JSON, and what it looks like; its value may hold keys."""
    group = re.search(r'field "(\w+)"', str(error))
    for name, form in _in_json(group[1] if group else ""):
        value = next((value for known, value in os.environ.items() if known.upper() == name), "{}")
        try:
            json.loads(value)
        except ValueError as fault:
            return f"The setting {name} is not the JSON that it must be ({fault}): write it as '{form}'."
    return f"A setting TESSERA_* is not the JSON that it must be: {error.__cause__ or error}."


def _in_json(group: str) -> Iterator[tuple[str, str]]:
    """Yield a group and those of its settings that are lists or tables, each with an example: the first in its
    description."""
    yield f"TESSERA_{group}".upper(), '{"name": "value"}'
    fields = getattr(Settings.model_fields[group].annotation, "model_fields", {}) if group else {}
    for name, field in fields.items():
        kind = get_origin(field.annotation)
        if kind in (list, dict):
            example = re.search(r"`([\[{].+?[\]}])`", field.description or "", re.DOTALL)
            form = " ".join(example[1].split()) if example else '["name", "another"]' if kind is list else "{}"
            yield f"TESSERA_{group}_{name}".upper(), form


def _refusal(fault: Any) -> str:
    """Say in words what pydantic has against a setting."""
    places = [str(place) for place in fault["loc"]]
    named, inner = "_".join(["TESSERA", *places[:2]]).upper(), ".".join(places[2:])
    return f"The setting {named}{f' ({inner})' if inner else ''} is wrong: {fault['msg']}."
