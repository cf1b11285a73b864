"""What all Office documents share: the packaging of OOXML, and the older files it is mistaken for."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from ingestion.parse.archive import Archive
from ingestion.parse.rejections import rejected
from ingestion.parse.xml_tree import local
from tenants.errors import DocumentRejected

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How an OLE compound file begins: DOC, XLS, PPT, MSG, and any OOXML document with a password."""
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_CORE_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_PROGRAM_TITLES = ("Microsoft Word", "PowerPoint Presentation", "Untitled")


@dataclass(frozen=True)
class Relation:
    """One relationship of a part; `kind` is the last word of its type, `target` a part's name."""

    kind: str
    target: str


def relations(archive: Archive, part: str) -> dict[str, Relation]:
    """The relationships of a part by id; those that lead out of the file are left out."""
    folder, name = posixpath.split(part)
    root = archive.xml(posixpath.join(folder, "_rels", f"{name}.rels"))
    found: dict[str, Relation] = {}
    for element in () if root is None else root:
        if local(element.tag) != "Relationship" or element.get("TargetMode") == "External":
            continue
        target = posixpath.normpath(posixpath.join("/", folder, element.get("Target", "")))
        found[element.get("Id", "")] = Relation(element.get("Type", "").rpartition("/")[2], target.lstrip("/"))
    return found


def main_part(archive: Archive, usual: str) -> str:
    """The name of the part that the document begins with."""
    for relation in relations(archive, "").values():
        if relation.kind == "officeDocument":
            return relation.target
    return usual


def core_title(archive: Archive) -> str | None:
    """The title in the document's properties, unless a program made it up."""
    root = archive.xml("docProps/core.xml")
    title = (root.findtext(_CORE_TITLE) or "").strip() if root is not None else ""
    return None if not title or title.startswith(_PROGRAM_TITLES) else title


def legacy_office(data: bytes) -> DocumentRejected:
    """The error for an OLE file in the place of an OOXML document."""
    if ENCRYPTED_PACKAGE in data:
        return rejected("document_encrypted")
    return rejected(
        "document_unreadable", "The file is of an older Office format; save it as DOCX, XLSX or PPTX and send that."
    )
