"""XML of others, element by element: without entities, and with a plain word where it is something else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from tenants.errors import SourceFailed

_HEAD_BYTES = 1024


def read_elements(
    url: str, content: BinaryIO, *, what: str, roots: Collection[str]
) -> Iterator[tuple[str, Element, int, Element]]:
    """Yield each element when it is whole: its local name in lower case, itself, its depth (the root's is 0), and its
    parent. Who is done with one removes it from its parent, so that memory stays flat.

    Raises:
        SourceFailed: `source_wrong_type`; it is no `what`, whose root is one of `roots`.
    """
    content.seek(0)
    head = content.read(_HEAD_BYTES).lower()
    content.seek(0)
    path: list[Element] = []
    try:
        for event, element in iterparse(content, events=("start", "end")):
            if event == "start":
                if not path and local_name(element) not in roots:
                    raise _wrong(url, what, f"it begins with <{local_name(element)[:40]}>", head)
                path.append(element)
            else:
                path.pop()
                if path:
                    yield local_name(element), element, len(path), path[-1]
    except DefusedXmlException as error:
        raise _wrong(url, what, "it declares entities, which are refused", b"") from error
    except (ParseError, ValueError, LookupError) as error:
        raise _wrong(url, what, f"it is not well-formed XML ({error})", head) from error


def local_name(element: Element) -> str:
    """Return the name of an element without its namespace, in lower case."""
    return element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""


def _wrong(url: str, what: str, why: str, head: bytes) -> SourceFailed:
    if b"<html" in head or b"<!doctype html" in head:
        why = "it is a page of HTML"
    return SourceFailed(f"{url} is no {what}: {why}.", code="source_wrong_type")
