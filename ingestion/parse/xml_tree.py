"""XML that may be hostile, as a tree: no entity is ever declared, none is fetched, one spelling of every byte."""

from __future__ import annotations

import html.entities
import re
from xml.etree.ElementTree import Element, ParseError, XMLParser
from xml.parsers import expat

from ingestion.parse.decode import decode_text
from ingestion.parse.rejections import damaged, rejected

_OUT_OF_MEMORY = 1  # expat's XML_ERROR_NO_MEMORY
_ENCODING = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{2,40})", re.I)
_PLAIN = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_NAMED = {name: chr(point) for name, point in html.entities.name2codepoint.items()}


class _Body(Exception):
    """The document type is over."""


def declared_encoding(data: bytes) -> str | None:
    """The encoding that an XML declaration names."""
    match = _ENCODING.match(data)
    return match[1].decode("ascii") if match else None


def parse_xml(data: bytes, *, what: str = "XML document") -> Element:
    """The root of an XML document in any encoding.

    A document type that declares no entity is passed over; entities of HTML are then known by name. Raises
    DocumentRejected: xml_entities, document_encoding, or document_unreadable, where `what` tells what it should be.
    """
    content = _utf8(data)
    # The given encoding overrides a declared one, so that no other spelling of <!DOCTYPE gets by.
    parser = XMLParser(encoding="utf-8")  # noqa: S314 - no entity is declared
    if b"<!DOCTYPE" in content:
        _refuse_entities(content)
        parser.entity.update(_NAMED)
    try:
        parser.feed(content)
        return parser.close()
    except ParseError as error:
        if error.code == _OUT_OF_MEMORY:
            raise MemoryError from error
        raise damaged(what) from error


def local(tag: object) -> str:
    """An element's name without its namespace; "" for what is no element."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """The attribute of a name, in whatever namespace; "" without it."""
    return next((value for key, value in element.attrib.items() if local(key) == name), "")


def _utf8(data: bytes) -> bytes:
    """The document as UTF-8, without a mark or blanks before it."""
    declared = declared_encoding(data)
    if b"\0" in data or (declared or "utf-8").lower() not in _PLAIN:
        data = decode_text(data, declared).encode("utf-8", "surrogatepass")
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()


def _refuse_entities(content: bytes) -> None:
    """Read the document type alone. Raises DocumentRejected(xml_entities)."""
    parser = expat.ParserCreate("utf-8")

    def declared(*_: object) -> None:
        raise rejected("xml_entities")

    def body(*_: object) -> None:
        raise _Body

    parser.EntityDeclHandler = declared
    parser.StartElementHandler = body
    try:
        parser.Parse(content, True)
    except (_Body, expat.ExpatError):
        return  # what is damaged, the parser proper says
