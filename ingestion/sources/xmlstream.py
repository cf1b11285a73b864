"""XML of others, element by element: without entities, and with a plain word where it is something else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from tenants.errors import SourceFailed

_HEAD_BYTES = 1024
_MAX_DEPTH, _MAX_INSIDE = 200, 50_000
"""Elements that may be open at once, and elements of one entry."""


def read_elements(
    url: str, content: BinaryIO, *, what: str, roots: Collection[str], entries: Collection[str], deepest: int = 1
) -> Iterator[tuple[str, Element]]:
    """Yield each element of a name in `entries` that lies `deepest` or less below the root, when it is whole: its local
    name in lower case, and itself. Memory holds one entry at a time, and nothing of what is beside them.

    Raises:
        SourceFailed: `source_wrong_type`; it is no `what`, whose root is one of `roots`, or is nested too deep.
            `source_too_large`; an entry has too many elements.
    """
    content.seek(0)
    head = content.read(_HEAD_BYTES).lower()
    content.seek(0)
    path: list[Element] = []
    entry: Element | None = None
    inside = 0
    try:
        for event, element in iterparse(content, events=("start", "end")):
            if event == "start":
                if not path and local_name(element) not in roots:
                    raise _wrong(url, what, f"it begins with <{local_name(element)[:40]}>", head)
                if entry is None and 0 < len(path) <= deepest and local_name(element) in entries:
                    entry, inside = element, 0
                path.append(element)
                inside += 1
                _require_bounded(url, what, len(path), inside if entry is not None else 0)
                continue
            path.pop()
            if entry is not None and element is entry:
                yield local_name(entry), entry
                entry = None
            if entry is None and path:
                path[-1].remove(element)
    except DefusedXmlException as error:
        raise _wrong(url, what, "it declares entities, which are refused", b"") from error
    except (ParseError, ValueError, LookupError) as error:
        raise _wrong(url, what, f"it is not well-formed XML ({error})", head) from error


def _require_bounded(url: str, what: str, depth: int, inside: int) -> None:
    if depth > _MAX_DEPTH:
        raise _wrong(url, what, "its elements are nested too deep", b"")
    if inside > _MAX_INSIDE:
        raise SourceFailed(f"An entry of {url} has more than {_MAX_INSIDE:,} elements.", code="source_too_large")


def local_name(element: Element) -> str:
    """Return the name of an element without its namespace, in lower case."""
    return element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""


def _wrong(url: str, what: str, why: str, head: bytes) -> SourceFailed:
    if b"<html" in head or b"<!doctype html" in head:
        why = "it is a page of HTML"
    return SourceFailed(f"{url} is no {what}: {why}.", code="source_wrong_type")
