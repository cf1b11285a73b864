"""EPUB: the chapters in the order of the spine, each as the HTML that it is."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from ingestion.parse.archive import Archive
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.html import parse_html
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.xml_tree import local
from tenants.errors import DocumentRejected

_WHAT = "EPUB book"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_CHAPTERS = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml"})


def parse_epub(data: bytes, limits: TextLimits) -> ParsedDocument:
    """Raises DocumentRejected, see `Archive`; document_encrypted when chapters are under copy protection."""
    if not data:
        raise empty_document()
    archive = Archive(data, limits, what=_WHAT)
    _refuse_protected(archive)
    opf = _package_part(archive)
    package = archive.xml(opf)
    if package is None:
        raise damaged(_WHAT)
    builder = DocumentBuilder("epub", limits)
    for number, part in enumerate(_chapters(package, posixpath.dirname(opf)), start=1):
        if part not in archive.names:
            builder.leave_out(part, "document_unreadable")
            continue
        content = archive.read(part)
        try:
            builder.include(parse_html(content, limits), level=0)
        except DocumentRejected as error:
            if error.code == "document_too_long":
                raise
            if error.code != "document_empty":
                builder.leave_out(f"chapter {number}", error.code)
    titles = [element for element in package.iter() if local(element.tag) == "title"]
    builder.title = " ".join((titles[0].text or "").split()) or None if titles else None
    return builder.build()


def _package_part(archive: Archive) -> str:
    container = archive.xml("META-INF/container.xml")
    for element in () if container is None else container.iter():
        if local(element.tag) == "rootfile":
            return _inside("", element.get("full-path", ""))
    packages = sorted(name for name in archive.names if name.endswith(".opf"))
    if not packages:
        raise damaged(_WHAT)
    return packages[0]


def _chapters(package: Element, folder: str) -> list[str]:
    items = {e.get("id", ""): e for e in package.iter() if local(e.tag) == "item"}
    spine = [items.get(e.get("idref", "")) for e in package.iter() if local(e.tag) == "itemref"]
    listed = [item for item in (spine or items.values()) if item is not None]
    chapters = [item for item in listed if item.get("media-type") in _CHAPTERS and item.get("properties") != "nav"]
    return list(dict.fromkeys(_inside(folder, item.get("href", "")) for item in chapters))


def _inside(folder: str, href: str) -> str:
    """The part that a reference means. Raises DocumentRejected(unsafe_path) when it leads out of the book."""
    path = posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
    if path.startswith(("/", "..")):
        raise rejected("unsafe_path", "The book refers to a file outside of itself; save it anew from its source.")
    return path


def _refuse_protected(archive: Archive) -> None:
    root = archive.xml("META-INF/encryption.xml")
    for element in () if root is None else root.iter():
        if local(element.tag) == "EncryptionMethod" and element.get("Algorithm", "") not in _FONT_OBFUSCATION:
            raise rejected("document_encrypted")
