"""DOCX: headings by style, lists counted, tables, notes, hidden text; and archives that are refused."""

from __future__ import annotations

import io
import zipfile

import pytest

from ingestion.parse.document import MAX_ENTRIES, ParsedDocument, TextLimits
from ingestion.parse.docx import parse_docx
from tenants.errors import DocumentRejected

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
_STYLES = f"""<w:styles {_W}>
<w:style w:type="paragraph" w:styleId="T"><w:name w:val="Title"/></w:style>
<w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Own"><w:name w:val="Chapter"/><w:basedOn w:val="H1"/></w:style>
<w:style w:type="paragraph" w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>
<w:style w:type="paragraph" w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>
<w:style w:type="character" w:styleId="Secret"><w:name w:val="Secret"/><w:rPr><w:vanish/></w:rPr></w:style>
</w:styles>"""
_NUMBERING = f"""<w:numbering {_W}>
<w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl>
<w:lvl w:ilvl="1"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>
<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
</w:numbering>"""


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>"


def paragraph(text: str = "", style: str = "", properties: str = "", inner: str = "") -> str:
    styled = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{styled}{properties}</w:pPr>{run(text) if text else ''}{inner}</w:p>"


def item(text: str, number: int, level: int = 0) -> str:
    return paragraph(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def table(*rows: list[str]) -> str:
    cells = ["".join(c if c.startswith("<w:tc>") else f"<w:tc>{paragraph(c)}</w:tc>" for c in row) for row in rows]
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def archive(body: str = "", **parts: str | bytes) -> bytes:
    named = {
        "word/document.xml": f"<w:document {_W} {_MC}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": _STYLES,
        "word/numbering.xml": _NUMBERING,
        **{name.replace("__", "/") + ".xml": content for name, content in parts.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in named.items():
            file.writestr(name, content)
    return buffer.getvalue()


def docx(body: str, **parts: str | bytes) -> ParsedDocument:
    return parse_docx(archive(body, **parts), TextLimits())


def shown(parsed: ParsedDocument) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks]


def rejection(data: bytes, limits: TextLimits | None = None) -> str:
    with pytest.raises(DocumentRejected) as caught:
        parse_docx(data, limits or TextLimits())
    return caught.value.code


def test_headings_lists_and_tables():
    parsed = docx(
        paragraph("The handbook", "T")
        + paragraph("Leave", "H1")
        + paragraph("Twenty five days.")
        + paragraph("Pay", "Own")
        + paragraph("Outlined", properties='<w:outlineLvl w:val="2"/>')
        + item("rail", 1)
        + item("first", 1, 1)
        + item("second", 1, 1)
        + item("bus", 1)
        + item("anew", 1, 1)
        + paragraph("Then:")
        + item("one", 2)
        + item("two", 2)
        + table(["Zone", "Price"], ["A|B", "3"])
        + paragraph("Leave . . . 3", "TOC1")
        + paragraph("Body", "Loop")
    )
    assert shown(parsed) == [
        ("heading", 1, "The handbook"),
        ("heading", 1, "Leave"),
        ("paragraph", 0, "Twenty five days."),
        ("heading", 1, "Pay"),
        ("heading", 3, "Outlined"),
        ("list", 0, "- rail\n  1. first\n  2. second\n- bus\n  1. anew"),
        ("paragraph", 0, "Then:"),
        ("list", 0, "1. one\n2. two"),
        ("table", 0, "| Zone | Price |\n| --- | --- |\n| A\\|B | 3 |"),
        ("paragraph", 0, "Body"),
        ("heading", 1, ""),
    ]
    assert parsed.title == "The handbook"


def test_merged_cells_are_repeated_downwards_and_blank_sideways():
    merged = "<w:tc><w:tcPr><w:vMerge{}/></w:tcPr>{}</w:tc>"
    wide = f'<w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr>{paragraph("all day")}</w:tc>'
    rows = [
        [merged.format(' w:val="restart"', paragraph("A")), "Mon", "3"],
        [merged.format("", paragraph()), "Tue", "4"],
        ["B", wide],
    ]
    assert "| A | Mon | 3 |\n| --- | --- | --- |\n| A | Tue | 4 |\n| B | all day |  |" in docx(table(*rows)).text


def test_content_controls_insertions_and_links_are_text_and_deletions_are_not():
    body = (
        f"<w:sdt><w:sdtContent>{paragraph('controlled')}</w:sdtContent></w:sdt>"
        + paragraph(inner=f"<w:ins>{run('new ')}</w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>")
        + paragraph(inner=f"<w:hyperlink>{run('link')}</w:hyperlink><w:r><w:instrText>HYPERLINK x</w:instrText></w:r>")
        + paragraph(inner="<w:r><w:t>non</w:t><w:noBreakHyphen/><w:t>stop</w:t></w:r>")
        + paragraph(inner="<w:r><w:t>a</w:t><w:tab/><w:t>x</w:t><w:br/><w:t>y</w:t></w:r>")
    )
    assert docx(body).text == "controlled\n\nnew\n\nlink\n\nnon-stop\n\na x\ny"


def test_hidden_text_is_left_out():
    white = '<w:color w:val="FFFFFF"/>'
    body = (
        paragraph(inner=run("shown") + run("h1", "<w:vanish/>") + run("h2", white) + run("h3", '<w:sz w:val="2"/>'))
        + paragraph(inner=run("h4", '<w:rStyle w:val="Secret"/>') + run("on", '<w:vanish w:val="0"/>'))
        + paragraph(inner=run("dark ground", f'{white}<w:shd w:fill="000000"/>'))
        + table([f"<w:tc>{paragraph(inner=run('Head', white))}</w:tc>", "Other"], ["1", "2"])
    )
    assert docx(body).text == "shown\n\non\n\ndark ground\n\n| Head | Other |\n| --- | --- |\n| 1 | 2 |"


def test_notes_follow_what_they_explain_and_boxes_come_once():
    box = f"<w:txbxContent>{paragraph('boxed')}</w:txbxContent>"
    alternate = (
        f"<mc:AlternateContent><mc:Choice><w:drawing>{box}</w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent>"
    )
    grouped = f"<w:drawing><w:group>{alternate.replace('boxed', 'grouped')}</w:group></w:drawing>"
    parsed = docx(
        paragraph("Body", inner='<w:r><w:footnoteReference w:id="2"/></w:r>')
        + paragraph("Next", inner=f"<w:r>{alternate}</w:r><w:r>{grouped}</w:r>"),
        word__footnotes=f'<w:footnotes {_W}><w:footnote w:id="2">{paragraph("the note")}</w:footnote></w:footnotes>',
    )
    assert parsed.text == "Body\n\n* the note\n\nNext\n\nboxed\n\ngrouped"


def test_headers_and_footers_come_last_once_and_belong_to_no_section():
    header = f"<w:hdr {_W}>{paragraph('Acme Ltd')}{paragraph('7')}</w:hdr>"
    parsed = docx(paragraph("Leave", "H1") + paragraph("Days."), word__header1=header, word__header2=header)
    assert shown(parsed)[2:] == [("heading", 1, ""), ("paragraph", 0, "Acme Ltd")]


def test_the_title_of_the_properties_is_the_last_resort():
    core = '<p xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{}</dc:title></p>'
    assert docx(paragraph("x"), docProps__core=core.format("Rules")).title == "Rules"
    assert docx(paragraph("Top", "H1") + paragraph("x"), docProps__core=core.format("Rules")).title == "Top"
    assert docx(paragraph("x"), docProps__core=core.format("Microsoft Word - x.doc")).title is None


def test_strict_documents_and_moved_main_parts_are_read():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(
            "_rels/.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Type="http://purl.oclc.org/ooxml/officeDocument/relationships/officeDocument"'
            ' Target="/word/document2.xml"/></Relationships>',
        )
        namespace = 'xmlns:w="http://purl.oclc.org/ooxml/wordprocessingml/main"'
        file.writestr(
            "word/document2.xml", f"<w:document {namespace}><w:body>{paragraph('strict')}</w:body></w:document>"
        )
    assert parse_docx(buffer.getvalue(), TextLimits()).text == "strict"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "document_empty"),
        (archive(paragraph(" ")), "document_empty"),
        (b"PK\x03\x04 not a zip", "document_unreadable"),
        (archive(paragraph("x"))[:-40], "document_unreadable"),
        (archive("<w:p>"), "document_unreadable"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "document_encrypted"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 WordDocument", "document_unreadable"),
    ],
)
def test_what_cannot_be_read_has_its_own_code(data: bytes, code: str):
    assert rejection(data) == code


def test_a_zip_without_a_document_is_unreadable():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme.txt", "x")
    assert rejection(buffer.getvalue()) == "document_unreadable"


def test_a_text_over_the_limit_is_too_long():
    assert rejection(archive(paragraph("word " * 50)), TextLimits(max_text_chars=100)) == "document_too_long"


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/evil.xml", "word\\..\\..\\evil.xml", "C:evil.xml"])
def test_names_that_leave_the_archive_are_refused(name: str):
    buffer = io.BytesIO(archive(paragraph("x")))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr(zipfile.ZipInfo(name), "x")
    assert rejection(buffer.getvalue()) == "unsafe_path"


def test_too_many_parts_are_refused():
    buffer = io.BytesIO(archive(paragraph("x")))
    with zipfile.ZipFile(buffer, "a") as file:
        for i in range(MAX_ENTRIES):
            file.writestr(f"media/{i}", "")
    assert rejection(buffer.getvalue()) == "archive_too_many_entries"


def test_an_expanding_part_is_refused_by_its_declared_size():
    assert rejection(archive(paragraph("a" * 20_000_000))) == "archive_bomb"


def test_an_expanding_part_that_is_never_read_is_refused_too():
    assert rejection(archive(paragraph("x"), media__picture=b"\0" * 20_000_000)) == "archive_bomb"


def test_an_expanding_part_is_refused_although_its_header_lies():
    honest = archive(paragraph("a" * 20_000_000))
    size = len(f"<w:document {_W} {_MC}><w:body>{paragraph('a' * 20_000_000)}</w:body></w:document>")
    lying = honest.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != honest
    assert rejection(lying) in ("archive_bomb", "document_unreadable")


_GROWING = '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_entities_are_refused_in_any_encoding(encoding: str):
    content = f"{_GROWING}<w:document {_W}><w:body>{paragraph('&b;')}</w:body></w:document>"
    assert rejection(archive(word__document=content.encode(encoding))) == "xml_entities"


def test_a_declared_encoding_cannot_hide_entities():
    content = f"{_GROWING}<w:document {_W}><w:body>{paragraph('&b;')}</w:body></w:document>".encode("cp037")
    code = rejection(archive(word__document=b'<?xml version="1.0" encoding="cp037"?>' + content))
    assert code in ("document_unreadable", "document_encoding", "xml_entities")


def test_utf16_parts_are_read():
    content = f'<?xml version="1.0" encoding="UTF-16"?><w:document {_W}><w:body>{paragraph("Ü")}</w:body></w:document>'
    assert parse_docx(archive(word__document=content.encode("utf-16")), TextLimits()).text == "Ü"


def test_an_external_entity_is_not_read():
    data = f'<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/hostname">]><w:document {_W}/>'
    assert rejection(archive(word__document=data)) == "xml_entities"


@pytest.mark.parametrize("value", ["-1", "99999999999999999999999", "abc", "²", ""])
def test_numbers_that_are_none_do_no_harm(value: str):
    properties = (
        f'<w:outlineLvl w:val="{value}"/><w:numPr><w:ilvl w:val="{value}"/><w:numId w:val="{value}"/></w:numPr>'
    )
    wide = f'<w:tc><w:tcPr><w:gridSpan w:val="{value}"/></w:tcPr>{paragraph("wide")}</w:tc>'
    parsed = docx(
        paragraph("x", properties=properties)
        + paragraph(inner=run("y", f'<w:sz w:val="{value}"/>'))
        + table([wide, "z"], ["1", "2"])
    )
    assert "x" in parsed.text
    assert "wide" in parsed.text


def test_a_document_type_without_entities_is_passed_over():
    content = f'<!DOCTYPE w SYSTEM "w.dtd"><w:document {_W}><w:body>{paragraph("x")}</w:body></w:document>'
    assert parse_docx(archive(word__document=content.encode()), TextLimits()).text == "x"


def test_deep_nesting_has_its_own_code():
    deep = "<w:sdt><w:sdtContent>" * 3000 + paragraph("x") + "</w:sdtContent></w:sdt>" * 3000
    assert rejection(archive(deep)) == "nested_too_deeply"
