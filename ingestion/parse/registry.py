"""Every parser by the format it reads, and how a file within a file finds its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ingestion.parse.detect import HEAD_BYTES, detect_format
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.docx import parse_docx
from ingestion.parse.eml import parse_eml
from ingestion.parse.epub import parse_epub
from ingestion.parse.html import parse_html
from ingestion.parse.msg import parse_msg
from ingestion.parse.odf import parse_odp, parse_ods, parse_odt
from ingestion.parse.pdf import parse_pdf
from ingestion.parse.pptx import parse_pptx
from ingestion.parse.rtf import parse_rtf
from ingestion.parse.spreadsheet import parse_xls, parse_xlsx
from ingestion.parse.text_registry import TEXT_PARSERS, Parser
from ingestion.parse.xml_document import parse_xml_document
from ingestion.parse.zip_files import parse_zip


def parse_part(name: str, data: bytes, limits: TextLimits, declared: str | None = None) -> ParsedDocument:
    """Parse a file that lies in another. Raises DocumentRejected, UnsupportedType."""
    format_name = detect_format(data[:HEAD_BYTES], name, declared, data[-HEAD_BYTES:])
    return PARSERS[format_name](data, limits)


PARSERS: Mapping[str, Parser] = {
    **TEXT_PARSERS,
    "html": parse_html,
    "pdf": parse_pdf,
    "docx": parse_docx,
    "pptx": parse_pptx,
    "xlsx": parse_xlsx,
    "xls": parse_xls,
    "odt": parse_odt,
    "ods": parse_ods,
    "odp": parse_odp,
    "rtf": parse_rtf,
    "epub": parse_epub,
    "xml": parse_xml_document,
    "eml": partial(parse_eml, parse_part),
    "msg": partial(parse_msg, parse_part),
    "zip": partial(parse_zip, parse_part),
}
