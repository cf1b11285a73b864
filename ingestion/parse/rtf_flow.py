"""Where the words of an RTF file go: paragraphs, lists, rows of tables, notes, headers and footers."""

from __future__ import annotations

from collections.abc import Mapping

from ingestion.parse.builder import DocumentBuilder
from ingestion.parse.document import ParsedDocument
from ingestion.parse.tables import markdown_table

_BREAKS = frozenset({"par", "sect", "page", "column"})


class Flow:
    """Gathers words into blocks; a flow is "body", "note", "marginal" or "title"."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._words: dict[str, list[str]] = {"body": [], "note": [], "marginal": [], "title": []}
        self._notes: list[str] = []
        self._marginals: dict[str, None] = {}
        self._rows: list[list[str]] = []
        self._cells: list[str] = []
        self._level = 0
        self.in_table = False

    def say(self, flow: str, text: str) -> None:
        """Add words to the paragraph that is open."""
        self._words[flow].append(text)

    def word(self, flow: str, word: str, value: int | None, levels: Mapping[int, int]) -> bool:
        """Obey a control word of paragraphs and tables; False when it is none. `levels`: heading level by style."""
        if flow != "body":
            if word in _BREAKS:
                self.say(flow, "\n")
            return word in _BREAKS
        if word in _BREAKS:
            self._end_paragraph()
        elif word == "pard":
            self._level, self.in_table = 0, False
        elif word == "intbl":
            self.in_table = True
        elif word == "cell":
            self._cells.append(self._taken("body"))
        elif word == "row":
            self._rows.append(self._cells)
            self._cells = []
        elif word == "outlinelevel":
            self._level = min((value or 0) + 1, 6) if (value or 0) < 9 else 0
        elif word == "s":
            self._level = levels.get(value or 0, self._level)
        else:
            return False
        return True

    def end(self, flow: str) -> None:
        """A group whose words went to `flow` is over."""
        if flow == "note":
            self._notes.append(self._taken("note"))
        elif flow == "marginal":
            self._marginals[self._taken("marginal")] = None

    def finish(self) -> ParsedDocument:
        """The document. Raises DocumentRejected(document_empty)."""
        self._end_paragraph()
        self._end_table()
        self._builder.close_sections()
        for text in self._marginals:
            self._builder.add("paragraph", text if any(c.isalpha() for c in text) else "")
        self._builder.title = self._taken("title") or None
        return self._builder.build()

    def _end_paragraph(self) -> None:
        if self.in_table:
            self.say("body", "\n")
            return
        self._end_table()
        text = self._taken("body")
        if self._level and text:
            self._builder.add("heading", " ".join(text.split()), level=self._level)
        else:
            self._builder.add("paragraph", text)
        self._add_notes()

    def _end_table(self) -> None:
        if self._cells:  # the file ends within a row
            self._rows.append(self._cells)
            self._cells = []
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        columns = {i for row in rows for i, cell in enumerate(row) if cell}
        if len(columns) > 1 and sum(any(row) for row in rows) > 1:
            self._builder.add("table", markdown_table(rows))
        else:
            for row in rows:
                for cell in row:
                    self._builder.add("paragraph", cell)
        self._add_notes()

    def _add_notes(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self._builder.add("paragraph", f"* {note}" if note else "")

    def _taken(self, flow: str) -> str:
        """The words that have gathered, lines kept and blanks collapsed."""
        lines = (" ".join(line.split()) for line in "".join(self._words[flow]).split("\n"))
        self._words[flow].clear()
        return "\n".join(line for line in lines if line)
