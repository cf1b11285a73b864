"""The visible words of one WordprocessingML paragraph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from ingestion.parse.docx_styles import Style, W, integer, is_on, value

_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_TRANSPARENT = frozenset(
    W + name
    for name in ("hyperlink", "ins", "moveTo", "smartTag", "sdt", "sdtContent", "fldSimple", "customXml", "dir", "bdo")
)
WRAPPERS = frozenset(W + name for name in ("sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag"))
"""Elements between the body and its blocks that change nothing."""
_HOLDERS = WRAPPERS | {W + "tbl", W + "tr", W + "tc"}
_BOX = W + "txbxContent"
_SMALLEST_HALF_POINTS = 2
_LITERALS = {
    W + "tab": " ",
    W + "br": "\n",
    W + "cr": "\n",
    W + "noBreakHyphen": "-",
    W + "ptab": " ",
}


@dataclass
class Spans:
    """What a paragraph holds: words, text boxes, and references to notes by (kind, id)."""

    words: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The words joined as they stand."""
        return "".join(self.words)


def words_of(paragraph: Element, styles: dict[str, Style], *, in_table: bool = False) -> Spans:
    """Everything a reader sees in a paragraph; deletions, field codes and hidden runs are left out."""
    spans = Spans()
    properties = paragraph.find(W + "pPr")
    style = styles.get((value(properties, "pStyle") or "") if properties is not None else "")
    if style is not None and style.vanish:
        return spans
    # White words are legible on a dark ground, which tables often have by a style we do not follow.
    shaded = in_table or (properties is not None and _is_shaded(properties))
    _gather(paragraph, spans, styles, shaded=shaded)
    return spans


def paragraphs_in(parent: Element) -> Iterator[Element]:
    """Every paragraph below `parent`, those of tables included, those of text boxes not."""
    for element in parent:
        if element.tag == W + "p":
            yield element
        elif element.tag in _HOLDERS:
            yield from paragraphs_in(element)


def lines_of(text: str) -> list[str]:
    """Lines with blanks collapsed, without empty ones."""
    return [line for line in (" ".join(raw.split()) for raw in text.split("\n")) if line]


def _gather(parent: Element, spans: Spans, styles: dict[str, Style], *, shaded: bool) -> None:
    for element in parent:
        tag = element.tag
        if tag == W + "r":
            if not _hidden(element.find(W + "rPr"), styles, shaded=shaded):
                _run(element, spans, styles, shaded=shaded)
        elif tag in _TRANSPARENT:
            _gather(element, spans, styles, shaded=shaded)
        elif tag.startswith(_MATH):
            spans.words.extend(t.text or "" for t in element.iter(_MATH + "t"))
        elif tag == _MC + "AlternateContent":
            _alternate(element, spans, styles, shaded=shaded)


def _run(run: Element, spans: Spans, styles: dict[str, Style], *, shaded: bool) -> None:
    for element in run:
        tag = element.tag
        if tag == W + "t":
            spans.words.append(element.text or "")
        elif tag in _LITERALS:
            spans.words.append(_LITERALS[tag])
        elif tag in (W + "footnoteReference", W + "endnoteReference"):
            spans.notes.append((tag.removeprefix(W).removesuffix("Reference"), element.get(W + "id", "")))
        elif tag == _MC + "AlternateContent":
            _alternate(element, spans, styles, shaded=shaded)
        elif tag == W + "ruby":
            for base in element.iterfind(W + "rubyBase"):
                _gather(base, spans, styles, shaded=shaded)
        elif tag in (W + "drawing", W + "pict", W + "object"):
            spans.boxes.extend(_boxes(element))


def _boxes(parent: Element) -> Iterator[Element]:
    """The outermost text boxes of a drawing, without the fallbacks that repeat them."""
    for element in parent:
        if element.tag == _BOX:
            yield element
        elif element.tag != _MC + "Fallback":
            yield from _boxes(element)


def _alternate(element: Element, spans: Spans, styles: dict[str, Style], *, shaded: bool) -> None:
    """The same content in two spellings: only the first counts."""
    for choice in element:
        _run(choice, spans, styles, shaded=shaded)
        _gather(choice, spans, styles, shaded=shaded)
        return


def _hidden(properties: Element | None, styles: dict[str, Style], *, shaded: bool) -> bool:
    if properties is None:
        return False
    style = styles.get(value(properties, "rStyle") or "")
    if is_on(properties.find(W + "vanish")) or (style is not None and style.vanish):
        return True
    if integer(value(properties, "sz"), default=_SMALLEST_HALF_POINTS + 1) <= _SMALLEST_HALF_POINTS:
        return True
    white = (value(properties, "color") or "").upper() == "FFFFFF"
    return white and not shaded and not _is_shaded(properties) and properties.find(W + "highlight") is None


def _is_shaded(properties: Element) -> bool:
    shade = properties.find(W + "shd")
    return shade is not None and (shade.get(W + "fill") or "auto").upper() not in ("AUTO", "FFFFFF")
