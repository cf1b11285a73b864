"""Is the stack well? Its children, the servers that were given to it, the database roles and schema."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import psycopg
from alembic.script import ScriptDirectory

from migrations.run import alembic_config
from service.local import logs, processes
from service.local.finding import Finding, good, wrong
from service.local.health import GrpcProbe, HttpProbe, RedisProbe, is_ready
from service.local.plan import missing_stores
from service.local.state import ChildRecord, StackState
from service.settings import Settings
from tenants.db import Database
from tenants.errors import TesseraError

RESTART = "run `tessera down`, then `tessera up`"


async def examine_stack(settings: Settings, recorded: StackState | None) -> list[Finding]:
    """Look at what runs and at the servers that were given by settings.

    Args:
        settings: of this command; they name the servers that are given.
        recorded: what the last supervisor wrote, if it did not drain to the end.
    """
    findings = [*await examine_given(settings)]
    if recorded is None:
        findings.append(good("stack", "nothing runs"))
        env = given_database(settings)
    elif not recorded.alive():
        return [*findings, leftovers(recorded)]
    else:
        findings += [await examine_child(child) for child in recorded.children]
        if recorded.url:
            findings.append(await examine_api(recorded))
        env = recorded.env
    return [*findings, *await examine_database(settings, env)]


async def examine_given(settings: Settings) -> list[Finding]:
    """Ask the given Redis and Milvus; a given database is asked by its roles."""
    findings = []
    if settings.redis.url:
        answers = await is_ready(RedisProbe(settings.redis.url))
        findings.append(reached("Redis", "TESSERA_REDIS_URL", settings.redis.url, answers))
    if settings.milvus.uri:
        parts = urlsplit(settings.milvus.uri)
        answers = await is_ready(GrpcProbe(parts.hostname or "", parts.port or 19530, parts.scheme == "https"))
        findings.append(reached("Milvus", "TESSERA_MILVUS_URI", settings.milvus.uri, answers))
    return findings


def reached(subject: str, setting: str, address: str, answers: bool) -> Finding:
    """Say whether a given server answered; the address without its password."""
    place = address.rpartition("@")[2]
    if answers:
        return good(subject, f"{place} answers")
    return wrong(subject, f"{place} does not answer, or refuses the password", f"start it, or correct {setting}")


def leftovers(recorded: StackState) -> Finding:
    """Say what a killed supervisor left."""
    left = [child.name for child in recorded.children if processes.session_tree(child.pid, child.identity)]
    still = f"still running: {', '.join(left)}" if left else "nothing of it still runs"
    detail = f"the supervisor {recorded.supervisor_pid} was killed; {still}"
    return wrong("stack", detail, "run `tessera down` to clear up, or `tessera up` to start again")


async def examine_child(child: ChildRecord) -> Finding:
    """Say how a child is, with its log when it is not well."""
    if child.state == "healthy":
        again = f", restarted {child.restarts} times (last: {child.cause})" if child.restarts else ""
        return good(child.name, f"healthy, process {child.pid}{again}")
    detail = f"{child.state}: {child.cause}" if child.cause else child.state
    mend = RESTART if child.state == "failed" else "wait a minute; if it stays so, look into its log"
    return wrong(child.name, detail, f"{mend} ({child.log})", tuple(logs.tail(child.log)))


async def examine_api(recorded: StackState) -> Finding:
    """Ask the API now."""
    parts = urlsplit(recorded.url)
    if await is_ready(HttpProbe(parts.hostname or "", parts.port or 80)):
        return good("HTTP", f"{recorded.url}/readyz answers 200")
    return wrong("HTTP", f"{recorded.url}/readyz does not answer 200", f"`curl {recorded.url}/readyz` names the reason")


def given_database(settings: Settings) -> dict[str, str]:
    """Return the database settings in the form of the environment, or {} when the local stack would start one."""
    if "postgres" in missing_stores(settings):
        return {}
    database = settings.database
    return {
        "TESSERA_DATABASE_URL": database.url,
        "TESSERA_DATABASE_WORKER_URL": database.worker_url,
        "TESSERA_DATABASE_OWNER_URL": database.owner_url,
    }


async def examine_database(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    """Check that each role is bound by row-level security, and that the schema is the newest."""
    findings = []
    for name in ("TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL"):
        if env.get(name):
            findings.append(await examine_role(settings, name, env[name]))
    if env.get("TESSERA_DATABASE_OWNER_URL"):
        findings.append(await examine_schema(env["TESSERA_DATABASE_OWNER_URL"]))
    return findings


async def examine_role(settings: Settings, name: str, url: str) -> Finding:
    """Log in as one role."""
    role = urlsplit(url).username or "?"
    database = Database(url, settings.database)
    try:
        await database.check_role()
    except TesseraError as error:
        return wrong(f"role {role}", error.detail, f"see the log of Postgres, or correct {name}")
    finally:
        await database.aclose()
    return good(f"role {role}", "row-level security binds it")


async def examine_schema(owner_url: str) -> Finding:
    """Compare the version in the database with the newest migration."""
    newest = ScriptDirectory.from_config(alembic_config(owner_url)).get_current_head()
    conninfo = owner_url.replace("postgresql+psycopg:", "postgresql:", 1)
    try:
        async with await psycopg.AsyncConnection.connect(conninfo, connect_timeout=5) as connection:
            row = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
    except psycopg.Error as error:
        return wrong("schema", f"cannot be read: {str(error).strip()}", RESTART)
    if row is not None and row[0] == newest:
        return good("schema", f"version {newest}")
    return wrong("schema", f"version {row[0] if row else 'none'}, the newest is {newest}", RESTART)
