"""The packaging of OpenDocument files."""

from __future__ import annotations

from ingestion.parse.archive import Archive
from ingestion.parse.document import TextLimits
from ingestion.parse.rejections import rejected
from ingestion.parse.xml_tree import local


def odf_archive(data: bytes, limits: TextLimits, *, what: str) -> Archive:
    """The parts of an OpenDocument file. Raises DocumentRejected, see `Archive`; document_encrypted, too."""
    archive = Archive(data, limits, what=what)
    manifest = archive.xml("META-INF/manifest.xml")
    if manifest is not None and any(local(element.tag) == "encryption-data" for element in manifest.iter()):
        raise rejected("document_encrypted")
    return archive
