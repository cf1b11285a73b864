"""What some tests need of a worker."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ingestion.runtime import Runtime


def part_of_runtime(**needed: Any) -> Runtime:
    """Return a runtime with these resources alone; the rest must never be touched."""
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(Runtime))
    return Runtime(**nothing | needed)
