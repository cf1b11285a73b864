"""XML of any vocabulary: running text as paragraphs, records as lines of `name: value`."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.rejections import rejected
from ingestion.parse.xml_tree import local, parse_xml

_HEADINGS = frozenset({"title", "head", "heading"})
_MAX_LEVEL = 6


def parse_xml_document(data: bytes, limits: TextLimits) -> ParsedDocument:
    """The texts in order. An element that holds words beside elements is one paragraph; one whose children hold
    words alone is a record; `title` and `head` name the section they stand in. Attributes count where there are no
    words. Raises DocumentRejected: xml_entities, nested_too_deeply and the usual ones.
    """
    if not data.strip():
        raise empty_document()
    root = parse_xml(data)
    builder = DocumentBuilder("xml", limits)
    try:
        _add(builder, root, 1)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    return builder.build()


def _add(builder: DocumentBuilder, element: Element, level: int) -> None:
    children = [child for child in element if isinstance(child.tag, str)]
    if not children:
        name = local(element.tag)
        text = _joined(element)
        if name in _HEADINGS and text:
            builder.add("heading", text, level=max(1, min(level - 1, _MAX_LEVEL)))
        else:
            builder.add("paragraph", text or "\n".join(_attributes(element)))
    elif _is_mixed(element):
        builder.add("paragraph", _joined(element))
    elif len(children) > 1 and _is_record(children):
        lines = [*_attributes(element), *(line for child in children for line in _field(child))]
        builder.add("paragraph", "\n".join(lines))
    else:
        for child in children:
            _add(builder, child, level + 1)


def _is_mixed(element: Element) -> bool:
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)


def _is_record(children: list[Element]) -> bool:
    """Leaves of several names, none of them a heading: fields, not paragraphs."""
    names = {local(child.tag) for child in children}
    return all(not len(child) for child in children) and len(names) > 1 and 2 * len(names) > len(children)


def _field(element: Element) -> Iterator[str]:
    text = _joined(element)
    if text:
        yield f"{local(element.tag)}: {text}"
    else:
        yield from _attributes(element)


def _attributes(element: Element) -> Iterator[str]:
    for key, value in element.attrib.items():
        if value.strip() and not key.startswith("{http://www.w3.org/"):
            yield f"{local(key)}: {' '.join(value.split())}"


def _joined(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())
