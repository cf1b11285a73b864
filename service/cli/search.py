"""The command `tessera search`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.text import Text

from eval.client import Json
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import FilterOption, JsonOption, line, note, out, print_fields, print_hanging, print_json, run

app = typer.Typer(add_completion=False, rich_markup_mode=None)
SNIPPET = 240
_STEP = 40
_MARGIN = Text(" " * 4)
_STAGES = (("vectors", "ann"), ("words", "bm25"), ("rerank", "rerank"))


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many passages.")] = 10,
    filter: FilterOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Visit every cell of the index.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show timings and how the index was searched.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Find the passages that answer a question."""
    found = run(_search(question, k, filter, exact, debug, Access(url, key, tenant)))
    if as_json:
        print_json(found)
        return
    for rank, hit in enumerate(found["hits"], 1):
        show_hit(rank, hit, question)
    if not found["hits"]:
        out.print("Nothing was found.")
    if found["degraded"]:
        note(f"Degraded: {', '.join(found['degraded'])}.")
    if debug:
        timings = {name: f"{milliseconds:.1f} ms" for name, milliseconds in found["timings_ms"].items()}
        print_fields(timings | (found["debug"] or {}))


async def _search(
    question: str,
    k: int,
    filter: dict[str, Any] | None,
    exact: bool,
    debug: bool,
    access: Access,
) -> Json:
    async with tenant_client(access) as client:
        return await client.search(question, k=k, filter=filter, exact=exact, debug=debug)


def show_hit(rank: int, hit: Json, question: str) -> None:
    """Print one passage: where it stands, why it was found, what it says."""
    path = [hit["title"], *(heading for heading in hit["headings"] if heading != hit["title"])]
    print_hanging(Text(f"{rank:>2}  ", "cyan"), Text(" > ".join(line(part) for part in path), "bold"))
    ranks = [f"{name} {hit['ranks'][stage]}" for name, stage in _STAGES if hit["ranks"][stage] is not None]
    page = [f"page {hit['page']}"] if hit["page"] is not None else []
    facts = [*page, f"score {hit['score']:.3f}", *ranks, line(hit["external_id"] or hit["document_id"])]
    print_hanging(_MARGIN, Text(" · ".join(facts), "dim"))
    print_hanging(_MARGIN, Text(snippet(hit["text"], question)))
    out.print()


def snippet(passage: str, question: str, length: int = SNIPPET) -> str:
    """Return the part of a passage that holds the most words of the question, cut at words."""
    whole = line(passage)
    if len(whole) <= length:
        return whole
    words = {word for word in re.findall(r"\w+", question.lower()) if len(word) > 3}

    def held(start: int) -> int:
        window = whole[start : start + length].lower()
        return sum(word in window for word in words)

    start = max(range(0, len(whole) - length + _STEP, _STEP), key=held)
    start = min(start, len(whole) - length)
    part = whole[start : start + length]
    if start:
        part = "… " + part.partition(" ")[2]
    if start + length < len(whole):
        part = part.rpartition(" ")[0] + " …"
    return part
