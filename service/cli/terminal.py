"""What commands write: text made harmless, JSON, errors as one sentence, and the loop they run in."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.client import ApiProblem
from tenants.errors import TesseraError

T = TypeVar("T")
PIPED_WIDTH = 160
"""Columns when nobody looks: wide enough for ids and titles in a table that is piped to grep."""
WIDEST = 100
"""Columns beyond which running text is hard to read."""
_WHOLE = {"id": 36, "key id": 12, "state": 9}
# Control characters could take over the terminal, and marks of direction could turn a line round: documents are
# written by others. Tabs and line ends stay.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def json_object(raw: str) -> dict[str, Any]:
    """Read an option that takes a JSON object.

    Raises:
        typer.BadParameter: it is not one.
    """
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object")
    return value


FilterOption = Annotated[
    dict[str, Any] | None,
    typer.Option("--filter", parser=json_object, metavar="JSON", help="A metadata filter.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


def plain(value: object) -> str:
    """Return text from a document or a server without what could act on a terminal; None becomes a dash."""
    return "-" if value is None else _HARMFUL.sub("", str(value).replace("\r\n", "\n"))


def line(value: object) -> str:
    """Return the same as one line."""
    return " ".join(plain(value).split())


def text(value: object, style: str = "") -> Text:
    """Return one harmless line for a table or a print; markup in it means nothing."""
    return Text(line(value), style)


def moment(value: str | None) -> str:
    """Return an RFC 3339 time in this machine's zone, to the minute."""
    return "-" if value is None else f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M}"


def table(*columns: str) -> Table:
    """Return a table without borders; ids and states are never cut."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, no_wrap=True, overflow="ellipsis", min_width=_WHOLE.get(name))
    return made


def print_json(data: object) -> None:
    """Print JSON in UTF-8 whatever the locale, and nothing else."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2).encode())


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        out.print(Text.assemble((f"{name:<{width}}  ", "dim"), text(shown)), soft_wrap=True)


def print_hanging(lead: Text, body: Text, console: Console = out) -> None:
    """Print a text beside its lead: on a terminal wrapped there, for a program as long as its lines are."""
    indent = " " * lead.cell_len
    width = max(20, min(console.width, WIDEST) - lead.cell_len)
    for number, part in enumerate(body.wrap(console, width) if console.is_terminal else body.split("\n")):
        part.rstrip()
        console.print((lead if number == 0 else Text(indent)) + part, soft_wrap=True)


def note(sentence: str) -> None:
    """Print a remark on standard error, where it is in no program's way."""
    print_hanging(Text(), Text(line(sentence), "dim"), err)


def complain(sentence: str, program: str = "tessera") -> None:
    """Print one sentence about what went wrong on standard error."""
    print_hanging(Text(f"{program}: ", "red"), Text(line(sentence)), err)


def sentence_of(error: TesseraError) -> str:
    """Return what to tell about an error: its sentence, its code, and the request's id when there is one."""
    return str(error) if isinstance(error, ApiProblem) else f"{error.detail} ({error.code})"


def fail(sentence: str) -> NoReturn:
    """Print one sentence on standard error and exit with status 1."""
    complain(sentence)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what goes wrong becomes one sentence and exit status 1."""
    try:
        return asyncio.run(work)
    except TesseraError as error:
        fail(sentence_of(error))
    except OSError as error:
        fail(f"{error.filename or 'The system'}: {error.strerror or error}.")


def is_id(wanted: str) -> bool:
    """Whether an argument is an id and not a name."""
    try:
        UUID(wanted)
    except ValueError:
        return False
    return True
