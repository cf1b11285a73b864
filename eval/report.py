"""What an evaluation found, as it is stored: one JSON file from which every figure can be computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.bootstrap import Difference, Interval, mean_interval, paired_difference, quantile_intervals
from eval.datasets import JudgedSet
from eval.metrics import MEASURES
from tenants.errors import InvalidRequest

LATENCY_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Figure(BaseModel):
    """A figure with its 95% bootstrap interval over the questions."""

    model_config = ConfigDict(from_attributes=True)

    value: float
    low: float
    high: float


class SetFacts(BaseModel):
    """Which set was measured; the digests are SHA-256 of its files."""

    name: str
    queries_file: str
    documents: int
    questions: int
    unjudged: int
    missing: int
    digests: dict[str, str]


class Choices(BaseModel):
    """How it was measured. `bm25_weight` None is the installation's default."""

    k: int
    limit: int | None = None
    bm25_weight: float | None = None


class Ingestion(BaseModel):
    """How the corpus got in. `refused` and `failed` count documents by code: at the upload, and in their job."""

    documents: int
    refused: dict[str, int]
    failed: dict[str, int]
    metadata_dropped: int
    """Metadata values that the API cannot store."""
    upload_s: float
    ready_s: float
    """From the first upload until everything could be found and the index was at rest."""


class Asked(BaseModel):
    """One question: where its judged documents came, and what that is worth."""

    id: str
    ranks: dict[str, int]
    figures: dict[str, float]
    latency_ms: float
    """Client-side wall clock of the request."""
    degraded: list[str] = Field(default_factory=list)


class Report(BaseModel):
    """One run."""

    version: Literal[1] = 1
    created_at: datetime
    tenant: str
    set: SetFacts
    choices: Choices
    ingestion: Ingestion | None
    """None when a kept tenant was asked again."""
    figures: dict[str, Figure]
    latency_ms: dict[str, Figure]
    server_ms: dict[str, float]
    """Mean of each stage's time as the service reports it."""
    degraded: dict[str, int]
    """Questions answered without a part of the service, by part; such a run says nothing about the whole service."""
    questions: list[Asked]


@dataclass(frozen=True)
class Change:
    """One measure of two runs over the questions that both asked."""

    measure: str
    a: float
    b: float
    difference: Difference


def make_report(
    judged: JudgedSet,
    asked: Sequence[Asked],
    *,
    tenant: str,
    choices: Choices,
    ingestion: Ingestion | None,
    server_ms: dict[str, float],
) -> Report:
    """Compute the figures. Takes seconds with thousands of questions: 10,000 resamples each."""
    latencies = [one.latency_ms for one in asked]
    quantiles = quantile_intervals(latencies, list(LATENCY_SHARES.values()))
    return Report(
        created_at=datetime.now(UTC),
        tenant=tenant,
        set=SetFacts(
            name=judged.name,
            queries_file=judged.queries_file,
            documents=len(judged.corpus),
            questions=len(asked),
            unjudged=judged.unjudged,
            missing=judged.missing,
            digests=asdict(judged.digests),
        ),
        choices=choices,
        ingestion=ingestion,
        figures={name: _figure(mean_interval([one.figures[name] for one in asked])) for name in MEASURES},
        latency_ms={name: _figure(one) for name, one in zip(LATENCY_SHARES, quantiles, strict=True)},
        server_ms=server_ms,
        degraded=dict(Counter(part for one in asked for part in one.degraded)),
        questions=list(asked),
    )


def save_report(report: Report, path: Path) -> None:
    """Write a report; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=1), encoding="utf-8")


def load_report(path: Path) -> Report:
    """Read a report.

    Raises:
        InvalidRequest: (`invalid_report`) it is missing or is not a report.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path} is missing.", code="invalid_report") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not a report of `tessera eval retrieval`.", code="invalid_report") from error


def compare(a: Report, b: Report) -> list[Change]:
    """Compare two runs question by question, by a paired bootstrap over the questions that both asked.

    Raises:
        InvalidRequest: (`not_comparable`) other judgements, or no question in common.
    """
    if a.set.digests["qrels"] != b.set.digests["qrels"]:
        raise InvalidRequest("The two runs were judged by different qrels.", code="not_comparable")
    by_id = {one.id: one.figures for one in b.questions}
    pairs = [(one.figures, by_id[one.id]) for one in a.questions if one.id in by_id]
    if not pairs:
        raise InvalidRequest("The two runs have no question in common.", code="not_comparable")
    return [_change(name, [(left[name], right[name]) for left, right in pairs]) for name in MEASURES]


def _change(measure: str, values: Sequence[tuple[float, float]]) -> Change:
    left, right = [a for a, _ in values], [b for _, b in values]
    return Change(measure, sum(left) / len(left), sum(right) / len(right), paired_difference(left, right))


def _figure(interval: Interval) -> Figure:
    return Figure.model_validate(interval)
