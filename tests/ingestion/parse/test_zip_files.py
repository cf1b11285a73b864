"""ZIP: one document whose sections are files; what is refused as a whole, and what is only left out."""

from __future__ import annotations

import io
import zipfile

import pytest

from ingestion.parse.document import MAX_ENTRIES, LeftOut, TextLimits
from ingestion.parse.rejections import DANGEROUS, SENTENCES
from tests.ingestion.parse.packing import packed, read, refusal


def test_every_file_is_a_section_under_its_path():
    parsed = read(
        "a.zip", packed({"docs/": "", "docs/a.md": "# Harbour\n\nQuays.", "b.html": "<h2>Boats</h2><p>Red.</p>"})
    )
    assert parsed.text == "docs/a.md\n\nHarbour\n\nQuays.\n\nb.html\n\nBoats\n\nRed."
    headings = [(parsed.text[b.start : b.end], b.level) for b in parsed.blocks if b.kind == "heading"]
    assert headings == [("docs/a.md", 1), ("Harbour", 2), ("b.html", 1), ("Boats", 3)]
    assert (parsed.format, parsed.title, parsed.left_out) == ("zip", None, ())


def test_what_cannot_be_read_is_left_out_and_named():
    parts = {"a.txt": "Words.", "b.png": b"\x89PNG", "c.pdf": b"junk", "__MACOSX/._a": b"x", ".DS_Store": b"\0"}
    parsed = read("a.zip", packed(parts))
    assert parsed.left_out == (LeftOut("b.png", "unsupported_type"), LeftOut("c.pdf", "document_unreadable"))


def test_names_without_a_mark_of_their_encoding():
    data = packed({"Fahrpl\u00e4ne.txt": "Words."})
    unmarked = data.replace("ä".encode(), "ä".encode()).replace(b"\x00\x08\x00\x00", b"\x00\x00\x00\x00")
    assert read("a.zip", unmarked).text.startswith("Fahrpläne.txt")


def test_archives_in_archives_are_read_three_deep():
    data = packed({"a.txt": "Words."})
    for _ in range(2):
        data = packed({"in.zip": data})
    assert refusal("a.zip", data).endswith("Words.")
    assert refusal("a.zip", packed({"in.zip": data})) == "archive_too_deep"


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/a.txt", "a/../../a.txt", "..\\..\\a.txt", "C:\\a.txt", "\\\\host\\share\\a.txt"]
)
def test_a_name_that_leads_out_is_refused(name: str):
    assert refusal("a.zip", packed({"b.txt": "Words.", name: "x"})) == "unsafe_path"


def test_a_symbolic_link_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("a.txt")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    assert refusal("a.zip", buffer.getvalue()) == "unsafe_link"


def test_too_many_files_are_refused_also_over_several_archives():
    half = packed({f"{i}.txt": "w" for i in range(MAX_ENTRIES // 2)})
    assert refusal("a.zip", packed({f"{i}": "" for i in range(MAX_ENTRIES + 1)})) == "archive_too_many_entries"
    assert refusal("a.zip", packed({"a.zip": half, "b.zip": half})) == "archive_too_many_entries"


def test_expansion_is_counted_over_all_that_lies_within():
    inner = packed({"a.txt": "words " * 300_000})
    outer = packed({f"{i}.zip": inner for i in range(3)})
    assert refusal("a.zip", packed({"a.txt": b"0" * 20_000_000})) == "archive_bomb"
    assert refusal("a.zip", outer) == "archive_bomb"


def test_entries_that_share_their_bytes_are_refused():
    """As in the archives of D. Fifield: a directory that names the same content many times."""
    data = packed({"a.txt": "Words."})
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    directory = b"".join(entry.replace(b"a.txt", b"%d.txt" % i) for i in range(9))
    tail = data[end:].replace(b"\x01\x00\x01\x00", b"\x09\x00\x09\x00")
    tail = tail.replace(len(entry).to_bytes(4, "little"), len(directory).to_bytes(4, "little"))
    assert refusal("a.zip", data[:start] + directory + tail) in ("archive_bomb", "document_unreadable")


def test_archives_that_cannot_be_read_have_their_own_code():
    locked = packed({"a.txt": "Words."}).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
    )
    assert refusal("a.zip", locked) == "document_encrypted"
    assert refusal("a.zip", packed({"a.txt": "Words."})[:-10]) == "document_unreadable"
    assert refusal("a.zip", packed({"a.txt": "Words."}, zipfile.ZIP_BZIP2)) == "document_unreadable"
    assert refusal("a.zip", packed({"b.png": b"\x89PNG"})) == "document_empty"
    assert refusal("a.zip", packed({"c.pdf": b"%PDF-1.4"})) == "document_unreadable"
    assert refusal("a.zip", packed({"a.txt": "long " * 100}), TextLimits(max_text_chars=100)) == "document_too_long"


def test_every_code_says_what_to_do_in_one_sentence():
    assert set(SENTENCES) >= DANGEROUS
    for sentence in SENTENCES.values():
        assert sentence.endswith(".")
        assert sentence.count(". ") == 0
        assert ";" in sentence
