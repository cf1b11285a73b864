"""The user that the service is to Milvus: made by an administrator, with the privileges that are needed alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial

from pydantic import SecretStr
from pymilvus import MilvusClient, MilvusException

from shards.milvus_check import OF_DATABASES, PRIVILEGES, check_form, lacking_privileges
from shards.milvus_clients import MilvusClients
from shards.milvus_errors import Refused
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)
ADMIN_SETTING = "TESSERA_MILVUS_ADMIN_TOKEN"
OF_SERVER = ("CreateCollection", "DropCollection", "DescribeCollection", "ShowCollections", *OF_DATABASES)
"""Privileges that Milvus counts among those of the server, not of a collection."""
_MAIN = ("", "")
_EVERYWHERE = "*"
_HOLDS_S, _AGAIN_S = 60.0, 0.5
"""How long a server may take until it does what it is told, or until it lets the user do what was granted, and how
often it is asked and told again."""
_LOGIN = "the login"


async def make_user(settings: MilvusSettings, admin_token: str) -> list[str]:
    """Make the user that the token of the main server names, and its role of the same name, on all databases of it.

    Idempotent: what is there stays, what is missing is made. When it returns the server lets the user do all of it.

    Args:
        settings: of the service; its token is `user:password`.
        admin_token: `user:password` of who may make users, `root:...` as a rule.

    Returns:
        What was done, in sentences.

    Raises:
        Misconfigured: the token names no user or one with another password, or the server refuses it or the
            administrator.
        Unavailable: the server does not answer, or denies for a minute what it says it has granted.
    """
    name, _, password = settings.token.get_secret_value().partition(":")
    if not name or not password:
        raise Misconfigured("TESSERA_MILVUS_TOKEN is not `user:password`: it names the user that is to be made.")
    if admin_token.partition(":")[0] == name:
        raise Misconfigured(f"TESSERA_MILVUS_TOKEN and {ADMIN_SETTING} name the same user, {name!r}.")
    check_form("the Milvus server", settings)
    clients = MilvusClients(settings.model_copy(update={"token": SecretStr(admin_token), "endpoints": {}}))
    try:
        done = await _made(settings, clients, name, password)
        await _until_it_holds(settings, clients, name)
    except Refused as refused:
        why = refused.why.replace("TESSERA_MILVUS_TOKEN", ADMIN_SETTING)
        raise Misconfigured(f"The Milvus server at {settings.uri} cannot be used: {why}") from refused
    except MilvusException as refused:  # a password that is too short for it, say
        raise Misconfigured(
            f"The Milvus server at {settings.uri} refuses the user {name!r}: {refused.message}"
        ) from None
    finally:
        await clients.aclose()
    return done


async def _made(settings: MilvusSettings, administrator: MilvusClients, name: str, password: str) -> list[str]:
    """Make what is missing; say what that was. A server that was started again lets whoever changes its users wait for
    its proxy of before, as long as that is still registered (2.3.5: half a minute)."""
    done: list[str] = []
    began = time.monotonic()
    while True:
        known = await _logs_in(settings)
        make = partial(_make, name=name, password=password, known=known, done=done)
        try:
            await administrator.blocking(_MAIN, make)
            return list(dict.fromkeys(done))
        except Unavailable as error:
            if isinstance(error, Refused) or time.monotonic() - began > _HOLDS_S:
                raise
            log.warning("the Milvus server at %s does not answer: asking it again", settings.uri)
        await asyncio.sleep(_AGAIN_S)


async def _until_it_holds(settings: MilvusSettings, administrator: MilvusClients, name: str) -> None:
    """Return when the server lets the user do everything, twice in a row; tell it again what it denies meanwhile.

    It confirms a grant before its proxy has heard of it, and the proxy takes those that follow one another quickly in
    any order: what it took last may be older than what it took before, and stays until the next change (Milvus 2.3.5
    under load: 5 of 330 users).
    """
    user = MilvusClients(settings.model_copy(update={"endpoints": {}}))
    denied, held = [_LOGIN], 0
    try:
        async with asyncio.timeout(_HOLDS_S):
            while held < 2:
                denied = await _denied(user)
                held = 0 if denied else held + 1
                if denied:
                    again = partial(_grant_again, name=name, privileges=[one for one in denied if one != _LOGIN])
                    await administrator.blocking(_MAIN, again)
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError:
        raise Unavailable(
            f"The Milvus server at {settings.uri} says that the user {name!r} has all it needs, and denies"
            f" {', '.join(denied)} still: run this again."
        ) from None
    finally:
        await user.aclose()


async def _denied(user: MilvusClients) -> list[str]:
    try:
        return await lacking_privileges(user)
    except Refused:
        return [_LOGIN]


async def _logs_in(settings: MilvusSettings) -> bool:
    clients = MilvusClients(settings.model_copy(update={"endpoints": {}}))
    try:
        await clients.now(_MAIN)
    except Refused:
        return False
    finally:
        await clients.aclose()
    return True


def _make(client: MilvusClient, timeout_s: float, *, name: str, password: str, known: bool, done: list[str]) -> None:
    """Make what is missing, and add to `done` what that is: before, since what is not answered may be done."""
    within = {"timeout": timeout_s}
    if name not in client.list_roles(**within):
        done.append(f"made the role {name}")
        client.create_role(name, **within)
    granted = {(one["privilege"], one["db_name"]) for one in client.describe_role(name, **within)["privileges"]}
    lacking = [one for one in (*PRIVILEGES, *OF_DATABASES) if (one, _EVERYWHERE) not in granted]
    if lacking:
        done.append(f"granted it {', '.join(lacking)}")
    _grant(client, timeout_s, name=name, privileges=lacking)
    if name not in client.list_users(**within):
        done.append(f"made the user {name}")
        client.create_user(name, password, **within)
    elif not known:
        raise Misconfigured(
            f"The Milvus server has a user {name!r} with another password than TESSERA_MILVUS_TOKEN has: correct"
            " that, or change the user's."
        )
    if name not in client.describe_user(name, **within)["roles"]:
        done.append("gave it the role")
        client.grant_role(name, name, **within)


def _grant(client: MilvusClient, timeout_s: float, *, name: str, privileges: Iterable[str]) -> None:
    for privilege in privileges:
        kind = "Global" if privilege in OF_SERVER else "Collection"
        client.grant_privilege(name, kind, privilege, _EVERYWHERE, db_name=_EVERYWHERE, timeout=timeout_s)


def _grant_again(client: MilvusClient, timeout_s: float, *, name: str, privileges: Iterable[str]) -> None:
    _grant(client, timeout_s, name=name, privileges=privileges)
    client.grant_role(name, name, timeout=timeout_s)
