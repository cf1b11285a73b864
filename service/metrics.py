"""`/metrics` for Prometheus: what this process counted, and how the indexes stand in Postgres. The operator's alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingestion.fsck import figures
from ingestion.job_queue import Depth, depths
from ingestion.jobs import upkeep_by_state
from ingestion.sources.repository import Freshness, freshness
from ingestion.state import queue_watch_of
from rag.chat import Answerer
from service.generation_metrics import generation_metrics
from service.model_metrics import model_metrics
from shards.overview import OverviewOut, overview
from shards.state import indexes_of, models_of
from shards.usage import Totals, UsageWatch
from tenants.auth import current_admin
from tenants.state import database_of

router = APIRouter(tags=["health"], dependencies=[Depends(current_admin)])


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format. Scrape with the admin key as bearer token."""
    usage: UsageWatch = request.state.usage
    answerer: Answerer = request.state.answerer
    async with database_of(request).admin() as session:
        shown, upkeep = await overview(session, indexes_of(request)), await upkeep_by_state(session)
        queue, fresh = await depths(session, queue_watch_of(request).queues), await freshness(session)
        checks, waiting = await figures.overview(session), await figures.removals(session)
    indexes = [*_counted(usage.totals), *_engines(shown), *_indexes(shown), *_upkeep(upkeep)]
    families = [
        _process(request.state.process_name),
        *indexes,
        *_queue(queue),
        *_sources(fresh),
        *_checks(checks),
        *_removals(waiting),
        *model_metrics(models_of(request), answerer.retriever, await request.state.worker_seconds()),
        *generation_metrics(answerer.generator),
    ]
    registry = CollectorRegistry()
    registry.register(_Snapshot(families))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Snapshot(Collector):
    """Metrics that were gathered already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _process(name: str) -> Metric:
    """What is counted is this process's own; what is gauged stands in Postgres, and every process says the same."""
    family = GaugeMetricFamily("tessera_process_info", "The process that answers.", labels=["process"])
    family.add_metric([name], 1)
    return family


def _counted(totals: Totals) -> Iterator[Metric]:
    searches = CounterMetricFamily("tessera_searches", "Searches of vectors, by plan.", labels=["plan"])
    for plan, count in sorted(totals.searches.items()):
        searches.add_metric([plan], count)
    yield searches
    yield CounterMetricFamily("tessera_cells_visited", "Cells that searches visited.", totals.cells_visited)
    yield CounterMetricFamily("tessera_rows_scanned", "Rows in these cells.", totals.rows_scanned)
    yield CounterMetricFamily("tessera_index_loads", "Indexes loaded because a call needed them.", totals.loads)
    yield CounterMetricFamily("tessera_index_load_seconds", "Time that these loads took.", totals.load_s)


def _engines(shown: OverviewOut) -> Iterator[Metric]:
    for name, help_text in (
        ("partitions", "Partitions taken or promised."),
        ("budget", "Partitions that the server may hold."),
        ("databases", "Databases of isolated tenants."),
    ):
        label = "partition_budget" if name == "budget" else name
        family = GaugeMetricFamily(f"tessera_{label}", help_text, labels=["server"])
        for server in shown.servers:
            family.add_metric([server.endpoint or "main"], getattr(server, name))
        yield family


def _indexes(shown: OverviewOut) -> Iterator[Metric]:
    for name, help_text in (
        ("tenants", "Tenants with documents."),
        ("rows", "Chunks in their indexes."),
        ("cells", "Cells of their indexes."),
        ("released", "Tenants whose index is out of the engine's memory."),
    ):
        family = GaugeMetricFamily(f"tessera_tier_{name}", help_text, labels=["tier"])
        for tier in shown.tiers:
            family.add_metric([tier.tier], getattr(tier, name))
        yield family
    recall = GaugeMetricFamily(
        "tessera_recall", "Recall@10 of the sampled questions of the largest tenants.", labels=["tenant", "bound"]
    )
    samples = GaugeMetricFamily("tessera_recall_samples", "Questions it rests on.", labels=["tenant"])
    for one in shown.largest:
        if one.recall is not None:
            samples.add_metric([one.slug], one.samples)
            for bound, value in (("mean", one.recall), ("low", one.recall_low), ("high", one.recall_high)):
                recall.add_metric([one.slug, bound], value or 0.0)
    yield recall
    yield samples


def _upkeep(upkeep: dict[str, int]) -> Iterator[Metric]:
    family = GaugeMetricFamily("tessera_upkeep_jobs", "Upkeep of indexes, by state of the job.", labels=["state"])
    for state in ("queued", "running", "retrying", "failed"):
        family.add_metric([state], upkeep.get(state, 0))
    yield family


def _queue(found: list[Depth]) -> Iterator[Metric]:
    for name, attribute, help_text in (
        ("jobs", "jobs", "Jobs that wait or run."),
        ("bytes", "bytes", "Bytes of the documents they are about."),
        ("oldest_seconds", "oldest_s", "Time since the oldest of them could begin."),
    ):
        family = GaugeMetricFamily(f"tessera_queue_{name}", help_text, labels=["lane", "state", "queue"])
        for depth in found:
            family.add_metric([depth.lane.name.lower(), depth.state, depth.queue], getattr(depth, attribute))
        yield family


def _sources(fresh: Freshness) -> Iterator[Metric]:
    yield GaugeMetricFamily("tessera_sources", "Sources that tenants have registered.", fresh.sources)
    runs = CounterMetricFamily("tessera_source_runs", "Runs of sources that have ended.", labels=["state"])
    runs.add_metric(["done"], fresh.done)
    runs.add_metric(["failed"], fresh.failed)
    yield runs
    latest = GaugeMetricFamily(
        "tessera_source_last_success_timestamp_seconds",
        "When a source was last read through; of those longest ago.",
        labels=["tenant", "source"],
    )
    for slug, source_id, moment in fresh.clocks:
        latest.add_metric([slug, str(source_id)], moment.timestamp())
    yield latest


def _checks(found: figures.Overview) -> Iterator[Metric]:
    differences = GaugeMetricFamily(
        "tessera_fsck_differences", "Differences that the newest checks left, by store.", labels=["store", "class"]
    )
    for (store, kind), number in sorted(found.differences.items()):
        differences.add_metric([store, kind], number)
    yield differences
    for name, help_text, value in (
        ("tenants_checked", "Tenants that were checked.", found.checked),
        ("tenants", "Tenants to be checked.", found.tenants),
        ("not_checked", "Tenants, parts of them and vector servers that could not be checked.", found.not_checked),
        ("seconds", "Time that their newest checks took together.", found.seconds),
        ("repaired", "Differences that these checks mended.", found.repaired),
        ("last_run_timestamp_seconds", "When the newest check ended.", found.newest),
        ("oldest_run_timestamp_seconds", "When the newest check of the tenant ended that waits longest.", found.oldest),
    ):
        yield GaugeMetricFamily(f"tessera_fsck_{name}", help_text, value)


def _removals(found: list[figures.Removals]) -> Iterator[Metric]:
    number = GaugeMetricFamily("tessera_removals", "Removals that are not done, by kind.", labels=["kind"])
    oldest = GaugeMetricFamily("tessera_removals_oldest_seconds", "Age of the oldest of them.", labels=["kind"])
    for one in found:
        number.add_metric([one.kind], one.number)
        oldest.add_metric([one.kind], one.oldest_s)
    yield number
    yield oldest
