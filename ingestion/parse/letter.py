"""What EML and MSG have in common: a letter's heads, its text, and the files that hang on it."""

from __future__ import annotations

from collections.abc import Mapping

from ingestion.parse.builder import DocumentBuilder
from ingestion.parse.decode import decode_text
from ingestion.parse.document import TextLimits
from ingestion.parse.html import parse_html
from ingestion.parse.rejections import DANGEROUS
from ingestion.parse.txt import parse_txt
from tenants.errors import DocumentRejected


def add_heads(builder: DocumentBuilder, heads: Mapping[str, str], *, level: int) -> None:
    """The subject as a heading (of a letter within a letter; the outermost one's is the title), then who and when."""
    words = {name: " ".join(text.split()) for name, text in heads.items()}
    if level > 1:
        builder.add("heading", words.get("Subject") or "Message", level=level - 1)
    builder.add("paragraph", "\n".join(f"{name}: {text}" for name, text in words.items() if text))


def add_text(
    builder: DocumentBuilder, content: bytes, *, html: bool, charset: str | None, limits: TextLimits, level: int
) -> bool:
    """A letter's own words, in `charset` if that is true; whether there were any."""
    try:
        text = decode_text(content, charset).encode("utf-8", "surrogatepass")
        parsed = parse_html(text, limits) if html else parse_txt(text, limits)
    except DocumentRejected as error:
        if error.code in DANGEROUS:
            raise
        if error.code != "document_empty":
            builder.leave_out("the message's text", error.code)
        return False
    builder.include(parsed, level=level)
    return True
