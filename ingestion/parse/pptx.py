"""PPTX: slide by slide, each under its title, with its tables, diagrams and the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ingestion.parse.archive import Archive
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import BlockKind, ParsedDocument, TextLimits
from ingestion.parse.office import OLE, Relation, core_title, legacy_office, main_part, relations
from ingestion.parse.pptx_shapes import A, P, Shape, list_or_paragraph, paragraph_lines, shapes_of, table_rows
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.tables import markdown_table
from ingestion.parse.xml_tree import attribute
from tenants.errors import DocumentRejected

_WHAT = "PowerPoint presentation"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_TITLES = frozenset({"title", "ctrTitle"})
_UNSAID = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})
"""Placeholders of date, footer, header, number and the slide's own picture."""


def parse_pptx(data: bytes, limits: TextLimits) -> ParsedDocument:
    """A section a slide; its number is the page.

    Hidden slides are left out and said to be so; hidden shapes, shapes beside the slide, type of 1 pt and less,
    alternative texts and comments are left out. Raises DocumentRejected, see `Archive`.
    """
    if not data:
        raise empty_document()
    if data.startswith(OLE):
        raise legacy_office(data)
    archive = Archive(data, limits, what=_WHAT)
    main = main_part(archive, "ppt/presentation.xml")
    root = archive.xml(main)
    if root is None:
        raise damaged(_WHAT)
    builder = DocumentBuilder("pptx", limits)
    parts = [relation.target for relation in _slides(archive, main, root)]
    if len(parts) > limits.max_pages:
        raise rejected("document_too_long", f"There are more than {limits.max_pages:,} slides; send them in parts.")
    size = root.find(P + "sldSz")
    extent = (_number(size, "cx"), _number(size, "cy"))
    first_title = ""
    for number, part in enumerate(parts, start=1):
        try:
            title = _add_slide(builder, archive, part, number, extent)
            first_title = first_title or (title if number == 1 else "")
        except RecursionError as error:
            raise rejected("nested_too_deeply") from error
        except DocumentRejected as error:
            if error.code != "document_unreadable":
                raise
            builder.leave_out(f"slide {number}", error.code)
    if builder.empty and any(name.startswith("ppt/media/") for name in archive.names):
        raise rejected("needs_ocr")
    builder.title = first_title or core_title(archive) or ""
    return builder.build(pages=len(parts))


def _slides(archive: Archive, main: str, root: Element) -> list[Relation]:
    related = relations(archive, main)
    wanted = (related.get(element.get(_ID, "")) for element in root.iterfind(f"{P}sldIdLst/{P}sldId"))
    return [relation for relation in wanted if relation is not None and relation.target in archive.names]


def _add_slide(builder: DocumentBuilder, archive: Archive, part: str, number: int, extent: tuple[int, int]) -> str:
    """Add a slide that has any words; its title, "" for none."""
    slide = archive.xml(part)
    if slide is None:
        return ""
    if slide.get("show") in ("0", "false"):
        builder.leave_out(f"slide {number}", "hidden")
        return ""
    tree = slide.find(f"{P}cSld/{P}spTree")
    shapes = [] if tree is None else list(shapes_of(tree, extent))
    titles = [shape for shape in shapes if shape.placeholder in _TITLES]
    title = " ".join(" ".join(text for _, text in paragraph_lines(shape.element)) for shape in titles)
    related = relations(archive, part)
    blocks: list[tuple[BlockKind, str]] = []
    for shape in shapes:
        if shape.placeholder not in _TITLES and shape.placeholder not in _UNSAID:
            blocks += _shape_blocks(archive, related, shape)
    for relation in related.values():
        if relation.kind == "notesSlide":
            blocks += _notes(archive, relation.target)
    if title or any(text for _, text in blocks):
        builder.add("heading", title or f"Slide {number}", level=1, page=number)
    for kind, text in blocks:
        builder.add(kind, text, page=number)
    return title


def _shape_blocks(archive: Archive, related: dict[str, Relation], shape: Shape) -> Iterator[tuple[BlockKind, str]]:
    table = next(shape.element.iter(A + "tbl"), None)
    if table is not None:
        yield "table", markdown_table(table_rows(table))
        return
    for holder in shape.element.iterfind(f"{A}graphic/{A}graphicData/*"):
        data = related.get(attribute(holder, "dm"))
        diagram = archive.xml(data.target) if data is not None else None
        if diagram is not None:
            yield list_or_paragraph([(0, text) for _, text in paragraph_lines(diagram)])
    if shape.element.tag == P + "sp":
        yield list_or_paragraph(paragraph_lines(shape.element))


def _notes(archive: Archive, part: str) -> Iterator[tuple[BlockKind, str]]:
    notes = archive.xml(part)
    tree = None if notes is None else notes.find(f"{P}cSld/{P}spTree")
    for shape in () if tree is None else shapes_of(tree, (0, 0)):
        if shape.placeholder not in _UNSAID:
            text = "\n".join(text for _, text in paragraph_lines(shape.element))
            yield "paragraph", f"Notes: {text}" if text else ""


def _number(element: Element | None, name: str) -> int:
    text = "" if element is None else element.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 12 else 0
