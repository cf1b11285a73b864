"""PPTX: a section a slide, what is seen on it, and what is said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ingestion.parse.document import LeftOut
from tests.ingestion.parse.packing import office, packed, read, refusal, relationships

_A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
_P = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
_R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'


def words(text: str, properties: str = "", paragraph: str = "") -> str:
    return f"<a:p>{paragraph}<a:r><a:rPr {properties}/><a:t>{text}</a:t></a:r></a:p>"


def shape(*paragraphs: str, role: str = "", at: tuple[int, int] = (0, 0), hidden: bool = False) -> str:
    placeholder = f'<p:ph type="{role}"/>' if role else ""
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="1" name="x" hidden="{int(hidden)}"/><p:cNvSpPr/>'
        f"<p:nvPr>{placeholder}</p:nvPr></p:nvSpPr><p:spPr><a:xfrm><a:off x='{at[0]}' y='{at[1]}'/></a:xfrm></p:spPr>"
        f"<p:txBody>{''.join(paragraphs)}</p:txBody></p:sp>"
    )


def slide(*shapes: str, show: str = "1") -> str:
    return f'<p:sld {_A} {_P} {_R} show="{show}"><p:cSld><p:spTree>{"".join(shapes)}</p:spTree></p:cSld></p:sld>'


def deck(*slides: str, others: Mapping[str, str] = MappingProxyType({})) -> bytes:
    ids = "".join(f'<p:sldId id="{i}" r:id="s{i}"/>' for i in range(len(slides)))
    size = '<p:sldSz cx="9000000" cy="6000000"/>'
    root = f"<p:presentation {_P} {_R}><p:sldIdLst>{ids}</p:sldIdLst>{size}</p:presentation>"
    parts = {
        "ppt/presentation.xml": root,
        "ppt/_rels/presentation.xml.rels": relationships(
            **{f"s{i}": ("slide", f"slides/slide{i}.xml") for i in range(len(slides))}
        ),
        **{f"ppt/slides/slide{i}.xml": content for i, content in enumerate(slides)},
        **others,
    }
    return office(parts, "ppt/presentation.xml")


def test_a_section_a_slide_with_its_number_as_page():
    data = deck(
        slide(shape(words("Fares"), role="title"), shape(words("Adults pay four euros."), at=(0, 900))),
        slide(shape(words("Children ride free."))),
    )
    document = read("deck.pptx", data)
    assert document.format == "pptx"
    assert document.pages == 2
    assert [(b.kind, b.page, document.text[b.start : b.end]) for b in document.blocks] == [
        ("heading", 1, "Fares"),
        ("paragraph", 1, "Adults pay four euros."),
        ("heading", 2, "Slide 2"),
        ("paragraph", 2, "Children ride free."),
    ]


def test_shapes_are_read_from_top_to_bottom_and_lists_keep_their_marks():
    level = "<a:pPr lvl='1'/>"
    data = deck(
        slide(
            shape(words("below"), at=(0, 4_000_000)),
            shape(words("right"), at=(5_000_000, 1_010_000)),
            shape(words("left"), at=(10, 1_000_000)),
            shape(words("First", paragraph="<a:pPr><a:buChar char='x'/></a:pPr>"), words("inner", paragraph=level)),
        )
    )
    assert read("deck.pptx", data).text == "Slide 1\n\n- First\n  - inner\n\nleft\n\nright\n\nbelow"


def test_tables_and_notes():
    cell = "<a:tc><a:txBody>{}</a:txBody></a:tc>"
    rows = [["Line", "Price"], ["Red", "4"]]
    table = "".join(f"<a:tr>{''.join(cell.format(words(text)) for text in row)}</a:tr>" for row in rows)
    frame = (
        "<p:graphicFrame><p:nvGraphicFramePr><p:cNvPr id='2' name='t'/><p:nvPr/></p:nvGraphicFramePr>"
        f"<a:graphic><a:graphicData><a:tbl>{table}</a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    )
    said = shape(words("Say it slowly."), role="body") + shape(words("3"), role="sldNum")
    notes = f"<p:notes {_A} {_P}><p:cSld><p:spTree>{said}</p:spTree></p:cSld></p:notes>"
    data = deck(
        slide(frame),
        others={
            "ppt/slides/_rels/slide0.xml.rels": relationships(n1=("notesSlide", "../notesSlides/notes1.xml")),
            "ppt/notesSlides/notes1.xml": notes,
        },
    )
    table_text = "| Line | Price |\n| --- | --- |\n| Red | 4 |"
    assert read("deck.pptx", data).text == f"Slide 1\n\n{table_text}\n\nNotes: Say it slowly."


def test_what_nobody_sees_is_left_out():
    data = deck(
        slide(
            shape(words("seen")),
            shape(words("hidden shape"), hidden=True),
            shape(words("tiny", 'sz="100"')),
            shape(words("beside"), at=(9_500_000, 0)),
        ),
        slide(shape(words("hidden slide")), show="0"),
    )
    document = read("deck.pptx", data)
    assert document.text == "Slide 1\n\nseen"
    assert document.left_out == (LeftOut("slide 2", "hidden"),)


def test_a_deck_of_pictures_needs_recognition_and_one_of_nothing_is_empty():
    assert refusal("a.pptx", deck(slide(), others={"ppt/media/image1.png": "x"})) == "needs_ocr"
    assert refusal("a.pptx", deck(slide())) == "document_empty"


def test_the_title_is_that_of_the_first_slide():
    properties = {
        "docProps/core.xml": '<p xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Template</dc:title></p>'
    }
    assert read("a.pptx", deck(slide(shape(words("Fares"), role="title")), others=properties)).title == "Fares"
    assert read("a.pptx", deck(slide(shape(words("Words"))), others=properties)).title == "Template"
    assert read("a.pptx", deck(slide(shape(words("Words"))))).title is None


def test_a_damaged_slide_does_not_take_the_others_with_it():
    document = read("deck.pptx", deck(slide(shape(words("sound"))), "<p:sld"))
    assert document.text == "Slide 1\n\nsound"
    assert document.left_out == (LeftOut("slide 2", "document_unreadable"),)


def test_what_cannot_be_read_has_its_own_code():
    assert refusal("a.pptx", b"") == "document_empty"
    assert refusal("a.pptx", b"an error page") == "document_unreadable"
    assert refusal("a.pptx", packed({"ppt/x.xml": "<x/>"})) == "document_unreadable"
    assert refusal("a.pptx", deck('<!DOCTYPE a [<!ENTITY b "c">]>' + slide())) == "xml_entities"
    assert refusal("a.pptx", deck(slide(shape(words("x" * 3_000_000))))) == "archive_bomb"
    assert refusal("a.pptx", deck(slide("<p:grpSp>" * 3000 + "</p:grpSp>" * 3000))) == "nested_too_deeply"
