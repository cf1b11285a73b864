"""An answer on the terminal: the text as it comes, then its sources."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from rich.console import Console
from rich.text import Text

from eval.client import Json
from service.cli.flow import Flow
from service.cli.terminal import line, print_hanging


async def show_events(events: AsyncGenerator[tuple[str, Json], None], console: Console, *, indent: int = 0) -> Json:
    """Print the text of a streamed answer as it arrives; return the data of `done`."""
    flow, done = Flow(console, indent=indent), {}
    try:
        async with aclosing(events):
            async for name, data in events:
                if name == "delta":
                    flow.write(data["text"])
                elif name == "done":
                    done = data
    finally:
        flow.end()
    return done


def show_answer(answer: Json, console: Console, *, indent: int = 0) -> None:
    """Print the text of a whole answer."""
    flow = Flow(console, indent=indent)
    flow.write(answer["answer"])
    flow.end()


def show_sources(citations: Iterable[dict[str, Any]], console: Console, *, indent: int = 0) -> None:
    """Print what each `[n]` points at: title, page and the quoted words."""
    for citation in citations:
        page = f", page {citation['page']}" if citation["page"] is not None else ""
        source, quote = line(citation["title"]) + page, f"  “{line(citation['quote'])}”"
        lead = Text(" " * indent + f"[{citation['n']}] ", "cyan")
        print_hanging(lead, Text.assemble((source, "bold"), (quote, "dim")), console)
