"""The command `tessera ask`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.answer import show_answer, show_events, show_sources
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import FilterOption, JsonOption, note, out, print_json, run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.", show_default=False)],
    conversation: Annotated[
        str | None, typer.Option("--conversation", help="Id of a conversation to go on with.", show_default=False)
    ] = None,
    filter: FilterOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model that the tenant may use [its first].", show_default=False)
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is written.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Ask a question and get an answer that cites the tenant's documents."""
    run(_ask(question, conversation, filter, model, stream and not as_json, as_json, Access(url, key, tenant)))


async def _ask(
    question: str,
    conversation: str | None,
    filter: dict[str, Any] | None,
    model: str | None,
    stream: bool,
    as_json: bool,
    access: Access,
) -> None:
    async with tenant_client(access) as client:
        if stream:
            events = client.chat(question, conversation_id=conversation, filter=filter, model=model)
            answer = await show_events(events, out)
        else:
            answer = await client.ask(question, conversation_id=conversation, filter=filter, model=model)
    if as_json:
        print_json(answer)
        return
    if not stream:
        show_answer(answer, out)
    if answer["citations"]:
        out.print()
        show_sources(answer["citations"], out)
    if answer["degraded"]:
        note(f"Degraded: {', '.join(answer['degraded'])}.")
    note(f"To go on: --conversation {answer['conversation_id']}")
