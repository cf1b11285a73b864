"""Bring a database to the newest schema: what `tessera up` and deployments call."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

_FOLDER = Path(__file__).parent


def alembic_config(owner_url: str) -> Config:
    """Return Alembic's configuration for the database at `owner_url` (a SQLAlchemy URL of the owner role)."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = owner_url
    return config


def upgrade(owner_url: str) -> None:
    """Run every migration that the database at `owner_url` has not seen."""
    command.upgrade(alembic_config(owner_url), "head")
