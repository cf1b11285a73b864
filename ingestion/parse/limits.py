"""What one document may take, as an installation has set it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from ingestion.settings import IngestSettings


@dataclass(frozen=True)
class ParseLimits:
    """Bounds of one document; memory is the address space of the process, interpreter included."""

    memory_bytes: int = 1024**3
    cpu_s: int = 60
    wall_s: float = 120.0
    max_text_chars: int = 20_000_000
    max_pages: int = 2000
    ocr: bool = True
    """Whether pictures of text are read where Tesseract is installed."""
    ocr_languages: str = "eng"
    ocr_max_pages: int = 40
    ocr_data: str | None = None

    @classmethod
    def from_settings(cls, settings: IngestSettings) -> Self:
        """The limits an installation has set."""
        return cls(
            memory_bytes=settings.parse_memory_bytes,
            cpu_s=settings.parse_cpu_s,
            wall_s=settings.parse_wall_s,
            max_text_chars=settings.max_text_chars,
            max_pages=settings.max_pages,
            ocr=settings.ocr == "auto",
            ocr_languages=settings.ocr_languages,
            ocr_max_pages=settings.ocr_max_pages,
            ocr_data=settings.ocr_data,
        )

    @property
    def recogniser(self) -> str:
        """What a nursery is told about reading pictures."""
        if not self.ocr:
            return "null"
        return json.dumps({"languages": self.ocr_languages, "max_pages": self.ocr_max_pages, "folder": self.ocr_data})
