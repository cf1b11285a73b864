"""The nursery of all formats: `python -m ingestion.parse.all_formats FD OCR`. See `child.py`."""

from __future__ import annotations

from ingestion.parse.child import main
from ingestion.parse.registry import PARSERS

if __name__ == "__main__":
    main(PARSERS)
