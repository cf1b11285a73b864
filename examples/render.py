"""Render the PDF and DOCX example documents from examples/sources/<slug>/*.md.

Needs three packages that Tessera itself does not depend on; the committed files were made with

    pip install reportlab==5.1.0 python-docx==1.2.0 markdown-it-py==4.3.0
    python examples/render.py

Each source begins with a front matter of `key: value` lines; `format` says what becomes of it. The body is
Markdown: headings (## and deeper), paragraphs, lists, tables, bold and emphasis. The output carries no clock
time and no random id, so that the same source and the same package versions give the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rendering.pdf import render_pdf
from rendering.source import read_source
from rendering.word import render_docx

FOLDER = Path(__file__).parent


def main() -> None:
    """Render every source beside the hand-written documents of its company."""
    renderers = {"pdf": render_pdf, "docx": render_docx}
    for path in sorted(FOLDER.glob("sources/*/*.md")):
        source = read_source(path)
        target = FOLDER / path.parent.name / f"{path.stem}.{source.meta['format']}"
        target.write_bytes(renderers[source.meta["format"]](source))
        sys.stdout.write(f"{target.relative_to(FOLDER)}  {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
