"""TXT and Markdown: the text is the file, and blocks point at its lines."""

from __future__ import annotations

import pytest

from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.markdown import parse_markdown
from ingestion.parse.txt import parse_txt
from tenants.errors import DocumentRejected


def shown(parsed: ParsedDocument) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks]


def markdown(text: str) -> ParsedDocument:
    return parse_markdown(text.encode(), TextLimits())


def test_txt_paragraphs_and_drawn_headings():
    parsed = parse_txt(
        b"WELCOME TO ACME\r\n\r\nFirst line\r\nwrapped.\r\n\r\n"
        b"Hours\r\n=====\r\nNine.\r\n\r\nDetails\r\n---\r\n\r\nLast.",
        TextLimits(),
    )
    assert shown(parsed) == [
        ("heading", 1, "WELCOME TO ACME"),
        ("paragraph", 0, "First line\nwrapped."),
        ("heading", 1, "Hours"),
        ("paragraph", 0, "Nine."),
        ("heading", 2, "Details"),
        ("paragraph", 0, "Last."),
    ]
    assert parsed.title == "WELCOME TO ACME"


def test_txt_in_capitals_throughout_has_no_headings():
    parsed = parse_txt(b"TERMS OF USE\n\nALL RIGHTS RESERVED\n\nNO WARRANTY", TextLimits())
    assert {block.kind for block in parsed.blocks} == {"paragraph"}


def test_txt_text_is_the_file():
    content = "Erste Zeile.\n\n\tZweite  Zeile mit   Abständen.\n\n\nDritte.\n"
    assert parse_txt(content.encode(), TextLimits()).text == content


MARKDOWN = """\
---
title: "The *handbook*"
owner: ops
---
<!-- hidden -->

# Big **title** #

Intro
more.

Two
lines
---

- a
- b

  c

***

1. x

| a | b |
|---|---|
| 1 | 2 |

```python
# no heading
```

> quote

<div>
shown
</div>

<script>
alert(1)
</script>

[ref]: http://example.org
"""


def test_markdown_blocks():
    parsed = markdown(MARKDOWN)
    assert parsed.text == MARKDOWN
    assert shown(parsed) == [
        ("code", 0, 'title: "The *handbook*"\nowner: ops'),
        ("heading", 1, "Big **title**"),
        ("paragraph", 0, "Intro\nmore."),
        ("heading", 2, "Two\nlines"),
        ("list", 0, "- a\n- b\n\n  c"),
        ("list", 0, "1. x"),
        ("table", 0, "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", 0, "```python\n# no heading\n```"),
        ("paragraph", 0, "> quote"),
        ("paragraph", 0, "<div>\nshown\n</div>"),
    ]
    assert parsed.title == "The handbook"


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("# Plain", "Plain"),
        ("# [Link](http://x) and `code` {#anchor}", "Link and code"),
        ("# snake_case and _emphasis_", "snake_case and emphasis"),
        ("Under\n=====", "Under"),
        ("## Second level", None),
    ],
)
def test_markdown_title(heading: str, title: str | None):
    assert markdown(f"{heading}\n\nText.").title == title


def test_a_rule_at_the_start_is_not_front_matter():
    assert shown(markdown("---\nWords here.\n\n---\nMore.")) == [
        ("paragraph", 0, "Words here."),
        ("paragraph", 0, "More."),
    ]


@pytest.mark.parametrize("parse", [parse_txt, parse_markdown])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "document_empty"),
        (b" \r\n\t\n", "document_empty"),
        ("\u200b\u2060".encode(), "document_empty"),
        (b"\x00\x01\x02\x03" * 50, "document_encoding"),
        (b"many words " * 20, "document_too_long"),
    ],
)
def test_what_cannot_be_read_has_its_own_code(parse, data: bytes, code: str):  # type: ignore[no-untyped-def]
    with pytest.raises(DocumentRejected) as caught:
        parse(
            data,
            TextLimits(max_text_chars=200 if code == "document_empty" else 100 + 100 * (code != "document_too_long")),
        )
    assert caught.value.code == code


def test_markdown_of_comments_alone_is_empty():
    with pytest.raises(DocumentRejected) as caught:
        markdown("<!-- nothing to see -->\n\n---\n")
    assert caught.value.code == "document_empty"


def test_offsets_hold_after_characters_were_stripped():
    parsed = markdown("Hid\u200bden\u202e word\n\nSecond \U000e0041line")
    assert shown(parsed) == [("paragraph", 0, "Hidden word"), ("paragraph", 0, "Second line")]
