"""What the answerer of the service needs of its surroundings: servers of models, and places for a tenant's answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol
from uuid import UUID

from rag.answer.generator import Generator
from rag.answer.server_metrics import ServerLoad

GenerationState = Literal["built_in", "ok", "partly", "away"]
"""No model is declared; all of its servers can be asked, or some, or none."""


class Slots(Protocol):
    """Bounds the answers that models write for one tenant at once."""

    def taken(self, tenant_id: UUID) -> AbstractAsyncContextManager[None]:
        """Hold a place; raise `TooManyRequests` when none became free in time."""
        ...


class Server(Protocol):
    """What is known of one server of a model."""

    url: str
    outstanding: int

    @property
    def up(self) -> bool:
        """Whether it can be asked, as far as is known."""
        ...

    @property
    def last_load(self) -> ServerLoad | None:
        """What it said of its load last."""
        ...


class Servers(Protocol):
    """The servers of the declared models."""

    models: dict[str, Generator]

    @property
    def replicas(self) -> Sequence[Server]:
        """Every server."""
        ...

    @property
    def expected(self) -> Sequence[Server]:
        """Every server but those that are not started while another replica of each of their models is there."""
        ...

    async def look(self) -> None:
        """Look at every server now."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
