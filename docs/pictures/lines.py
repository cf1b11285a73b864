"""Draws docs/pictures/lines.svg: the write line, the read line, and the stores between them. Run it after a change."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1180, 440
WRITE = [
    ("upload", "POST /v1/documents"),
    ("intake", "hash, limit, store"),
    ("queue", "jobs in Postgres"),
    ("parse", "confined process"),
    ("chunk", "headings, pages, spans"),
    ("embed", "vector + token bits"),
    ("flip", "commit: searchable"),
]
READ = [
    ("question", "POST /v1/search, chat"),
    ("embed, pre-filter", "metadata in Postgres"),
    ("ANN ∥ BM25", "nearest cells, all words"),
    ("fuse", "scaled scores"),
    ("passages", "text under RLS"),
    ("rerank", "late interaction"),
    ("answer", "cited, or abstains"),
]
STORES = [
    ("Object storage", "originals", 1, ()),
    ("Postgres", "rows, forced RLS", 3, ()),
    ("Milvus", "cells of each tenant", 5, ()),
    ("tantivy", "BM25 of each tenant", 6, ()),
]
STEP, LEFT, BOX, TALL = 163, 24, 148, 58
INK, MUTED = "#1d2733", "#5b6b7c"


def box(x: float, y: float, title: str, note: str, fill: str, stroke: str) -> list[str]:
    middle = x + BOX / 2
    return [
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="7" fill="{fill}" stroke="{stroke}"'
        ' stroke-width="1.4"/>',
        f'<text x="{middle}" y="{y + 25}" font-weight="600" font-size="12.5" fill="{INK}">{escape(title)}</text>',
        f'<text x="{middle}" y="{y + 43}" font-size="10.5" fill="{MUTED}">{escape(note)}</text>',
    ]


def lane(y: float, name: str, steps: list[tuple[str, str]], fill: str, stroke: str) -> list[str]:
    drawn = [
        f'<text x="{LEFT}" y="{y - 14}" text-anchor="start" font-weight="700" font-size="14" fill="{stroke}">'
        f"{escape(name)}</text>"
    ]
    for i, (title, note) in enumerate(steps):
        x = LEFT + i * STEP
        drawn += box(x, y, title, note, fill, stroke)
        if i:
            drawn.append(arrow(x - STEP + BOX, y + TALL / 2, x - 2, y + TALL / 2, stroke))
    return drawn


def arrow(x1: float, y1: float, x2: float, y2: float, stroke: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-width="1.5"{dash}'
        f' marker-end="url(#{"w" if stroke == "#1f7a5c" else "r"})"/>'
    )


def at(column: int) -> float:
    return LEFT + column * STEP + BOX / 2


def draw() -> str:
    green, blue, top, middle, bottom = "#1f7a5c", "#2b5fa8", 52, 205, 360
    parts = lane(top, "A document: the write line", WRITE, "#e9f5f0", green)
    parts += lane(bottom, "A question: the read line", READ, "#e9f0fa", blue)
    columns = {"Object storage": 1, "Postgres": 3, "tantivy": 4, "Milvus": 5}
    for title, note, _, _ in STORES:
        parts += box(LEFT + columns[title] * STEP, middle, title, note, "#f6f2e8", "#a5894c")
    down, up = top + TALL, bottom
    for column, store in ((1, "Object storage"), (2, "Postgres"), (5, "tantivy"), (5, "Milvus"), (6, "Postgres")):
        parts.append(arrow(at(column), down, at(columns[store]), middle - 2, green, dashed=True))
    for store, column in (("Postgres", 1), ("tantivy", 2), ("Milvus", 2), ("Postgres", 4), ("Postgres", 5)):
        parts.append(arrow(at(columns[store]), middle + TALL, at(column), up - 2, blue, dashed=True))
    markers = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        for name, colour in (("w", green), ("r", blue))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' font-family="Helvetica, Arial, sans-serif" text-anchor="middle"><defs>{markers}</defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
