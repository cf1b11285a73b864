"""Reads a Markdown source into plain blocks that both renderers understand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

NUMBER = re.compile(r"[\d.,]*( %)?")


@dataclass(frozen=True)
class House:
    """A company's name and the colour of its headings, as six hex digits."""

    name: str
    accent: str


HOUSES = {
    "velmisjoch": House("Velmisjoch Bergbahnen AG", "1F5C7A"),
    "calvenor": House("Calvenor Instruments GmbH", "5A2A6B"),
}


@dataclass(frozen=True)
class Span:
    """A run of text in one style."""

    text: str
    bold: bool
    italic: bool


@dataclass(frozen=True)
class Element:
    """One block: `rows` holds table rows, list items or, for headings and paragraphs, one row of one cell."""

    kind: str  # heading, paragraph, bullets, numbers, table
    level: int
    rows: tuple[tuple[tuple[Span, ...], ...], ...]


@dataclass(frozen=True)
class Source:
    """A parsed source file."""

    meta: dict[str, str]
    house: House
    elements: tuple[Element, ...]


def parse_spans(token: Token) -> tuple[Span, ...]:
    """The text runs of an inline token."""
    spans, bold, italic = [], False, False
    for child in token.children or []:
        if child.type in ("strong_open", "strong_close"):
            bold = child.type == "strong_open"
        elif child.type in ("em_open", "em_close"):
            italic = child.type == "em_open"
        elif child.type in ("text", "softbreak"):
            spans.append(Span(child.content if child.type == "text" else " ", bold, italic))
        else:
            raise ValueError(f"inline Markdown that is not rendered: {child.type}")
    return tuple(spans)


def parse_elements(tokens: Sequence[Token]) -> Iterator[Element]:
    """Blocks in reading order; nested lists are not supported and do not occur."""
    kinds = {"bullet_list_open": "bullets", "ordered_list_open": "numbers", "table_open": "table"}
    container, rows, heading = "", [], 0
    for token in tokens:
        if token.type in kinds:
            container, rows = kinds[token.type], []
        elif token.type in ("tr_open", "list_item_open"):
            rows.append([])
        elif token.type == "heading_open":
            heading = int(token.tag[1]) - 1
        elif token.type == "inline" and container:
            rows[-1].append(parse_spans(token))
        elif token.type == "inline":
            yield Element("heading" if heading else "paragraph", heading, ((parse_spans(token),),))
            heading = 0
        elif token.type in ("bullet_list_close", "ordered_list_close", "table_close"):
            yield Element(container, 0, tuple(tuple(row) for row in rows))
            container = ""


def read_source(path: Path) -> Source:
    """Front matter and body of one file."""
    _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
    meta = dict(line.split(": ", 1) for line in front.strip().splitlines())
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    return Source(meta, HOUSES[path.parent.name], tuple(parse_elements(tokens)))


def control_rows(meta: dict[str, str]) -> list[tuple[str, str]]:
    """The document control block below the title."""
    keys = ("number", "revision", "effective", "owner", "audience")
    labels = ("Document", "Revision", "Effective from", "Owner", "Audience")
    return [(label, meta[key]) for label, key in zip(labels, keys, strict=True)]


def column_widths(element: Element, total: float) -> list[float]:
    """Widths that follow the longest text of each column, none narrower than its longest word."""
    columns = list(zip(*element.rows, strict=True))
    texts = [["".join(span.text for span in cell) for cell in column] for column in columns]
    longest = [max(len(text) for text in column) for column in texts]
    word = [max(len(part) for text in column for part in (text.split() or [""])) for column in texts]
    wish = [max(min(a, 30), b + 2) for a, b in zip(longest, word, strict=True)]
    return [total * w / sum(wish) for w in wish]


def number_columns(element: Element) -> set[int]:
    """The last columns, as far as they hold nothing but numbers below their header; they are set flush right."""
    found = set()
    for index in range(len(element.rows[0]) - 1, 0, -1):
        texts = ["".join(span.text for span in row[index]) for row in element.rows[1:]]
        if not all(NUMBER.fullmatch(text) for text in texts):
            break
        found.add(index)
    return found
