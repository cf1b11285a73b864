"""The commands `tessera shards reembed`, `pause`, `resume` and `cancel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from eval.client import Json
from service.cli.connection import AdminKeyOption, UrlOption, admin_client
from service.cli.tenant import TenantArgument, find_tenant, require_done
from service.cli.terminal import err, fail, out, print_fields, run, text


def reembed_tenant(
    tenant: TenantArgument,
    model: Annotated[str | None, typer.Option(help="Embedding model [as it is].", show_default=False)] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Tokens of a chunk [as it is].", show_default=False)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show how far it is, until it has ended.")] = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Move a tenant to another embedding model or chunking, in the background, while it is in use."""
    if model is None and chunk_tokens is None:
        fail("Name --model, --chunk-tokens, or both.")

    async def done() -> Json:
        async with admin_client(url, admin_key) as client:
            found = await find_tenant(client, tenant)
            wanted = {"embedding_model": model, "chunk_tokens": chunk_tokens}
            job = await client.ask_upkeep(found["id"], "reindex", **wanted)
            if not wait:
                return job
            with err.status("embedding") as status:

                def show(seen: Json) -> None:
                    status.update(f"{seen['stage'] or seen['state']}, {seen['progress']:.0%}{_why(seen)}")

                return await client.wait_for_job(job["id"], patience_s=float("inf"), on_change=show)

    job = run(done())
    if not wait:
        out.print(text(f"Job {job['id']}; `tessera shards show {tenant}` shows the model that answers."))
        return
    require_done(job)
    print_fields({name: value for name, value in job["result"].items() if name != "failed"})
    for one in job["result"]["failed"]:
        out.print(text(f"kept its passages: {one['document_id']} ({one['code']})"))


def pause_move(tenant: TenantArgument, url: UrlOption = None, admin_key: AdminKeyOption = None) -> None:
    """Pause the move of a tenant to another model or chunking; what was done stays."""
    _wish(tenant, url, admin_key, "pause")


def resume_move(tenant: TenantArgument, url: UrlOption = None, admin_key: AdminKeyOption = None) -> None:
    """Go on with a move that was paused."""
    _wish(tenant, url, admin_key, "resume")


def cancel_move(tenant: TenantArgument, url: UrlOption = None, admin_key: AdminKeyOption = None) -> None:
    """Give up the move of a tenant; what was made of it is dropped."""
    _wish(tenant, url, admin_key, "cancel")


COMMANDS: dict[str, Callable[..., None]] = {
    "reembed": reembed_tenant,
    "pause": pause_move,
    "resume": resume_move,
    "cancel": cancel_move,
}


def _wish(tenant: str, url: str | None, admin_key: str | None, wanted: str) -> None:
    async def done() -> Json:
        async with admin_client(url, admin_key) as client:
            return await client.ask_upkeep((await find_tenant(client, tenant))["id"], f"reindex/{wanted}")

    job = run(done())
    out.print(text(f"Job {job['id']}: {job['stage'] or job['state']}, {job['progress']:.0%}"))


def _why(job: Json) -> str:
    return f" ({job['error']['detail']})" if job["error"] else ""
