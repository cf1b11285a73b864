"""Reads pictures of text with Tesseract's own library, within the process: no program is started, no file written.

The library is loaded and its language data read once, in the nursery; every document's process inherits both and
may then open nothing. It runs on one thread, since a confined process can start no other (OMP_THREAD_LIMIT, set for
the nursery). Source: Tesseract's capi.h.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

_LIBRARIES = ("libtesseract.so.5", "libtesseract.so.4", "libtesseract.so", "libtesseract.5.dylib")
_LEAST_CONFIDENCE = 65
"""Mean confidence, of 100, below which a page counts as not read: clear scans reach 85 and more, pictures 30 to 60."""
_PARAGRAPHS = re.compile(r"\n\s*\n")


class OcrUnavailable(Exception):
    """There is no Tesseract, or not with the languages that are wanted."""


class Tesseract:
    """One recogniser with its languages. Not for two threads at once."""

    def __init__(self, library: ctypes.CDLL, handle: int, max_pages: int) -> None:
        self._library = library
        self._handle = ctypes.c_void_p(handle)
        self.max_pages = max_pages

    def close(self) -> None:
        """Give its memory back; it is of no use then."""
        self._library.TessBaseAPIEnd(self._handle)
        self._library.TessBaseAPIDelete(self._handle)

    def recognise(self, pixels: Any, *, width: int, height: int, stride: int, dpi: int) -> str:
        """The text of a grey picture of one byte a pixel, a blank line between paragraphs; "" below the confidence."""
        library, handle = self._library, self._handle
        library.TessBaseAPISetImage(handle, pixels, width, height, 1, stride)
        library.TessBaseAPISetSourceResolution(handle, dpi)
        text = library.TessBaseAPIGetUTF8Text(handle)
        if not text:
            return ""
        try:
            words = ctypes.string_at(text).decode("utf-8", "replace")
            sure = library.TessBaseAPIMeanTextConf(handle) >= _LEAST_CONFIDENCE
        finally:
            library.TessDeleteText(ctypes.c_void_p(text))
            library.TessBaseAPIClear(handle)
        return "\n\n".join(filter(None, map(str.strip, _PARAGRAPHS.split(words)))) if sure else ""


def open_recogniser(*, languages: str, max_pages: int, folder: str | None) -> Tesseract:
    """Load Tesseract with `languages` ("eng+deu"); `folder` holds their data, None where Tesseract keeps them.

    Raises OcrUnavailable.
    """
    library = _load()
    handle = library.TessBaseAPICreate()
    place = folder.encode() if folder else None
    if not handle or library.TessBaseAPIInit3(ctypes.c_void_p(handle), place, languages.encode()) != 0:
        raise OcrUnavailable(f"Tesseract has no data for the languages {languages}")
    return Tesseract(library, handle, max_pages)


def _load() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.TessBaseAPICreate.restype = ctypes.c_void_p
        library.TessBaseAPIGetUTF8Text.restype = ctypes.c_void_p
        return library
    raise OcrUnavailable("Tesseract is not installed")
