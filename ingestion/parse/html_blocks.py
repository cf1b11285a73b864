"""Blocks of HTML that are taken whole: inline text, lists, data tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from selectolax.lexbor import LexborNode

HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_DROPPED = (
    "script style noscript template svg iframe object embed canvas audio video select button input textarea "
    "datalist head title meta link base area map img picture source track param dialog rp"
)
DROPPED = frozenset(_DROPPED.split())
_LISTS = frozenset({"ul", "ol", "menu"})
_BLOCKS = (
    "html body main section article aside header footer nav address div p blockquote figure figcaption center form "
    "fieldset legend details summary hgroup dl dt dd ul ol menu li table caption colgroup thead tbody tfoot tr td th "
    "pre hr h1 h2 h3 h4 h5 h6 frameset noframes dir listing xmp optgroup option"
)
BLOCKS = frozenset(_BLOCKS.split())
"""Elements that part text; any other, known or not, runs on in the line."""
_UNSEEN = re.compile(
    r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*0*\.?0*(?:px|pt|em|rem|%)?\s*(?:!important\s*)?(?:;|$))",
    re.I,
)
_MAX_DEPTH = 12
_MAX_COLUMNS = 200
_MAX_SPAN = 1000
_MAX_CELL_CHARS = 2000


def children(node: LexborNode) -> Iterator[LexborNode]:
    """The child nodes, texts included, in order."""
    child = node.child
    while child is not None:
        yield child
        child = child.next


def hidden(node: LexborNode) -> bool:
    """Whether the element itself says that nobody sees it."""
    attributes = node.attributes
    if not attributes:
        return False
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").lower() == "true":
        return True
    style = attributes.get("style")
    return style is not None and _UNSEEN.search(style) is not None


def inline_text(node: LexborNode, *, without_lists: bool = False) -> str:
    """The visible words below `node` on one line."""
    words: list[str] = []
    stack = list(reversed(list(children(node))))
    while stack:
        item = stack.pop()
        if item.is_text_node:
            words.append(item.text_content or "")
        elif item.is_element_node:
            tag = item.tag or ""
            if tag in DROPPED or hidden(item) or (without_lists and tag in _LISTS):
                continue
            if tag in BLOCKS or tag == "br":
                words.append(" ")
            stack.extend(reversed(list(children(item))))
    return " ".join("".join(words).split())


def is_plain_list(node: LexborNode) -> bool:
    """Whether a list holds items of text, and is not a grid of cards or tables."""
    return node.css_first("table, pre, h1, h2, h3, h4, h5, h6") is None


def list_lines(node: LexborNode, depth: int = 0) -> Iterator[str]:
    """A line an item (`- ` or `1. `) or a line of the text between; nested lists indented by two spaces a level."""
    number = _start(node)
    for item in _items(node, flat=depth >= _MAX_DEPTH):
        if isinstance(item, str):
            yield f"{'  ' * depth}{item}"
            continue
        if item.tag != "li":
            yield from list_lines(item, depth + 1)
            continue
        mark = f"{number}." if node.tag == "ol" else "-"
        number += 1
        words = inline_text(item, without_lists=depth < _MAX_DEPTH)
        if words:
            yield f"{'  ' * depth}{mark} {words}"
        if depth < _MAX_DEPTH:
            for nested in _nested_lists(item):
                yield from list_lines(nested, depth + 1)


def _items(node: LexborNode, *, flat: bool) -> Iterator[LexborNode | str]:
    """The items and lists of a list, whatever holds them, and the lines of text between them; if `flat`, the items of
    its lists, too."""
    words: list[str] = []
    stack: list[LexborNode | str] = list(reversed(list(children(node))))
    while stack:
        inner = stack.pop()
        if isinstance(inner, str):
            words.append(inner)
        elif inner.is_text_node:
            words.append((inner.text_content or "").replace("\n", " "))
        elif inner.is_element_node and inner.tag not in DROPPED and not hidden(inner):
            if inner.tag == "li" or (inner.tag in _LISTS and not flat):
                yield from _lines(words)
                words.clear()
                yield inner
            else:
                edge = ["\n"] if inner.tag in BLOCKS or inner.tag == "br" else []
                stack += [*edge, *reversed(list(children(inner))), *edge]
    yield from _lines(words)


def _lines(words: Sequence[str]) -> Iterator[str]:
    for line in "".join(words).split("\n"):
        if text := " ".join(line.split()):
            yield text


def _nested_lists(item: LexborNode) -> Iterator[LexborNode]:
    """The outermost lists below an item."""
    stack = list(reversed(list(children(item))))
    while stack:
        node = stack.pop()
        if node.tag in _LISTS:
            if not hidden(node):
                yield node
        elif node.is_element_node and node.tag not in DROPPED and not hidden(node):
            stack.extend(reversed(list(children(node))))


def _start(node: LexborNode) -> int:
    start = (node.attributes.get("start") or "1").strip()
    return int(start) if re.fullmatch(r"-?\d{1,6}", start) else 1


def data_table(node: LexborNode) -> list[list[str]] | None:
    """The cells of a table of data, or None for one that only lays out the page.

    A cell that spans rows is repeated in each, so that every row can be read alone.
    """
    if node.css_first("tr table, tr h1, tr h2, tr h3, tr h4, tr h5, tr h6, tr pre") is not None:
        return None
    rows: list[list[str]] = []
    spanning: dict[int, tuple[int, str]] = {}
    for row in node.css("tr"):
        if not hidden(row):
            rows.append(_row(row, spanning))
    filled = [row for row in rows if any(row)]
    columns = {i for row in filled for i, cell in enumerate(row) if cell}
    longest = max((len(cell) for row in filled for cell in row), default=0)
    if len(filled) < 2 or len(columns) < 2 or longest > _MAX_CELL_CHARS:
        return None
    return filled


def _row(row: LexborNode, spanning: dict[int, tuple[int, str]]) -> list[str]:
    cells: list[str] = []
    for cell in children(row):
        if cell.tag not in ("td", "th"):
            continue
        _continue_spans(cells, spanning)
        if len(cells) >= _MAX_COLUMNS:
            break
        text = "" if hidden(cell) else inline_text(cell)
        for i in range(_span(cell, "colspan", _MAX_COLUMNS - len(cells))):
            rows = _span(cell, "rowspan", _MAX_SPAN)
            if rows > 1:
                spanning[len(cells)] = (rows - 1, text if i == 0 else "")
            cells.append(text if i == 0 else "")
    _continue_spans(cells, spanning)
    return cells


def _continue_spans(cells: list[str], spanning: dict[int, tuple[int, str]]) -> None:
    while len(cells) in spanning:
        left, text = spanning.pop(len(cells))
        if left > 1:
            spanning[len(cells)] = (left - 1, text)
        cells.append(text)


def _span(cell: LexborNode, name: str, most: int) -> int:
    value = (cell.attributes.get(name) or "1").strip()
    return max(1, min(int(value) if re.fullmatch(r"\d{1,6}", value) else 1, most))
