"""PDF by ReportLab: A4 pages with outline, repeated table headers and page numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from xml.sax.saxutils import escape

from reportlab.lib.colors import Color, HexColor, white
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    ListFlowable,
    ListItem,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from rendering.source import Element, Source, Span, column_widths, control_rows, number_columns


def markup(spans: Sequence[Span]) -> str:
    """Spans in ReportLab's paragraph markup."""
    parts = []
    for span in spans:
        text = escape(span.text)
        text = f"<b>{text}</b>" if span.bold else text
        parts.append(f"<i>{text}</i>" if span.italic else text)
    return "".join(parts)


def pdf_styles(accent: Color) -> dict[str, ParagraphStyle]:
    """Paragraph styles by name."""
    body = ParagraphStyle("body", fontName="Helvetica", fontSize=10, leading=13.8, spaceAfter=5)
    cell = ParagraphStyle("cell", parent=body, fontSize=9, leading=11.5, spaceAfter=0)
    head = {"fontName": "Helvetica-Bold", "textColor": accent, "keepWithNext": 1}
    th = ParagraphStyle("th", parent=cell, fontName="Helvetica-Bold", textColor=white)
    return {
        "body": body,
        "item": ParagraphStyle("item", parent=body, spaceAfter=2),
        "cell": cell,
        "cell-right": ParagraphStyle("cell-right", parent=cell, alignment=TA_RIGHT),
        "th": th,
        "th-right": ParagraphStyle("th-right", parent=th, alignment=TA_RIGHT),
        "label": ParagraphStyle("label", parent=cell, textColor=HexColor("#5B6470")),
        "title": ParagraphStyle("title", parent=body, **head, fontSize=22, leading=27, spaceAfter=8),
        "h1": ParagraphStyle("h1", parent=body, **head, fontSize=14, leading=18, spaceBefore=9, spaceAfter=5),
        "h2": ParagraphStyle("h2", parent=body, **head, fontSize=11, leading=15, spaceBefore=6, spaceAfter=3),
    }


class Heading(Paragraph):
    """A heading that also appears in the PDF's outline."""

    def __init__(self, text: str, style: ParagraphStyle, level: int) -> None:
        super().__init__(text, style)
        self.outline = (text, level)

    def draw(self) -> None:
        """Draw the text and register the outline entry at this spot."""
        text, level = self.outline
        self.canv.bookmarkPage(text)
        self.canv.addOutlineEntry(text.replace("&amp;", "&"), text, level - 1)
        super().draw()


class PagedCanvas(Canvas):
    """Holds all pages back until their number is known, for "Page 1 of 3"."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.held: list[dict[str, object]] = []

    def showPage(self) -> None:
        """Keep the finished page."""
        self.held.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Number and write the pages."""
        for number, state in enumerate(self.held, start=1):
            self.__dict__.update(state)
            self.setFont("Helvetica", 8)
            self.setFillColor(HexColor("#5B6470"))
            self.drawRightString(A4[0] - 2.2 * cm, 1.3 * cm, f"Page {number} of {len(self.held)}")
            super().showPage()
        super().save()


def pdf_table(element: Element, styles: dict[str, ParagraphStyle], accent: Color, width: float) -> Table:
    """A table whose first row is repeated on each page it reaches."""
    right = number_columns(element)
    rows = [
        [
            Paragraph(markup(cell), styles[("cell" if number else "th") + ("-right" if index in right else "")])
            for index, cell in enumerate(row)
        ]
        for number, row in enumerate(element.rows)
    ]
    table = Table(rows, colWidths=column_widths(element, width), repeatRows=1, spaceBefore=3, spaceAfter=10)
    line = HexColor("#C9CFD6")
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), accent),
                ("ROWBACKGROUNDS", (0, 1), (-1, -1), [white, HexColor("#F3F5F7")]),
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, line),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 3.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5),
            ]
        )
    )
    return table


def room_below(elements: Sequence[Element]) -> float:
    """Points that the heading `elements[0]` needs on its page, so as never to stand alone at the foot of it."""
    for count, element in enumerate(elements):
        if element.kind == "table":
            return (1 + 0.9 * count + 0.7 * min(len(element.rows), 6)) * cm
        if element.kind != "heading":
            return (1.5 + 0.9 * count) * cm
    return 0


def pdf_flow(source: Source, width: float) -> list[Flowable]:
    """The document as ReportLab flowables."""
    accent = HexColor(f"#{source.house.accent}")
    styles = pdf_styles(accent)
    flow: list[Flowable] = [Paragraph(escape(source.meta["title"]), styles["title"])]
    control = [
        [Paragraph(label, styles["label"]), Paragraph(escape(text), styles["cell"])]
        for label, text in control_rows(source.meta)
    ]
    box = Table(control, colWidths=[3.2 * cm, width - 3.2 * cm], spaceAfter=8)
    box.setStyle(TableStyle([("LINEBELOW", (0, -1), (-1, -1), 1, accent), ("TOPPADDING", (0, 0), (-1, -1), 1)]))
    flow.append(box)
    for index, element in enumerate(source.elements):
        if element.kind == "heading":
            style = styles[f"h{min(element.level, 2)}"]
            flow.append(CondPageBreak(room_below(source.elements[index:])))
            flow.append(Heading(markup(element.rows[0][0]), style, element.level))
        elif element.kind == "paragraph":
            flow.append(Paragraph(markup(element.rows[0][0]), styles["body"]))
        elif element.kind == "table":
            flow.append(pdf_table(element, styles, accent, width))
        else:
            ordered = element.kind == "numbers"
            items = [ListItem(Paragraph(markup(row[0]), styles["item"])) for row in element.rows]
            look = {"bulletType": "1", "bulletFormat": "%s."} if ordered else {"bulletType": "bullet"}
            start = {} if ordered else {"start": "•"}
            flow.append(ListFlowable(items, leftIndent=16, bulletFontSize=10, **look, **start))
            flow.append(Spacer(1, 3))
    return flow


def render_pdf(source: Source) -> bytes:
    """A4 pages with running header and footer; `invariant` freezes dates and the document id."""
    target = io.BytesIO()
    meta, house = source.meta, source.house

    def furnish(canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(HexColor("#5B6470"))
        canvas.drawString(2.2 * cm, A4[1] - 1.4 * cm, house.name)
        canvas.drawRightString(A4[0] - 2.2 * cm, A4[1] - 1.4 * cm, meta["title"])
        canvas.drawString(2.2 * cm, 1.3 * cm, f"{meta['number']}, revision {meta['revision']}")

    document = BaseDocTemplate(
        target, pagesize=A4, title=meta["title"], author=house.name, subject=meta["number"], invariant=1, lang="en"
    )
    frame = Frame(2.2 * cm, 1.9 * cm, A4[0] - 4.4 * cm, A4[1] - 3.9 * cm, 0, 0, 0, 0)
    document.addPageTemplates(PageTemplate("page", [frame], onPage=furnish))
    document.build(pdf_flow(source, A4[0] - 4.4 * cm), canvasmaker=PagedCanvas)
    return target.getvalue()
