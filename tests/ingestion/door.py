"""Routes without a service around them, for tests of what stands before the stores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI

from service import problems


class Door:
    """An ASGI application of some routers, which find `state`. Who asks is named by the key: the id of a tenant."""

    def __init__(self, *routers: APIRouter, **state: Any) -> None:
        self._state = {"authenticator": self, **state}
        self._app = FastAPI()
        for router in routers:
            self._app.include_router(router)
        problems.install(self._app)

    def admin(self, key: str) -> None:
        return None

    async def tenant(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(tenant_id=UUID(key))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "state": {**self._state}}, receive, send)
