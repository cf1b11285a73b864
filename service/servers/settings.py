"""Settings of the real servers that `tessera servers` starts on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class ServerSettings(BaseModel):
    """Postgres 15, Redis, Milvus, OpenSearch, S3 and vLLM on this machine, to try what a cluster has."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    dir: Path = Path(".tessera/servers")
    """Data, logs and addresses of the servers that `tessera servers` starts (mode 0700)."""
    cache_dir: Path | None = None
    """The programs of these servers, fetched once for all checkouts; by default `tessera/servers` in the user's cache
    folder."""

    def cache_folder(self) -> Path:
        """Return the folder of the programs (without a setting by the XDG base directory specification)."""
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return (self.cache_dir or caches / "tessera" / "servers").absolute()


def surroundings() -> dict[str, str]:
    """Return the whole environment, for what fetches: proxies, certificates and registries are the user's affair."""
    return dict(os.environ)


def java_home() -> Path | None:
    """Return the folder that JAVA_HOME names, if any."""
    return Path(os.environ["JAVA_HOME"]) if os.environ.get("JAVA_HOME") else None
