"""Metadata filters: JSON -> validated tree -> SQL over documents. The only grammar; no caller reaches an engine's own.

    {"field": {"op": value}}    {"and": [...]}    {"or": [...]}    {"not": {...}}

Ops: eq ne in gt gte lt lte exists. Several fields or ops in one object are joined by "and". Fields are built-ins or
keys of the document's metadata. A list of strings matches when any element does. `ne` is the negation of `eq`,
so a document without the field matches it. A string that reads as a date is compared as one by gt, gte, lt, lte.
A filter has at most 64 conditions, and its lists at most 1,000 values together.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, false, not_, or_, select, true

from shards.models import Document, DocumentField
from tenants.errors import FieldError, InvalidFilter

Scalar = str | float | bool
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_TEXT_FIELDS = ("title", "external_id", "source", "format", "language")
_TIME_FIELDS = ("created_at", "updated_at")
BUILT_INS = frozenset(_TEXT_FIELDS + _TIME_FIELDS)
_ORDER: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_OPS = ("eq", "ne", "in", "gt", "gte", "lt", "lte", "exists")
_MAX_DEPTH = 8
_MAX_CONDITIONS = 64
_MAX_IN = 1000
"""Values of all lists of a filter together: each is a parameter of the statement."""
MAX_TEXT_BYTES = 2000
"""Of a text in UTF-8: the index over metadata takes rows of 2,704 bytes, tenant and key among them."""


@dataclass(frozen=True)
class Condition:
    """One comparison of one field. `value` is a scalar, a tuple for `in`, a bool for `exists`."""

    field: str
    op: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Group:
    """Several filters joined, or one negated."""

    kind: Literal["and", "or", "not"]
    parts: tuple[Filter, ...]


Filter = Condition | Group


def parse_filter(raw: Mapping[str, Any]) -> Filter:
    """Validate a filter.

    Raises:
        InvalidFilter: names the place that is wrong, e.g. `filter.and.0.year.gte`.
    """
    conditions: list[Condition] = []
    tree = _parse(raw, "filter", 1, conditions)
    if len(conditions) > _MAX_CONDITIONS:
        raise _invalid("filter", f"has more than {_MAX_CONDITIONS} conditions")
    if sum(len(one.value) for one in conditions if isinstance(one.value, tuple)) > _MAX_IN:
        raise _invalid("filter", f"has lists of more than {_MAX_IN} values in all")
    return tree


def parse_time(value: str) -> datetime | None:
    """Read an ISO 8601 date or time (UTC when it names no zone); None when it is neither."""
    if not re.match(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def compile_filter(tree: Filter) -> ColumnElement[bool]:
    """Return the SQL condition over `documents` (and, by EXISTS, the fields of the active version)."""
    if isinstance(tree, Condition):
        return _compile_condition(tree)
    parts = [compile_filter(part) for part in tree.parts]
    if tree.kind == "not":
        return not_(parts[0])
    return and_(true(), *parts) if tree.kind == "and" else or_(false(), *parts)


def _parse(raw: Any, pointer: str, depth: int, conditions: list[Condition]) -> Filter:
    if not isinstance(raw, Mapping) or not raw:
        raise _invalid(pointer, "must be an object with at least one member")
    if depth > _MAX_DEPTH:
        raise _invalid(pointer, f"is nested deeper than {_MAX_DEPTH} levels")
    parts: list[Filter] = []
    for name, value in raw.items():
        here = f"{pointer}.{name}"
        if name in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise _invalid(here, "must be a list of filters")
            inner = tuple(_parse(item, f"{here}.{i}", depth + 1, conditions) for i, item in enumerate(value))
            parts.append(Group(name, inner))
        elif name == "not":
            parts.append(Group("not", (_parse(value, here, depth + 1, conditions),)))
        else:
            parts.extend(_parse_field(name, value, here, conditions))
    return parts[0] if len(parts) == 1 else Group("and", tuple(parts))


def _parse_field(name: str, ops: Any, pointer: str, conditions: list[Condition]) -> list[Filter]:
    if not FIELD_NAME.fullmatch(name):
        raise _invalid(pointer, "is not a field name (letters, digits, '_', '.', '-'; at most 64)")
    if not isinstance(ops, Mapping) or not ops:
        raise _invalid(pointer, f"must be an object with one of {', '.join(_OPS)}")
    found: list[Filter] = []
    for op, value in ops.items():
        if op not in _OPS:
            raise _invalid(f"{pointer}.{op}", f"is not one of {', '.join(_OPS)}")
        condition = Condition(name, op, _value(name, op, value, f"{pointer}.{op}"))
        conditions.append(condition)
        found.append(condition)
    return found


def _value(name: str, op: str, value: Any, pointer: str) -> Scalar | tuple[Scalar, ...]:
    if op == "exists":
        if not isinstance(value, bool):
            raise _invalid(pointer, "must be true or false")
        return value
    if op == "in":
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_IN:
            raise _invalid(pointer, f"must be a list of 1 to {_MAX_IN} values")
        return tuple(_scalar(name, item, f"{pointer}.{i}") for i, item in enumerate(value))
    if op in _ORDER and isinstance(value, bool):
        raise _invalid(pointer, "cannot order true and false")
    return _scalar(name, value, pointer)


def _scalar(name: str, value: Any, pointer: str) -> Scalar:
    if isinstance(value, str):
        if fault := text_fault(value):
            raise _invalid(pointer, fault)
        if name in _TIME_FIELDS and parse_time(value) is None:
            raise _invalid(pointer, "must be a date or time such as 2026-01-31 or 2026-01-31T09:00:00Z")
        return value
    if name in BUILT_INS:
        raise _invalid(pointer, "must be a string")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    raise _invalid(pointer, "must be a string, a number, or true or false")


def text_fault(value: str) -> str | None:
    """Return what is wrong with a text of a filter or of metadata, the end of a sentence; None for a good one."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is not text"
    if size > MAX_TEXT_BYTES or "\x00" in value:
        return f"must be at most {MAX_TEXT_BYTES} bytes in UTF-8, without NUL"
    return None


def _compile_condition(condition: Condition) -> ColumnElement[bool]:
    if condition.op == "ne":
        return not_(_compile_condition(Condition(condition.field, "eq", condition.value)))
    if condition.op == "exists":
        present = _present(condition.field)
        return present if condition.value else not_(present)
    if condition.field in BUILT_INS:
        return _compile_built_in(condition)
    return _has_field(condition.field, _compare_field(condition))


def _compile_built_in(condition: Condition) -> ColumnElement[bool]:
    column = getattr(Document, condition.field)
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    wanted = [parse_time(str(v)) if condition.field in _TIME_FIELDS else str(v) for v in values]
    compare = _ORDER[condition.op](column, wanted[0]) if condition.op in _ORDER else column.in_(wanted)
    return and_(column.is_not(None), compare)


def _compare_field(condition: Condition) -> ColumnElement[bool]:
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if condition.op in _ORDER:
        value = values[0]
        moment = parse_time(value) if isinstance(value, str) else None
        if moment is not None:
            return _ORDER[condition.op](DocumentField.time_value, moment)
        column = DocumentField.text_value if isinstance(value, str) else DocumentField.number_value
        return _ORDER[condition.op](column, value)
    texts = [v for v in values if isinstance(v, str)]
    booleans = [v for v in values if isinstance(v, bool)]
    numbers = [v for v in values if isinstance(v, float)]
    return or_(
        false(),
        *([DocumentField.text_value.in_(texts)] if texts else []),
        *([DocumentField.bool_value.in_(booleans)] if booleans else []),
        *([DocumentField.number_value.in_(numbers)] if numbers else []),
    )


def _present(field: str) -> ColumnElement[bool]:
    return getattr(Document, field).is_not(None) if field in BUILT_INS else _has_field(field, true())


def _has_field(field: str, comparison: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(
        select(1).where(
            DocumentField.tenant_id == Document.tenant_id,
            DocumentField.document_id == Document.id,
            DocumentField.version == Document.active_version,
            DocumentField.key == field,
            comparison,
        )
    )


def _invalid(pointer: str, detail: str) -> InvalidFilter:
    return InvalidFilter(f"The filter is not valid: {pointer} {detail}.", fields=(FieldError(pointer, detail),))
