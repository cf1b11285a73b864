"""A document's metadata: validated at the door, stored as JSON for display and as typed rows for filters."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

from shards.filters import BUILT_INS, FIELD_NAME, parse_time, text_fault
from tenants.errors import FieldError, InvalidMetadata

_MAX_KEYS = 64
_MAX_LIST = 100
LANGUAGE = "language"
"""The built-in field that metadata set: the language of the document, which its words are stemmed by."""
_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")


def parse_metadata(raw: str | None, *, max_bytes: int) -> dict[str, Any] | None:
    """Read the `metadata` form field: a JSON object of strings, numbers, booleans, and lists of strings.

    None when the field is missing or blank.

    Raises:
        InvalidMetadata: points at the key that cannot be stored.
    """
    if raw is None or not raw.strip():
        return None
    if len(raw.encode()) > max_bytes:
        raise _invalid("metadata", f"is larger than {max_bytes} bytes")
    try:
        parsed = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid("metadata", f"is not JSON ({error})") from error
    return check_metadata(parsed, max_bytes=max_bytes)


def check_metadata(parsed: Any, *, max_bytes: int, pointer: str = "metadata") -> dict[str, Any]:
    """Return metadata that came as parsed JSON when it can be stored; raise as `parse_metadata` does."""
    if not isinstance(parsed, dict):
        raise _invalid(pointer, "must be a JSON object")
    if len(parsed) > _MAX_KEYS:
        raise _invalid(pointer, f"has more than {_MAX_KEYS} keys")
    for key, value in parsed.items():
        _check(f"{pointer}.{key}", key, value)
    if len(json.dumps(parsed, ensure_ascii=False).encode()) > max_bytes:
        raise _invalid(pointer, f"is larger than {max_bytes} bytes")
    return parsed


def field_rows(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the typed rows of `document_fields` for one version: key, ordinal and one typed value each."""
    rows = []
    for key, value in metadata.items():
        for ordinal, item in enumerate(value if isinstance(value, list) else [value]):
            rows.append({"key": key, "ordinal": ordinal, **_typed(item)})
    return rows


def _typed(item: Any) -> dict[str, Any]:
    typed: dict[str, str | float | bool | datetime | None] = {
        "text_value": None,
        "number_value": None,
        "bool_value": None,
        "time_value": None,
    }
    if isinstance(item, bool):
        typed["bool_value"] = item
    elif isinstance(item, str):
        typed["text_value"], typed["time_value"] = item, parse_time(item)
    else:
        typed["number_value"] = float(item)
    return typed


def _check(pointer: str, key: str, value: Any) -> None:
    if not FIELD_NAME.fullmatch(key):
        raise _invalid(pointer, "is not a field name (letters, digits, '_', '.', '-'; at most 64)")
    if key == LANGUAGE:
        if not isinstance(value, str) or not _TAG.fullmatch(value):
            raise _invalid(pointer, "must be the tag of a language, like `de` or `pt-BR`")
        return
    if key in BUILT_INS:
        raise _invalid(pointer, "is the name of a built-in field")
    if isinstance(value, list):
        if len(value) > _MAX_LIST or not all(isinstance(item, str) for item in value):
            raise _invalid(pointer, f"must be a list of at most {_MAX_LIST} strings")
        for item in value:
            _check_text(pointer, item)
    elif isinstance(value, str):
        _check_text(pointer, value)
    elif not isinstance(value, bool | int | float) or abs(value) >= 1e300 or not math.isfinite(value):
        raise _invalid(pointer, "must be a string, a number, true or false, or a list of strings")


def _check_text(pointer: str, value: str) -> None:
    if fault := text_fault(value):
        raise _invalid(pointer, fault)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _invalid(pointer: str, detail: str) -> InvalidMetadata:
    return InvalidMetadata(f"The metadata is not valid: {pointer} {detail}.", fields=(FieldError(pointer, detail),))
