"""DOCX by python-docx: Word's own styles for title, headings, lists and tables."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime

from docx import Document
from docx.enum.table import WD_TABLE_ALIGNMENT
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor
from docx.table import Table as DocxTable
from docx.text.paragraph import Paragraph as DocxParagraph

from rendering.source import Element, Source, Span, column_widths, control_rows, number_columns

ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def add_spans(paragraph: DocxParagraph, spans: Sequence[Span]) -> None:
    """Append styled runs."""
    for span in spans:
        run = paragraph.add_run(span.text)
        run.bold, run.italic = span.bold or None, span.italic or None


def shade(table: DocxTable, accent: str) -> None:
    """Colour the first row and mark it as a header that repeats on each page."""
    row = table.rows[0]
    row._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))
    for cell in row.cells:
        fill = OxmlElement("w:shd")
        for key, value in (("val", "clear"), ("color", "auto"), ("fill", accent)):
            fill.set(qn(f"w:{key}"), value)
        cell._tc.get_or_add_tcPr().append(fill)
        for run in cell.paragraphs[0].runs:
            run.bold, run.font.color.rgb = True, RGBColor(255, 255, 255)


def docx_table(document: Document, element: Element, width: float) -> DocxTable:
    """A grid table with column widths in centimetres."""
    table = document.add_table(len(element.rows), len(element.rows[0]), style="Table Grid")
    table.alignment, table.autofit = WD_TABLE_ALIGNMENT.LEFT, False
    widths, right = column_widths(element, width), number_columns(element)
    for row, cells in zip(table.rows, element.rows, strict=True):
        # A row stays on one page: half a row at the foot of a page is easily misread.
        row._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))
        for index, (cell, spans) in enumerate(zip(row.cells, cells, strict=True)):
            paragraph, cell.width = cell.paragraphs[0], Cm(widths[index])
            add_spans(paragraph, spans)
            paragraph.paragraph_format.space_after = Pt(2)
            if index in right:
                paragraph.alignment = WD_ALIGN_PARAGRAPH.RIGHT
    return table


def new_docx(source: Source) -> Document:
    """An A4 document with styles, properties, running header and page number set."""
    document = Document()
    meta, house = source.meta, source.house
    accent = RGBColor.from_string(house.accent)
    for style, size in (("Title", 24), ("Heading 1", 15), ("Heading 2", 12)):
        document.styles[style].font.size = Pt(size)
        document.styles[style].font.color.rgb = accent
    document.styles["Normal"].font.name, document.styles["Normal"].font.size = "Calibri", Pt(10.5)
    section = document.sections[0]
    section.page_width, section.page_height = Cm(21), Cm(29.7)
    section.left_margin = section.right_margin = Cm(2.3)
    section.header.paragraphs[0].text = f"{house.name}\t\t{meta['number']}, revision {meta['revision']}"
    footer = section.footer.paragraphs[0]
    footer.text = "Page "
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), "PAGE")
    footer._p.append(field)
    properties, day = document.core_properties, datetime.strptime(meta["effective"], "%d %B %Y").replace(tzinfo=UTC)
    properties.title, properties.subject, properties.comments = meta["title"], meta["number"], ""
    properties.author = properties.last_modified_by = house.name
    properties.created = properties.modified = day.replace(tzinfo=None)
    return document


def freeze_zip(data: bytes) -> bytes:
    """The same archive with one fixed time on all members."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name, ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, old.read(name))
    return target.getvalue()


def render_docx(source: Source) -> bytes:
    """Word styles for title, headings and lists, so that the structure survives in any reader."""
    document, width = new_docx(source), 21 - 2 * 2.3
    document.add_paragraph(source.meta["title"], style="Title")
    control = document.add_table(0, 2)
    for label, text in control_rows(source.meta):
        cells = control.add_row().cells
        cells[0].text, cells[1].text = label, text
        cells[0].width, cells[1].width = Cm(3.5), Cm(width - 3.5)
        for cell in cells:
            cell.paragraphs[0].paragraph_format.space_after = Pt(0)
    if sum(element.kind == "numbers" for element in source.elements) > 1:
        raise ValueError("a second numbered list would go on counting from the first; restart is not implemented")
    lists = {"bullets": "List Bullet", "numbers": "List Number"}
    for element in source.elements:
        if element.kind == "heading":
            add_spans(document.add_paragraph(style=f"Heading {element.level}"), element.rows[0][0])
        elif element.kind == "paragraph":
            add_spans(document.add_paragraph(), element.rows[0][0])
        elif element.kind == "table":
            shade(docx_table(document, element, width), source.house.accent)
            document.add_paragraph().paragraph_format.space_after = Pt(2)
        else:
            for row in element.rows:
                add_spans(document.add_paragraph(style=lists[element.kind]), row[0])
    target = io.BytesIO()
    document.save(target)
    return freeze_zip(target.getvalue())
