"""`/healthz`: the process lives. `/readyz`: each dependency's state. Not for tenants: a tenant's key is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.alive import alive_key
from service.resources import Resources
from tenants.auth import Authenticator
from tenants.errors import TesseraError, Unauthenticated

State = Literal["ok", "away"]
_TIMEOUT_S = 3.0


async def no_tenant(request: Request) -> None:
    """Refuse any key but the operator's; no key at all is fine, since probes have none."""
    authenticator: Authenticator = request.state.authenticator
    _, _, key = request.headers.get("authorization", "").partition(" ")
    if key and authenticator.admin(key) is None:
        raise Unauthenticated("This route is the operator's.", code="invalid_key")


router = APIRouter(tags=["health"], dependencies=[Depends(no_tenant)])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`ready` means that questions can be answered; `worker` and `scheduler` that uploads proceed as well."""

    ready: bool
    database: State
    redis: State
    vectors: State
    lexical: State
    worker: State
    scheduler: State


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process lives."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A dependency of the read line is away"}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Say what is there and what is away."""
    resources: Resources = request.state.resources
    redis: Redis = request.state.redis
    database, vectors, lexical, signs = await asyncio.gather(
        _state(resources.database.ping()),
        _state(resources.indexes.vectors.ping()),
        _state(resources.indexes.lexical.ping()),
        signs_of_life(redis),
    )
    ready = (database, vectors, lexical) == ("ok", "ok", "ok") and signs is not None
    response.status_code = 200 if ready else 503
    alive = signs or (False, False)
    return Readiness(
        ready=ready,
        database=database,
        redis="away" if signs is None else "ok",
        vectors=vectors,
        lexical=lexical,
        worker="ok" if alive[0] else "away",
        scheduler="ok" if alive[1] else "away",
    )


async def _state(ping: Awaitable[None]) -> State:
    try:
        await asyncio.wait_for(ping, _TIMEOUT_S)
    except (TesseraError, TimeoutError):
        return "away"
    return "ok"


async def signs_of_life(redis: Redis) -> tuple[bool, bool] | None:
    """Return whether a worker and the scheduler live; None when Redis does not answer."""
    try:
        found = await asyncio.wait_for(redis.mget(alive_key("worker"), alive_key("scheduler")), _TIMEOUT_S)
    except (RedisError, TimeoutError, OSError):
        return None
    return bool(found[0]), bool(found[1])
