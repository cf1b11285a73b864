"""Files that lie in another file: archives and messages hand them on, within the limits of the outermost one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ingestion.parse.builder import DocumentBuilder
from ingestion.parse.document import Expansion, ParsedDocument, TextLimits
from ingestion.parse.rejections import DANGEROUS
from tenants.errors import DocumentRejected, UnsupportedType

MAX_DEPTH = 3
"""Archives and messages that may lie in one another, the outermost included."""

ParsePart = Callable[[str, bytes, TextLimits, str | None], ParsedDocument]
"""Parses a file by its name, content and declared media type. Raises DocumentRejected, UnsupportedType."""


class Enclosure:
    """Adds files to a document, each under its name, and notes those that cannot be read."""

    def __init__(self, builder: DocumentBuilder, parse: ParsePart, limits: TextLimits, expansion: Expansion) -> None:
        self._builder = builder
        self._parse = parse
        self._limits = replace(limits, depth=limits.depth + 1, expansion=expansion)
        self.failed: DocumentRejected | None = None
        """Why the first file that could not be read could not be."""

    @property
    def limits(self) -> TextLimits:
        """The limits of what lies within."""
        return self._limits

    def add(self, name: str, content: bytes, *, level: int = 1, declared: str | None = None) -> bool:
        """Add a file below a heading of `level`; whether it could be read. Raises what refuses the whole."""
        try:
            parsed = self._parse(name, content, self._limits, declared)
        except UnsupportedType as error:
            self._builder.leave_out(name, error.code)
            return False
        except DocumentRejected as error:
            if error.code in DANGEROUS:
                raise
            self.failed = self.failed or DocumentRejected(f"{name[:200]}: {error.detail}", code=error.code)
            self._builder.leave_out(name, error.code)
            return False
        self._builder.add("heading", name, level=level)
        self._builder.include(parsed, level=level)
        for one in parsed.left_out:
            self._builder.leave_out(f"{name}: {one.part}", one.code)
        return True
