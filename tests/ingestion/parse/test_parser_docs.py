"""The files of a manifest end as it says. TESSERA_PARSER_DOCS names its folder: manifest.jsonl beside files/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.formats import as_expected, parse_all, read_manifest
from ingestion.parse.limits import ParseLimits

_FOLDER = os.environ.get("TESSERA_PARSER_DOCS")


@pytest.mark.skipif(_FOLDER is None, reason="TESSERA_PARSER_DOCS names no folder of documents")
async def test_every_file_ends_as_its_manifest_says():
    folder = Path(_FOLDER or "")
    rows = read_manifest(folder)
    outcomes = await parse_all(folder, rows, ParseLimits(ocr=False))
    wrong = [
        (row["file"], row["expect"], outcome.code)
        for row, outcome in zip(rows, outcomes, strict=True)
        if not as_expected(row, outcome, blanks=False)
    ]
    assert wrong == []
