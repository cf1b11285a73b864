"""Why a document is refused: every code, with one sentence that tells its owner what to do."""

from __future__ import annotations

from collections.abc import Mapping

from tenants.errors import DocumentRejected

SENTENCES: Mapping[str, str] = {
    "archive_bomb": "The file expands beyond 100 times its size or 512 MiB; send what it holds as separate files.",
    "archive_too_deep": "Archives lie more than 3 deep in one another; unpack the inner ones and send those.",
    "archive_too_many_entries": "The file holds more than 1,000 parts; send it as several smaller files.",
    "document_empty": "The document holds no text; check that it is the file you meant to send.",
    "document_encoding": "The text cannot be decoded: it is binary or in an unknown encoding; save it as UTF-8.",
    "document_encrypted": "The document is encrypted; remove its password and send it again.",
    "document_too_long": "The document holds more text than may be kept in one; send it in parts.",
    "document_unreadable": "The file is damaged; open it in the program that made it, save it anew and send that.",
    "image_too_large": "A page is a picture of more than 50 megapixels; scan it at a lower resolution.",
    "needs_ocr": "The document holds pictures of text only; run it through text recognition (OCR) and send the result.",
    "nested_too_deeply": "The document is nested too deeply to be read; save it in a simpler form.",
    "parser_memory": "The document needs more memory than a parser may use; send it in smaller parts.",
    "parser_timeout": "The document takes too long to read; send it in smaller parts.",
    "unsafe_link": "The archive holds a symbolic link; pack it again with the file that the link leads to.",
    "unsafe_path": "A part of the archive has a name that leads out of it; pack it again with plain relative names.",
    "xml_entities": "The file's XML declares entities, which are never followed; save it without a document type.",
}

DANGEROUS = frozenset(
    {"archive_bomb", "archive_too_deep", "archive_too_many_entries", "document_too_long", "unsafe_link", "unsafe_path"}
)
"""Codes that refuse a whole archive or message when one file in it gives them; any other leaves that file out."""


def rejected(code: str, sentence: str | None = None) -> DocumentRejected:
    """The error of a code; `sentence` where more can be said than the general one."""
    return DocumentRejected(sentence or SENTENCES[code], code=code)


def damaged(what: str) -> DocumentRejected:
    """The error for a file that is not a sound `what` ("PDF", "Word document")."""
    return rejected(
        "document_unreadable",
        f"The file is not a sound {what}; open it in the program that made it, save it anew and send that.",
    )
