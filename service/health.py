"""`/healthz`: the process lives. `/servingz`: it takes requests. `/readyz`: each dependency's state. Not for tenants: a
tenant's key is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestion.queues import QueueWatch
from rag.answer.serving import GenerationState
from rag.chat import Answerer
from service.alive import living
from service.drain import Drain
from service.redis_access import RedisAddress
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
    """`ready` means that questions can be answered; `worker` and `scheduler` that uploads proceed as well, and `queues`
    that those do whose embedding model not every worker computes."""

    ready: bool
    leaving: bool
    """The process was told to stop and goes on for a moment: send it nothing new."""
    database: State
    redis: State
    vectors: State
    lexical: State
    worker: State
    scheduler: State
    generation: GenerationState
    """Whether the models' servers can be asked; without them the built-in answerer answers."""
    queues: dict[str, State] = Field(default_factory=dict)


class Serving(BaseModel):
    """Whether this process takes requests."""

    ready: bool


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process lives."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A dependency of the read line is away"}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Say what is there and what is away."""
    resources: Resources = request.state.resources
    answerer: Answerer = request.state.answerer
    watch: QueueWatch = request.state.queue_watch
    database, vectors, lexical, signs, generation, served = await asyncio.gather(
        _state(resources.database.ping()),
        _state(resources.indexes.vectors.ping()),
        _state(resources.indexes.lexical.ping()),
        request.state.signs(),
        answerer.generator.state(),
        watch.served(),
    )
    leaving = drain_of(request).leaving
    ready = (database, vectors, lexical) == ("ok", "ok", "ok") and signs is not None and not leaving
    response.status_code = 200 if ready else 503
    alive = signs or (False, False)
    return Readiness(
        ready=ready,
        leaving=leaving,
        database=database,
        redis="away" if signs is None else "ok",
        vectors=vectors,
        lexical=lexical,
        worker="ok" if alive[0] else "away",
        scheduler="ok" if alive[1] else "away",
        generation=generation,
        queues={queue: "ok" if queue in (served or ()) else "away" for queue in watch.queues.names},
    )


@router.get("/servingz", responses={503: {"model": Serving, "description": "This process was told to stop"}})
async def servingz(request: Request, response: Response) -> Serving:
    """Say whether this process takes requests, for balancers. A store that is away is away for every process: to take
    all of them out would turn answers that lack something into none."""
    leaving = drain_of(request).leaving
    response.status_code = 503 if leaving else 200
    return Serving(ready=not leaving)


async def _state(ping: Awaitable[None]) -> State:
    try:
        await asyncio.wait_for(ping, _TIMEOUT_S)
    except (TesseraError, TimeoutError):
        return "away"
    return "ok"


async def signs_of_life(redis: Redis, cache: RedisAddress) -> tuple[bool, bool] | None:
    """Return whether a worker and the scheduler live; None when Redis does not answer."""
    try:
        workers, schedulers = await asyncio.wait_for(living(redis, cache, "worker", "scheduler"), _TIMEOUT_S)
    except (RedisError, TimeoutError, OSError):
        return None
    return bool(workers), bool(schedulers)


def drain_of(request: Request) -> Drain:
    """Return what tells whether this process leaves."""
    drain: Drain = request.state.drain
    return drain
