"""From a parsed document to chunks: passages that follow its structure and fit the embedder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingestion.chunk_context import ContextLines, column_names
from ingestion.chunk_split import SPECIAL_TOKENS, TokenIndex, TokenSpans, fitting, pack, split_block
from ingestion.parse.document import Block, ParsedDocument
from ingestion.parse.inline import plain_words

_MAX_HEADING_CHARS = 300
"""What is longer heads nothing; it is a paragraph that was marked as a heading."""
_MARKS = " \t\n#=-*_>"


@dataclass(frozen=True)
class Chunk:
    """A passage: `text == parsed.text[start:end]`.

    `headings` is the path of the headings above it, the document's title left out; the headings are not part of
    the text. `page` is that of its first character, `tokens` counts its text alone.
    """

    position: int
    headings: tuple[str, ...]
    text: str
    page: int | None
    start: int
    end: int
    tokens: int
    context: str | None = None
    """What the embedder reads before the text, cut to fit; None when it has not been worked out."""


def chunk_document(
    parsed: ParsedDocument, *, title: str, token_spans: TokenSpans, max_tokens: int, model_tokens: int
) -> list[Chunk]:
    """Chunks in order, without overlap, that hold every character of the blocks but headings.

    A chunk never goes over a heading, nor over a hidden comment between blocks. Blocks are packed up to
    `max_tokens`, evenly where a section needs several chunks; a block that is longer is cut between rows, items or
    lines, then after sentences, clauses and words, then between tokens. A heading with nothing below it is a
    passage of the section above it. `embedding_text` of a chunk has at most `model_tokens` tokens with the two
    special ones, whatever the title: its first line is shortened, never the text.
    """
    text = parsed.text
    index = TokenIndex(text, token_spans)
    limit = min(max_tokens, model_tokens - SPECIAL_TOKENS)
    contexts = ContextLines(title, index, model_tokens - SPECIAL_TOKENS)
    starts = [block.start for block in parsed.blocks]
    chunks: list[Chunk] = []
    for headings, blocks in _sections(parsed, title):
        for run in _runs(text, blocks):
            pieces = [piece for block in run for piece in split_block(text, block, index, limit)]
            for start, end, tokens in fitting(text, pack(pieces, index, limit), index, model_tokens - SPECIAL_TOKENS):
                block = parsed.blocks[max(bisect_right(starts, start) - 1, 0)]
                passage = text[start:end]
                context = contexts.before(passage, tokens, headings, column_names(text, block, start))
                chunks.append(Chunk(len(chunks), headings, passage, block.page, start, end, tokens, context))
    return chunks


def embedding_text(title: str, chunk: Chunk) -> str:
    """What is given to the embedder: a line of title and headings, then the text."""
    context = " > ".join(filter(None, (title, *chunk.headings))) if chunk.context is None else chunk.context
    return f"{context}\n{chunk.text}" if context else chunk.text


def _sections(parsed: ParsedDocument, title: str) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """The blocks between two headings, with the path above them."""
    path: list[tuple[int, str]] = []
    gathered: list[Block] = []
    excluded = {_folded(title), ""}
    for i, block in enumerate(parsed.blocks):
        if block.kind != "heading" or block.end - block.start > _MAX_HEADING_CHARS:
            gathered.append(block)
            continue
        above = [entry for entry in path if entry[0] < block.level]
        if block.end > block.start and _heads_nothing(parsed.blocks, i):
            if above != path:
                yield _names(path), gathered
                gathered, path = [], above
            gathered.append(block)
            continue
        yield _names(path), gathered
        words = _heading_words(parsed, block)
        gathered, path = [], [*above, (block.level, "" if _folded(words) in excluded else words)]
    yield _names(path), gathered


def _heads_nothing(blocks: Sequence[Block], i: int) -> bool:
    """Whether the next heading of its level or above comes at once, or the end."""
    following = blocks[i + 1] if i + 1 < len(blocks) else None
    return following is None or (following.kind == "heading" and following.level <= blocks[i].level)


def _names(path: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(words for _, words in path if words)


def _heading_words(parsed: ParsedDocument, block: Block) -> str:
    words = " ".join(parsed.text[block.start : block.end].split())
    return plain_words(words) or words if parsed.format == "markdown" else words


def _folded(words: str) -> str:
    return " ".join(words.split()).casefold()


def _runs(text: str, blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks with nothing but blanks, rules and marks between them: a chunk holds no hidden comment."""
    run: list[Block] = []
    for block in blocks:
        if run and text[run[-1].end : block.start].strip(_MARKS):
            yield run
            run = []
        run.append(block)
    if run:
        yield run
