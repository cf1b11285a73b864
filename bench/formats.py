"""What the parsers make of a folder of files whose manifest says what each must give, beside two other libraries.

    python -m bench.formats --data FOLDER [--libraries ours,kreuzberg,markitdown] [--other-python PYTHON] [--ocr]

FOLDER holds manifest.jsonl (file, category, expect, snippets, must_not_index) and files/. The others are run as they
come, in a process for each file, by PYTHON, an interpreter that has them. One JSON line a library: files as expected,
also when blanks are not counted, all files, seconds, and those that are not as expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.parse.detect import HEAD_BYTES, detect_format
from ingestion.parse.flow import ParseItem
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import ParserPool
from tenants.errors import DocumentRejected, UnsupportedType

_WITHIN_S = 20.0
_CODES = {
    "encrypted": {"document_encrypted"},
    "corrupt": {"document_unreadable", "document_empty"},
    "no_text": {"needs_ocr", "document_empty"},
    "unsupported": {"unsupported_type", "document_encoding"},
    "unsafe_archive": {"archive_bomb", "archive_too_deep", "archive_too_many_entries", "unsafe_path", "unsafe_link"},
    "unsafe_xml": {"xml_entities"},
}
_OTHERS = {
    "kreuzberg": "import sys, kreuzberg; sys.stdout.write(kreuzberg.extract_file_sync(sys.argv[1]).content)",
    "markitdown": "import sys, markitdown; sys.stdout.write(markitdown.MarkItDown().convert(sys.argv[1]).text_content)",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its text or a code ("refused" by a library that has none, "crash")."""

    text: str | None
    code: str | None
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--libraries", default="ours")
    parser.add_argument("--other-python", default=sys.executable)
    parser.add_argument("--ocr", action="store_true")
    arguments = parser.parse_args()
    rows = read_manifest(arguments.data)
    for library in arguments.libraries.split(","):
        started = time.perf_counter()
        if library == "ours":
            outcomes = asyncio.run(parse_all(arguments.data, rows, ParseLimits(ocr=arguments.ocr)))
        else:
            outcomes = [_other(arguments.other_python, library, arguments.data / "files" / r["file"]) for r in rows]
        seconds = time.perf_counter() - started
        wrong = _wrong(rows, outcomes, blanks=True)
        print(
            json.dumps(
                {
                    "library": library,
                    "as_expected": len(rows) - len(wrong),
                    "without_blanks": len(rows) - len(_wrong(rows, outcomes, blanks=False)),
                    "files": len(rows),
                    "seconds": round(seconds, 2),
                    "slowest": round(max(outcome.seconds for outcome in outcomes), 2),
                    "not_as_expected": wrong,
                },
                ensure_ascii=False,
            )
        )


def _wrong(rows: Sequence[dict[str, Any]], outcomes: Sequence[Outcome], *, blanks: bool) -> dict[str, str]:
    return {
        row["file"]: outcome.code or "text"
        for row, outcome in zip(rows, outcomes, strict=True)
        if not as_expected(row, outcome, blanks=blanks)
    }


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


async def parse_all(folder: Path, rows: Sequence[dict[str, Any]], limits: ParseLimits) -> list[Outcome]:
    """Every file as an upload would be taken: its format by its content, then a confined process."""
    files = [(path, path.read_bytes()) for path in (folder / "files" / row["file"] for row in rows)]
    pool = ParserPool(limits)
    try:
        await pool.start()
        return [await _parsed(pool, path, content) for path, content in files]
    finally:
        await pool.aclose()


async def _parsed(pool: ParserPool, path: Path, content: bytes) -> Outcome:
    started = time.perf_counter()
    try:
        format_name = detect_format(content[:HEAD_BYTES], path.name, None, content[-HEAD_BYTES:])
    except UnsupportedType as error:
        return Outcome(None, error.code, time.perf_counter() - started)
    (answer,) = await pool.parse([ParseItem(path, format_name, path.name)])
    seconds = time.perf_counter() - started
    if isinstance(answer, DocumentRejected):
        return Outcome(None, answer.code, seconds)
    return Outcome("\n".join(answer.text[block.start : block.end] for block in answer.blocks), None, seconds)


def _other(python: str, library: str, path: Path) -> Outcome:
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [python, "-c", _OTHERS[library], str(path)], capture_output=True, timeout=10 * _WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, "timeout", 10 * _WITHIN_S)
    seconds = time.perf_counter() - started
    if done.returncode == 0:
        return Outcome(done.stdout.decode("utf-8", "replace"), None, seconds)
    return Outcome(None, "refused" if done.returncode == 1 else "crash", seconds)


def as_expected(row: dict[str, Any], outcome: Outcome, *, blanks: bool) -> bool:
    """Whether a file ended as its manifest says; `blanks`: whether runs of white space count, as one blank.

    A library without codes may refuse by any error, and may give nothing where there is nothing to read.
    """
    if outcome.seconds > _WITHIN_S or outcome.code in ("crash", "timeout", "parser_timeout"):
        return False
    expect, code = row["expect"], outcome.code
    if expect == "fuzzed":
        return True
    if expect in ("text", "text_any", "unsupported_ok"):
        if code is not None:
            return bool(expect == "unsupported_ok")
        return _holds(row, outcome.text or "", " " if blanks else "")
    if code is None:
        return bool(expect == "no_text" and not (outcome.text or "").strip())
    return code == "refused" or code in _CODES[expect]


def _holds(row: dict[str, Any], text: str, blank: str) -> bool:
    shown = _normal(text, blank)
    held = all(_normal(snippet, blank) in shown for snippet in row["snippets"])
    return bool(shown) and held and not any(secret in text for secret in row.get("must_not_index", ()))


def _normal(text: str, blank: str) -> str:
    return re.sub(r"\s+", blank, unicodedata.normalize("NFKC", text)).strip()


if __name__ == "__main__":
    main()
