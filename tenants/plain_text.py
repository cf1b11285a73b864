"""Text as Postgres stores it. The rest of what it refuses, half a surrogate pair, pydantic refuses in any `str`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PlainText = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A string of a request that reaches a statement: without NUL."""
