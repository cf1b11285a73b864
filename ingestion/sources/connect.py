"""Opens a source: the connector of its kind, with what it may use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ingestion.settings import IngestSettings
from ingestion.sources.bucket import BucketSource, open_bucket
from ingestion.sources.config import (
    Config,
    FeedConfig,
    FolderConfig,
    GitConfig,
    ObjectsConfig,
    SitemapConfig,
    WebConfig,
)
from ingestion.sources.entries import Connector
from ingestion.sources.feed import FeedSource
from ingestion.sources.fetch import Fetcher
from ingestion.sources.folder import FolderSource, allowed_folder
from ingestion.sources.git import GitSource
from ingestion.sources.pages import Pages
from ingestion.sources.robots import Robots
from ingestion.sources.settings import SourceSettings
from ingestion.sources.sitemap import SitemapSource
from ingestion.sources.vault import Vault
from ingestion.sources.web import WebSource


@dataclass(frozen=True)
class SourceTools:
    """What a worker has for every source: its settings, the vault, and where the service's own objects lie."""

    settings: SourceSettings
    vault: Vault
    own_objects: str


@asynccontextmanager
async def connected(
    tools: SourceTools, ingest: IngestSettings, tenant_id: UUID, config: Config, cursor: dict[str, Any]
) -> AsyncIterator[Connector]:
    """Open a source and close it again; `cursor` is what its last good run left.

    Raises:
        SourceFailed: its place is refused.
    """
    fetcher = Fetcher(tools.settings)
    try:
        connector = _connector(tools, fetcher, ingest.max_upload_bytes, tenant_id, config, cursor)
        try:
            yield connector
        finally:
            await connector.aclose()
    finally:
        await fetcher.aclose()


def _connector(
    tools: SourceTools, fetcher: Fetcher, max_bytes: int, tenant_id: UUID, config: Config, cursor: dict[str, Any]
) -> Connector:
    settings = tools.settings
    pages = Pages(fetcher, Robots(fetcher, settings.user_agent, obeyed=settings.robots), max_bytes)
    most = settings.max_listing_bytes
    match config:
        case WebConfig():
            return WebSource(config, pages)
        case SitemapConfig():
            return SitemapSource(config, fetcher, pages, most)
        case FeedConfig():
            return FeedSource(config, fetcher, pages, max_bytes=most, cursor=cursor)
        case GitConfig():
            return GitSource(config, fetcher, settings, max_bytes=max_bytes, cursor=cursor)
        case FolderConfig(path=path) | ObjectsConfig(scheme="file", path=path):
            return FolderSource(allowed_folder(path, settings.folder_roots, tenant_id), config.include, max_bytes)
        case ObjectsConfig():
            return BucketSource(config, open_bucket(config, settings, tools.own_objects), max_bytes)
