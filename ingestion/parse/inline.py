"""Markdown's inline marks, taken off where a heading is shown as a name."""

from __future__ import annotations

import re

_IMAGE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")
_LINK = re.compile(r"\[([^\]\n]+)\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_ATTRIBUTES = re.compile(r"\s*\{[#.:][^{}\n]*\}\s*$")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>")
_STRONG = re.compile(r"(\*{1,3}|~~|`+)(?=\S)(.+?)(?<=\S)\1")
_UNDERSCORED = re.compile(r"(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


_LONGEST = 2000


def plain_words(markdown: str) -> str:
    """One line of words: links, emphasis, code marks, tags and `{#anchors}` taken off.

    Only the first 2,000 characters are looked at: nothing longer is a name.
    """
    text = _ATTRIBUTES.sub("", markdown[:_LONGEST])
    for pattern, kept in ((_IMAGE, r"\1"), (_LINK, r"\1"), (_TAG, ""), (_STRONG, r"\2"), (_UNDERSCORED, r"\2")):
        text = pattern.sub(kept, text)
    return " ".join(_ESCAPE.sub(r"\1", text).split())
