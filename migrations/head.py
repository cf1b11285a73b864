"""The newest revision that this release knows, found without loading Alembic."""

from __future__ import annotations

from pathlib import Path

_VERSIONS = Path(__file__).parent / "versions"
HEAD = max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))
"""Revisions are numbers of four digits, and the name of a migration's file begins with its own."""
