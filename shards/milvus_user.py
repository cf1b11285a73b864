"""The user that the service is to Milvus: made by an administrator, with the privileges that are needed alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from pydantic import SecretStr
from pymilvus import MilvusClient, MilvusException

from shards.milvus_check import OF_DATABASES, PRIVILEGES, check_form, lacking_privileges
from shards.milvus_clients import MilvusClients
from shards.milvus_errors import Refused
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable

ADMIN_SETTING = "TESSERA_MILVUS_ADMIN_TOKEN"
OF_SERVER = ("CreateCollection", "DropCollection", "DescribeCollection", "ShowCollections", *OF_DATABASES)
"""Privileges that Milvus counts among those of the server, not of a collection."""
_MAIN = ("", "")
_EVERYWHERE = "*"
_HOLDS_S, _AGAIN_S = 60.0, 0.5
"""How long a server may take until it lets the user do what was granted, and how often it is asked and told again."""
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
    known = await _logs_in(settings)
    clients = MilvusClients(settings.model_copy(update={"token": SecretStr(admin_token), "endpoints": {}}))
    try:
        done = await clients.blocking(
            _MAIN, lambda client, timeout_s: _make(client, timeout_s, name, password, known=known)
        )
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


def _make(client: MilvusClient, timeout_s: float, name: str, password: str, *, known: bool) -> list[str]:
    done: list[str] = []
    within = {"timeout": timeout_s}
    if name not in client.list_roles(**within):
        client.create_role(name, **within)
        done.append(f"made the role {name}")
    granted = {(one["privilege"], one["db_name"]) for one in client.describe_role(name, **within)["privileges"]}
    lacking = [one for one in (*PRIVILEGES, *OF_DATABASES) if (one, _EVERYWHERE) not in granted]
    _grant(client, timeout_s, name=name, privileges=lacking)
    if lacking:
        done.append(f"granted it {', '.join(lacking)}")
    if name not in client.list_users(**within):
        client.create_user(name, password, **within)
        done.append(f"made the user {name}")
    elif not known:
        raise Misconfigured(
            f"The Milvus server has a user {name!r} with another password than TESSERA_MILVUS_TOKEN has: correct"
            " that, or change the user's."
        )
    if name not in client.describe_user(name, **within)["roles"]:
        client.grant_role(name, name, **within)
        done.append("gave it the role")
    return done


def _grant(client: MilvusClient, timeout_s: float, *, name: str, privileges: Iterable[str]) -> None:
    for privilege in privileges:
        kind = "Global" if privilege in OF_SERVER else "Collection"
        client.grant_privilege(name, kind, privilege, _EVERYWHERE, db_name=_EVERYWHERE, timeout=timeout_s)


def _grant_again(client: MilvusClient, timeout_s: float, *, name: str, privileges: Iterable[str]) -> None:
    _grant(client, timeout_s, name=name, privileges=privileges)
    client.grant_role(name, name, timeout=timeout_s)
