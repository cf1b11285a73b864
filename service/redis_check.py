"""Will this Redis do? Login, privileges, version and eviction, looked at before anything starts."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from redis import asyncio as aio
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NoAnswer

from service.redis_access import TIMEOUT_S, RedisAddress, connected_async
from tenants.authority import check_authority
from tenants.errors import Misconfigured, Unavailable
from tenants.shared_places import try_places

OLDEST = (6, 2)
"""The version of the local stack; ACL users came with 6.0."""
_SCHEMES = ("redis", "rediss")
_PROBE_TTL_S = 5
_PATIENCE_S = 2 * TIMEOUT_S
_REFUSALS: tuple[tuple[tuple[type[RedisError], ...], str, str], ...] = (
    (
        (RedisError,),
        "NOAUTH|WRONGPASS|invalid password|Authentication required|AUTH .*called without",
        "{at} refuses the login ({words}). Correct user and password in {setting}.",
    ),
    (
        (AuthenticationError,),
        "",
        "{at} refuses the login ({words}). Correct user and password in {setting}.",
    ),
    (
        (NoPermissionError,),
        "",
        "{at} denies the user a command or a key ({words}). Grant it what docs/operations.md lists.",
    ),
    (
        (ResponseError,),
        "script.* can't (run|access)|NOPERM|no permissions",  # said by a script that may not do it
        "{at} denies the user a command or a key ({words}). Grant it what docs/operations.md lists.",
    ),
    (
        (ReadOnlyError,),
        "",
        "{at} is a replica and takes no writes. Give the address of the primary in {setting}.",
    ),
    (
        (NotConnected,),
        r"\[SSL|certificate verify|No such file",
        "{at} cannot be trusted or does not speak TLS ({words}). Correct redis:// or rediss:// in {setting}, or"
        " TESSERA_REDIS_CA_FILE.",
    ),
    (
        (InvalidResponse,),
        "",
        "{at} does not speak the protocol of Redis. Correct host and port in {setting}.",
    ),
    (
        (AskError, ClusterError, ClusterCrossSlotError),  # the driver keeps the words MOVED and CROSSSLOT to itself
        "",
        "{at} is a Redis Cluster, which Celery cannot use. Give a single server, or its primary, in {setting}.",
    ),
    (
        (ResponseError,),
        "cluster mode",
        "{at} is a Redis Cluster, which Celery cannot use. Give a single server, or its primary, in {setting}.",
    ),
)


@dataclass(frozen=True)
class RedisState:
    """What a login finds; None where it may not ask."""

    version: str | None
    policy: str | None
    """What is done when memory is full: `noeviction`, or which keys go."""
    place: str = ""

    def __str__(self) -> str:
        """Say it in a line, for `tessera doctor`."""
        version = f" as Redis {self.version}" if self.version else ""
        return ", ".join(filter(None, [f"{self.place} answers{version}", self.policy]))


async def check_redis(address: RedisAddress, use: Literal["broker", "cache"]) -> RedisState:
    """Do what the service does with it, on keys of its own that expire.

    Raises:
        Misconfigured: says setting, cause and mend.
        Unavailable: it cannot be reached, or is still loading.
    """
    if not _is_address(address.url):
        raise Misconfigured(
            f"The setting {address.setting} is not an address of the form redis://USER:PASSWORD@HOST:6379/0, or rediss://"
            " for TLS."
        )
    if address.tls and address.ca_file:
        check_authority("TESSERA_REDIS_CA_FILE", Path(address.ca_file))
    at = f"{address.setting}: the Redis at {address.place}"
    try:
        client = connected_async(address)
    except (ValueError, OSError) as error:  # an option that is no number
        raise Misconfigured(f"{at} has settings that cannot be used ({error}). Correct {address.setting}.") from error
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await _try(client, address, use)
            return await _state(client, address.place)
    except TimeoutError as error:
        raise _away(at, "no answer in time", address) from error
    except RedisError as error:
        raise _explained(error, at, address) from error
    except OSError as error:
        raise _away(at, str(error), address) from error
    finally:
        await client.aclose()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for what is no number
    except ValueError:
        return False
    database = parts.path.strip("/")
    return bool(parts.scheme in _SCHEMES and parts.hostname and (port is None or port)) and (
        not database or database.isdecimal()
    )


async def _try(client: aio.Redis, address: RedisAddress, use: str) -> None:
    """Read and write as the service does. Scripts on a broker too: Celery gives its locks back by one."""
    await client.set(address.key("check"), "1", ex=_PROBE_TTL_S, nx=True)
    await client.mget(address.key("check"), address.key("alive:worker"))
    await try_places(client, address.key("check:places"))
    await _try_signs(client, address)
    if use == "broker":
        await _try_messages(client, address)


async def _try_signs(client: aio.Redis, address: RedisAddress) -> None:
    """Do what signs of life and the workers' figures are made of."""
    members, alive, sums = address.key("check:set"), address.key("check:alive"), address.key("check:sums")
    await client.delete(members, alive, sums)
    async with client.pipeline() as steps:
        steps.set(alive, "1", ex=_PROBE_TTL_S)
        steps.sadd(members, "a")
        steps.smembers(members)
        steps.srem(members, "a")
        steps.hincrbyfloat(sums, "a", 1.0)
        steps.hgetall(sums)
        steps.expire(sums, _PROBE_TTL_S)
        await steps.execute()


async def _try_messages(client: aio.Redis, address: RedisAddress) -> None:
    """Do what Celery's transport and the wake-up calls are made of."""
    for kind in ("list", "hash", "sorted"):
        await client.delete(address.key(f"check:{kind}"))
    async with client.pipeline() as steps:
        steps.lpush(address.key("check:list"), "1")
        steps.ltrim(address.key("check:list"), 0, 0)
        steps.llen(address.key("check:list"))
        steps.rpush(address.key("check:list"), "2")
        steps.hset(address.key("check:hash"), "a", "1")
        steps.hget(address.key("check:hash"), "a")
        steps.hdel(address.key("check:hash"), "a")
        steps.zadd(address.key("check:sorted"), {"a": 1})
        steps.zrevrangebyscore(address.key("check:sorted"), 2, 0)
        steps.zrem(address.key("check:sorted"), "a")
        steps.expire(address.key("check:list"), _PROBE_TTL_S)
        await steps.execute()
    await client.brpop([address.key("check:list")], timeout=1)
    await client.blpop([address.key("check:list")], timeout=1)


async def _state(client: aio.Redis, place: str) -> RedisState:
    try:
        info = {**await client.info("server"), **await client.info("memory")}
    except NoPermissionError:
        return RedisState(None, None, place)
    return RedisState(info.get("redis_version"), info.get("maxmemory_policy"), place)


def refuse_version(state: RedisState, address: RedisAddress) -> None:
    """Raise `Misconfigured` for a server that is too old; one that does not say its version is trusted."""
    if state.version and tuple(map(int, state.version.split(".")[:2])) < OLDEST:
        raise Misconfigured(
            f"{address.setting}: the Redis at {address.place} is {state.version}; at least"
            f" {'.'.join(map(str, OLDEST))} is needed: upgrade the server."
        )


def _away(at: str, words: str, address: RedisAddress) -> Unavailable:
    return Unavailable(
        f"{at} does not answer ({words}). Start it, or correct {address.setting}.", code="redis_unavailable"
    )


def _explained(error: RedisError, at: str, address: RedisAddress) -> Misconfigured | Unavailable:
    words = " ".join(str(error).split()).rstrip(".")
    told = words.replace(address.host, "")  # a name may hold any of the words that are looked for
    for kinds, pattern, sentence in _REFUSALS:
        if isinstance(error, kinds) and re.search(pattern, told, re.IGNORECASE):
            return Misconfigured(sentence.format(at=at, words=words, setting=address.setting))
    if isinstance(error, (BusyLoadingError, NoAnswer, NotConnected)):
        return _away(at, words, address)
    return Misconfigured(f"{at} refuses what the service needs ({words}).")
