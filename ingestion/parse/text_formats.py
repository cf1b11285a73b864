"""The nursery of text formats: `python -m ingestion.parse.text_formats FD null`. See `child.py`."""

from __future__ import annotations

from ingestion.parse.child import main
from ingestion.parse.text_registry import TEXT_PARSERS

if __name__ == "__main__":
    main(TEXT_PARSERS)
