"""ODT and ODP: headings, lists, tables, notes, hidden text; and packages that are refused."""

from __future__ import annotations

from ingestion.parse.document import LeftOut
from tests.ingestion.parse.packing import packed, read, refusal

_SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{place}:1.0"'
    for name, place in [
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("style", "style"),
        ("draw", "drawing"),
        ("fo", "xsl-fo-compatible"),
        ("presentation", "presentation"),
    ]
)
_STYLES = (
    '<style:style style:name="Gone"><style:text-properties text:display="none"/></style:style>'
    '<style:style style:name="White"><style:text-properties fo:color="#ffffff"/></style:style>'
    '<style:style style:name="Tiny"><style:text-properties fo:font-size="1pt"/></style:style>'
    '<style:style style:name="Child" style:parent-style-name="Gone"/>'
    '<style:style style:name="Hidden"><style:drawing-page-properties presentation:visibility="hidden"/></style:style>'
)


def document(body: str, kind: str = "text", **parts: str) -> bytes:
    content = (
        f"<office:document-content {_SPACES}><office:automatic-styles>{_STYLES}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    media = f"application/vnd.oasis.opendocument.{kind}"
    return packed({"mimetype": media, "content.xml": content, **{f"{name}.xml": part for name, part in parts.items()}})


def test_headings_paragraphs_lists_and_notes_in_order():
    note = "<text:note><text:note-body><text:p>See the map.</text:p></text:note-body></text:note>"
    data = document(
        '<text:h text:outline-level="1">Harbour</text:h>'
        f"<text:p>Boats<text:s text:c='3'/>leave<text:line-break/>hourly.{note}</text:p>"
        "<text:list><text:list-item><text:p>Red</text:p><text:list><text:list-item><text:p>fast</text:p></text:list-item>"
        "</text:list></text:list-item><text:list-item><text:p>Blue</text:p></text:list-item></text:list>"
    )
    parsed = read("a.odt", data)
    assert parsed.text == "Harbour\n\nBoats leave\nhourly.\n\n* See the map.\n\n- Red\n  - fast\n- Blue"
    assert [(b.kind, b.level) for b in parsed.blocks[:2]] == [("heading", 1), ("paragraph", 0)]
    assert (parsed.format, parsed.title) == ("odt", "Harbour")


def test_tables_repeat_what_is_merged_downwards():
    cell = "<table:table-cell{}><text:p>{}</text:p></table:table-cell>"
    spanned = cell.format(" table:number-rows-spanned='2'", "Red")
    rows = (
        f"<table:table-row>{cell.format('', 'Line')}{cell.format('', 'Day')}</table:table-row>"
        f"<table:table-row>{spanned}{cell.format('', 'Mon')}</table:table-row>"
        f"<table:table-row><table:covered-table-cell/>{cell.format('', 'Tue')}</table:table-row>"
    )
    parsed = read("a.odt", document(f"<table:table>{rows}</table:table>"))
    assert parsed.text == "| Line | Day |\n| --- | --- |\n| Red | Mon |\n| Red | Tue |"


def test_what_nobody_sees_is_left_out():
    spans = "".join(
        f'<text:span text:style-name="{name}">{name}-token</text:span>' for name in ("Gone", "White", "Tiny", "Child")
    )
    parsed = read(
        "a.odt",
        document(
            f"<text:p>Seen{spans}<office:annotation><text:p>comment-token</text:p></office:annotation></text:p>"
            "<text:tracked-changes><text:p>deleted-token</text:p></text:tracked-changes>"
            '<text:section text:display="none"><text:p>section-token</text:p></text:section>'
        ),
    )
    assert parsed.text == "Seen"


def test_headers_come_last_and_once():
    styles = (
        f"<office:document-styles {_SPACES}><style:header><text:p>Harbour board</text:p></style:header>"
        "<style:footer><text:p>Harbour board</text:p><text:p>7</text:p></style:footer></office:document-styles>"
    )
    assert read("a.odt", document("<text:p>Words.</text:p>", styles=styles)).text == "Words.\n\nHarbour board"


def test_slides_have_their_number_as_page_and_hidden_ones_are_named():
    frame = '<draw:frame presentation:class="{}"><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>'
    page = "<draw:page draw:style-name='{}'>{}</draw:page>"
    notes = f"<presentation:notes>{frame.format('notes', 'Slowly.')}</presentation:notes>"
    body = page.format("", frame.format("title", "Fares") + frame.format("outline", "Four euros.") + notes)
    parsed = read("a.odp", document(body + page.format("Hidden", frame.format("title", "Secret")), "presentation"))
    assert parsed.text == "Fares\n\nFour euros.\n\nNotes: Slowly."
    assert {block.page for block in parsed.blocks} == {1}
    assert (parsed.pages, parsed.left_out) == (2, (LeftOut("slide 2", "hidden"),))


def test_what_cannot_be_read_has_its_own_code():
    locked = '<m:manifest xmlns:m="m"><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>'
    parts = {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<a/>"}
    assert refusal("a.odt", packed({**parts, "META-INF/manifest.xml": locked})) == "document_encrypted"
    assert refusal("a.odt", packed(parts)) == "document_unreadable"
    assert refusal("a.odt", packed({**parts, "content.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a/>'})) == "xml_entities"
    assert refusal("a.odt", b"not a package") == "document_unreadable"
    assert refusal("a.odt", document("")) == "document_empty"
    assert refusal("a.odt", document("<text:section>" * 3000 + "</text:section>" * 3000)) == "nested_too_deeply"


def test_an_old_manifest_with_a_document_type_is_read():
    manifest = (
        '<!DOCTYPE m:manifest PUBLIC "-//OpenOffice.org//DTD Manifest 1.0//EN" "Manifest.dtd"><m:manifest xmlns:m="m"/>'
    )
    content = read("a.odt", document("<text:p>Words.</text:p>", **{"META-INF/manifest": manifest}))
    assert content.text == "Words."
