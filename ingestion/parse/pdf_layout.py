"""From the lines of a PDF to headings, paragraphs, lists and tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingestion.parse.document import BlockKind
from ingestion.parse.hyphens import BREAK
from ingestion.parse.pdf_lines import Line
from ingestion.parse.pdf_running import without_running_titles
from ingestion.parse.pdf_tables import table_at

_LARGER = 1.15
_MAX_HEADING_CHARS = 160
_MAX_HEADING_SHARE = 0.3
_SIZE_LEVELS = 3
_PARAGRAPH_GAP = 0.4
_WIDEST_LEADING = 1.2
_SCRIPT_CHARS = 10
_BULLET = re.compile(r"^[•◦▪▫‣⁃●○■□*\-]\s+")
_NUMBERED = re.compile(r"^(?:\d{1,3}|[a-zA-Z])[.)]\s+\S")
_SENTENCE_END = re.compile(r"[.!?:;。！？：；][\"'”’)\]」』]*$")


@dataclass(frozen=True)
class Entry:
    """An entry of the document's outline; `level` from 1, `page` from 1."""

    title: str
    level: int
    page: int


@dataclass(frozen=True)
class Found:
    """A block; its text may still hold marks of broken words."""

    kind: BlockKind
    text: str
    page: int
    level: int = 0


def layout(lines: Sequence[Line], outline: Sequence[Entry]) -> list[Found]:
    """Blocks in reading order. No block goes over a page, so its page is that of all its text."""
    lines = without_running_titles(lines)
    levels = _heading_levels(lines, outline)
    leading = _leading(lines)
    blocks: list[Found] = []
    paragraph: list[Line] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        rows, used = table_at(lines, i) if not levels[i] else ("", 0)
        if used:
            blocks.extend(_paragraphs(paragraph))
            paragraph = []
            blocks.append(Found("table", rows, line.page))
            i += used
            continue
        if levels[i]:
            blocks.extend(_paragraphs(paragraph))
            paragraph = []
            end = _heading_end(lines, levels, i)
            words = " ".join(part.text for part in lines[i:end])
            blocks.append(Found("heading", words, line.page, levels[i]))
            i = end
            continue
        if paragraph and _parts(paragraph, line, leading):
            blocks.extend(_paragraphs(paragraph))
            paragraph = []
        paragraph.append(line)
        i += 1
    blocks.extend(_paragraphs(paragraph))
    return _merged_lists(blocks)


def _heading_levels(lines: Sequence[Line], outline: Sequence[Entry]) -> list[int]:
    """Level of each line, 0 for body text: by the outline if it names lines of the pages, else by type."""
    by_outline = _levels_by_outline(lines, outline)
    if sum(map(bool, by_outline)) >= max(1, len(outline) // 2) and outline:
        return by_outline
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[_rounded(line.size)] += len(line.text)
    body = sizes.most_common(1)[0][0] if sizes else 0.0
    larger = [_rounded(line.size) if _could_head(line) and line.size >= _LARGER * body else 0.0 for line in lines]
    characters = sum(len(line.text) for line in lines)
    if sum(len(line.text) for line, size in zip(lines, larger, strict=True) if size) > _MAX_HEADING_SHARE * characters:
        larger = [0.0] * len(lines)
    ranks = _ranks({size for size in larger if size})
    bold_level = max(ranks.values(), default=0) + 1
    bold = _bold_headings(lines, body)
    return [ranks[size] if size else (bold_level if is_bold else 0) for size, is_bold in zip(larger, bold, strict=True)]


def _ranks(sizes: set[float]) -> dict[float, int]:
    """Levels 1..3 of sizes, the largest first; sizes within a fifteenth of each other are one."""
    ranks: dict[float, int] = {}
    rank, largest = 0, 0.0
    for size in sorted(sizes, reverse=True):
        if not rank or size < largest * (1 - 1 / 15):
            rank, largest = min(rank + 1, _SIZE_LEVELS), size
        ranks[size] = rank
    return ranks


def _rounded(size: float) -> float:
    return round(size * 2) / 2


def _levels_by_outline(lines: Sequence[Line], outline: Sequence[Entry]) -> list[int]:
    wanted: dict[tuple[int, str], int] = {}
    for entry in outline:
        wanted.setdefault((entry.page, _key(entry.title)), min(entry.level, 6))
    wanted.pop((0, ""), None)
    return [wanted.pop((line.page, _key(line.text)), 0) if wanted else 0 for line in lines]


def _key(title: str) -> str:
    """Letters and digits without the section number, which outlines and pages do not agree on."""
    letters = re.sub(r"^[\dIVXivx.]+[.)\s]+", "", title.strip())
    return "".join(c for c in letters.casefold() if c.isalnum())


def _bold_headings(lines: Sequence[Line], body: float) -> list[bool]:
    """Bold lines that stand alone, if the document is not set in bold as a whole."""
    weight = sum(len(line.text) for line in lines if line.bold)
    if weight > _MAX_HEADING_SHARE * sum(len(line.text) for line in lines):
        return [False] * len(lines)
    return [line.bold and line.size >= 0.95 * body and _could_head(line) for line in lines]


def _could_head(line: Line) -> bool:
    return (
        len(line.cells) == 1
        and len(line.text) <= _MAX_HEADING_CHARS
        and sum(c.isalpha() for c in line.text) >= 2
        and line.text[-1] not in ".,;"
        and (line.text[0].isalnum() or line.text[0] in "\"'“‘«¿¡([§")
        and "@" not in line.text
        and line.right - line.left > 0.15 * line.size * len(line.text)  # else it runs up the margin
        and _BULLET.match(line.text) is None
    )


def _heading_end(lines: Sequence[Line], levels: Sequence[int], i: int) -> int:
    """Lines of one heading: of one level and size, close together."""
    end = i + 1
    while (
        end < len(lines)
        and levels[end] == levels[i]
        and lines[end].page == lines[i].page
        and abs(lines[end].size - lines[i].size) < 0.5
        and 0 <= lines[end - 1].bottom - lines[end].bottom < 1.6 * lines[i].size
    ):
        end += 1
    return end


def _leading(lines: Sequence[Line]) -> float:
    """The usual blank between two lines of a paragraph, in type sizes: the median over neighbours."""
    gaps = [
        (above.bottom - below.top) / below.size
        for above, below in pairwise(lines)
        if above.page == below.page and abs(above.size - below.size) < 0.5
    ]
    near = sorted(gap for gap in gaps if -1 < gap < _WIDEST_LEADING)
    return near[len(near) // 2] if near else 0.0


def _parts(paragraph: Sequence[Line], line: Line, leading: float) -> bool:
    """Whether `line` begins a new paragraph."""
    first, last = paragraph[0], paragraph[-1]
    other_type = abs(line.size - last.size) > 0.25 * last.size
    if line.page != last.page or _is_item(line):
        return True
    if other_type and min(len(line.text), len(last.text)) > _SCRIPT_CHARS:  # shorter ones are raised or lowered signs
        return True
    if line.top > last.top + line.size:  # a new column: the sentence may go on there
        return _SENTENCE_END.search(last.text) is not None or not line.text[0].islower()
    if last.bottom - line.top > (leading + _PARAGRAPH_GAP) * max(line.size, last.size):
        return True
    if _is_item(first):
        return line.left < first.left - 0.5 * line.size
    widest = max(part.right for part in paragraph)
    short = last.right < first.left + 0.75 * (widest - first.left)
    indented = line.left - last.left > 0.8 * line.size
    return _SENTENCE_END.search(last.text) is not None and (short or indented)


def _is_item(line: Line) -> bool:
    return _BULLET.match(line.text) is not None or _NUMBERED.match(line.text) is not None


def _paragraphs(lines: Sequence[Line]) -> Iterator[Found]:
    if not lines:
        return
    text = ""
    for line in lines:
        if text.endswith("-") and len(text) > 1 and text[-2].isalpha() and line.text[0].islower():
            text = text[:-1] + BREAK + line.text
        else:
            text = f"{text} {line.text}" if text else line.text
    kind: BlockKind = "list" if _is_item(lines[0]) else "paragraph"
    yield Found(kind, _BULLET.sub("- ", text) if kind == "list" else text, lines[0].page)


def _merged_lists(blocks: Sequence[Found]) -> list[Found]:
    """Items that follow one another are one list."""
    merged: list[Found] = []
    for block in blocks:
        last = merged[-1] if merged else None
        if last is not None and block.kind == last.kind == "list" and block.page == last.page:
            merged[-1] = Found("list", f"{last.text}\n{block.text}", last.page)
        else:
            merged.append(block)
    return merged
