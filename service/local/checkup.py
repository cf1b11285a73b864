"""Is the stack well? Its children, and the servers that it uses."""

from __future__ import annotations

from urllib.parse import urlsplit

from service.alive import served_queues
from service.local import logs, processes
from service.local.finding import Finding, good, wrong
from service.local.given_servers import examine_servers, with_addresses
from service.local.health import HttpProbe, is_ready
from service.local.state import ChildRecord, StackState
from service.redis_access import cache_address, connected_async
from service.settings import Settings

RESTART = "run `tessera down`, then `tessera up`"


async def examine_stack(settings: Settings, recorded: StackState | None) -> list[Finding]:
    """Look at what runs and at the servers that were given by settings.

    Args:
        settings: of this command; they name the servers that are given.
        recorded: what the last supervisor wrote, if it did not drain to the end.
    """
    if recorded is None:
        return [good("stack", "nothing runs"), *await examine_servers(settings)]
    if not recorded.alive():
        return [*await examine_servers(settings), leftovers(recorded)]
    findings = [await examine_child(child) for child in recorded.children]
    if recorded.url:
        findings.append(await examine_api(recorded))
    servers = with_addresses(settings, recorded.env)
    return [*findings, *await examine_queues(servers), *await examine_servers(servers)]


async def examine_queues(settings: Settings) -> list[Finding]:
    """Say of each queue of embedding models whether a worker reads it."""
    queues, cache = settings.embed.queues, cache_address(settings.redis)
    try:
        redis = connected_async(cache)
    except (ValueError, TypeError, OSError):
        return []  # that the address cannot be used is another finding
    try:
        served = await served_queues(redis, cache, queues)
    finally:
        await redis.aclose()
    if served is None:
        return []  # that Redis is away is another finding
    return [_queue_finding(settings, queue, served=queue in served) for queue in queues]


def _queue_finding(settings: Settings, queue: str, *, served: bool) -> Finding:
    subject = f"workers of queue {queue}"
    if served:
        return good(subject, "one is alive")
    models = [name for name in settings.embed.models if settings.embed.queue_of(name) == queue]
    detail = f"none is alive: uploads of tenants of {', '.join(models)} wait"
    return wrong(subject, detail, f"start a worker with `tessera[torch]` and TESSERA_INGEST_QUEUES={queue}")


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
