"""PDF: pages that are pictures, comments, attached files, streams that expand."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pypdfium2
import pytest

from ingestion.parse.document import LeftOut, ParsedDocument, TextLimits
from ingestion.parse.flow import ParseItem
from ingestion.parse.limits import ParseLimits
from ingestion.parse.ocr import OcrUnavailable, Tesseract, open_recogniser
from ingestion.parse.sandbox import ParserPool
from tenants.errors import DocumentRejected
from tests.ingestion.parse.packing import pdf_of, read, refusal, stream

_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
_WORDS = ("Harbour timetable", "The ferry leaves at nine and", "comes back every evening.")


class Reader:
    """A recogniser that reads what it is told to."""

    def __init__(self, text: str, max_pages: int = 9) -> None:
        self.max_pages = max_pages
        self.asked: list[tuple[int, int]] = []
        self._text = text

    def recognise(self, pixels: object, *, width: int, height: int, stride: int, dpi: int) -> str:
        self.asked.append((width, height))
        return self._text

    def close(self) -> None:
        """Nothing to give back."""


def text_page(*lines: str, size: int = 11) -> bytes:
    shown = b"".join(
        b"BT /F %d Tf 40 %d Td (%s) Tj ET\n" % (size, 740 - 2 * size * i, line.encode()) for i, line in enumerate(lines)
    )
    return stream(shown)


def scanned(*lines: str, pixels: tuple[int, int] | None = None) -> tuple[bytes, bytes]:
    """(content, image) of a page that is a picture of `lines`, or of nothing at a size of `pixels`."""
    if pixels is None:
        picture = pypdfium2.PdfDocument(document([text_page(*lines, size=20)]))[0].render(
            scale=150 / 72, grayscale=True
        )
        width, height = picture.width, picture.height
        data = b"".join(bytes(picture.buffer)[y * picture.stride : y * picture.stride + width] for y in range(height))
    else:
        (width, height), data = pixels, b"\0"
    kind = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode"
    image = stream(zlib.compress(data), b"%s /Width %d /Height %d" % (kind, width, height))
    return stream(b"612 0 0 792 0 0 cm /I Do"), image


def document(
    pages: list[bytes | tuple[bytes, bytes]], catalogue: bytes = b"", page: bytes = b"", *more: bytes
) -> bytes:
    objects = [b"", b"", _FONT, *more]
    kids: list[int] = []
    for content in pages:
        text, image = content if isinstance(content, tuple) else (content, stream(b""))
        number = len(objects) + 1
        kids.append(number)
        resources = b"/Resources << /Font << /F 3 0 R >> /XObject << /I %d 0 R >> >>" % (number + 2)
        place = b"/MediaBox [0 0 612 792] /Contents %d 0 R" % (number + 1)
        objects += [b"<< /Type /Page /Parent 2 0 R %s %s %s >>" % (place, resources, page), text, image]
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalogue
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    return pdf_of(*objects)


def test_a_scan_without_a_recogniser_is_refused_or_named():
    assert refusal("a.pdf", document([scanned("Fares")])) == "needs_ocr"
    parsed = read("a.pdf", document([text_page("The fares are these."), scanned("Fares")]))
    assert parsed.text == "The fares are these."
    assert parsed.left_out == (LeftOut("page 2", "needs_ocr"),)


def test_recognised_pages_stand_in_their_place():
    reader = Reader("First part of a\nhyphen-\nated word.\n\nSecond part.")
    data = document([text_page("One."), scanned("x"), text_page("Three.")])
    parsed = read("a.pdf", data, TextLimits(ocr=reader))
    assert parsed.text == "One.\n\nFirst part of a hyphenated word.\n\nSecond part.\n\nThree."
    assert [block.page for block in parsed.blocks] == [1, 2, 2, 3]
    assert parsed.left_out == ()
    [(width, height)] = reader.asked
    assert (width // 10, height // 10) == (255, 330)  # 300 dpi


def test_a_stamp_on_a_scan_does_not_pass_for_its_text():
    _, image = scanned("x")
    page = stream(b"q 612 0 0 792 0 0 cm /I Do Q BT /F 8 Tf 20 20 Td (Page 7) Tj ET")
    assert read("a.pdf", document([(page, image)]), TextLimits(ocr=Reader("The page."))).text == "The page."
    assert read("a.pdf", document([(page, image)])).left_out == (LeftOut("page 1", "needs_ocr"),)


def test_pages_over_the_number_that_is_recognised_are_named():
    data = document([scanned("x")] * 3)
    parsed = read("a.pdf", data, TextLimits(ocr=Reader("Words.", max_pages=2)))
    assert parsed.text == "Words.\n\nWords."
    assert parsed.left_out == (LeftOut("page 3", "needs_ocr"),)


def test_recognition_ends_when_its_time_is_spent():
    parsed = read("a.pdf", document([text_page("Words."), scanned("x")]), TextLimits(ocr=Reader("never"), ocr_cpu_s=0))
    assert (parsed.text, parsed.left_out) == ("Words.", (LeftOut("page 2", "needs_ocr"),))


def test_what_nobody_can_make_out_needs_a_better_scan():
    assert refusal("a.pdf", document([scanned("x")]), TextLimits(ocr=Reader(""))) == "needs_ocr"


def test_a_picture_of_too_many_pixels_is_not_decoded():
    reader = Reader("never")
    large = scanned(pixels=(10_000, 6_000))
    assert refusal("a.pdf", document([large]), TextLimits(ocr=reader)) == "image_too_large"
    parsed = read("a.pdf", document([text_page("Words."), large]), TextLimits(ocr=reader))
    assert parsed.left_out == (LeftOut("page 2", "image_too_large"),)
    assert reader.asked == []


def test_comments_follow_their_page():
    kinds = [
        (b"Text", b"Ask the board.", 0),
        (b"Highlight", b"Check this.", 0),
        (b"Text", b"hidden-token", 2),
        (b"Popup", b"popup-token", 0),
    ]
    notes = [b"<< /Type /Annot /Subtype /%s /Rect [10 10 30 30] /Contents (%s) /F %d >>" % note for note in kinds]
    page = b"/Annots [4 0 R 5 0 R 6 0 R 7 0 R]"
    parsed = read("a.pdf", document([text_page("Words.")], b"", page, *notes))
    assert parsed.text == "Words.\n\nComment: Ask the board.\n\nComment: Check this."


def test_attached_files_are_listed_and_not_opened():
    names = b"/Names << /EmbeddedFiles << /Names [(fares.csv) 4 0 R] >> >>"
    file = b"<< /Type /Filespec /F (fares.csv) /UF (fares.csv) /EF << /F 5 0 R >> >>"
    content = stream(b"secret-token", b"/Type /EmbeddedFile")
    parsed = read("a.pdf", document([text_page("Words.")], names, b"", file, content))
    assert parsed.text == "Words.\n\nAttached files: fares.csv"


@pytest.fixture(scope="module")
def tesseract() -> Iterator[Tesseract]:
    try:
        recogniser = open_recogniser(languages="eng", max_pages=5, folder=None)
    except OcrUnavailable as error:
        pytest.skip(f"scans cannot be read here: {error} (apt-get install tesseract-ocr)")
    yield recogniser
    recogniser.close()


def test_tesseract_reads_a_scan(tesseract: Tesseract):
    parsed = read("a.pdf", document([scanned(*_WORDS)]), TextLimits(ocr=tesseract))
    words = " ".join(parsed.text.split())
    assert "The ferry leaves at nine and comes back every evening." in words


def test_an_unknown_language_is_told(tesseract: Tesseract):
    with pytest.raises(OcrUnavailable, match="xyz"):
        open_recogniser(languages="xyz", max_pages=5, folder=None)


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    pool = ParserPool(ParseLimits())
    yield pool
    await pool.aclose()


async def test_tesseract_reads_in_a_confined_process(tesseract: Tesseract, pool: ParserPool, tmp_path: Path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(document([scanned(*_WORDS)]))
    for _ in range(2):
        (answer,) = await pool.parse([ParseItem(path, "pdf", "scan.pdf")])
        assert isinstance(answer, ParsedDocument), answer
        assert "ferry leaves at nine" in " ".join(answer.text.split())


async def test_recognition_can_be_switched_off(tmp_path: Path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(document([scanned(*_WORDS)]))
    off = ParserPool(ParseLimits(ocr=False))
    try:
        (answer,) = await off.parse([ParseItem(path, "pdf", "scan.pdf")])
    finally:
        await off.aclose()
    assert isinstance(answer, DocumentRejected)
    assert answer.code == "needs_ocr"


async def test_a_stream_that_expands_costs_one_process(tmp_path: Path):
    bomb = zlib.compress(zlib.compress(b" " * 300_000_000, 9), 9)
    paths = [tmp_path / "bomb.pdf", tmp_path / "sound.pdf"]
    paths[0].write_bytes(document([stream(bomb, b"/Filter [/FlateDecode /FlateDecode]")]))
    paths[1].write_bytes(document([text_page("Words.")]))
    small = ParserPool(ParseLimits(memory_bytes=256 * 1024**2, ocr=False))
    try:
        bad, good = await small.parse([ParseItem(path, "pdf", path.name) for path in paths])
    finally:
        await small.aclose()
    assert isinstance(bad, DocumentRejected)
    assert bad.code == "parser_memory"
    assert isinstance(good, ParsedDocument)
