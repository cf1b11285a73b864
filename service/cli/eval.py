"""The commands `tessera eval retrieval` and `tessera eval compare`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from eval.datasets import JudgedSet, load_set
from eval.report import Change, Figure, Report, compare, load_report, save_report
from eval.retrieval import Plan, evaluate
from service.cli.connection import AdminKeyOption, UrlOption, admin_client, data_folder
from service.cli.terminal import err, note, out, run, table, text

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Measure retrieval with your own documents and questions.",
)
FolderArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder with corpus.jsonl, queries.jsonl and qrels.tsv.", exists=True, file_okay=False, show_default=False
    ),
]
QueriesOption = Annotated[
    Path | None, typer.Option("--queries", help="Another file of questions, in the folder or elsewhere.")
]
QrelsOption = Annotated[Path | None, typer.Option("--qrels", help="Another file of judgements.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Ask so many of the questions, always the same.")
]
DepthOption = Annotated[int, typer.Option("--k", min=10, max=100, help="Passages asked for.")]
WeightOption = Annotated[
    float | None, typer.Option("--bm25-weight", min=0.0, max=1.0, help="Share of BM25 in the fusion, for this tenant.")
]
SlugOption = Annotated[
    str | None,
    typer.Option("--tenant", help="Slug to work under; a tenant that is there already is asked, not filled again."),
]
KeepOption = Annotated[bool, typer.Option("--keep", help="Leave the tenant with its documents, for another run.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Where the report goes [<data folder>/eval/].")]
RunFile = typer.Argument(exists=True, dir_okay=False, show_default=False)


@app.command()
def retrieval(
    folder: FolderArgument,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    limit: LimitOption = None,
    k: DepthOption = 100,
    bm25_weight: WeightOption = None,
    tenant: SlugOption = None,
    keep: KeepOption = False,
    out_file: OutOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Ingest a set of documents into a scratch tenant, ask its questions, print and store how well they were answered.

    Everything goes through the HTTP API. The scratch tenant is deleted at the end.
    """
    plan = Plan(k=k, limit=limit, bm25_weight=bm25_weight, tenant=tenant, keep=keep)
    report, path = run(_retrieval((url, admin_key), plan, (folder, queries, qrels), out_file))
    show_report(report)
    note(f"Stored in {path}")


@app.command("compare")
def compare_runs(
    a: Annotated[Path, RunFile],
    b: Annotated[Path, RunFile],
) -> None:
    """Compare two stored runs question by question: the difference B - A with its 95% interval."""
    show_changes(*run(_compare(a, b)))


async def _retrieval(
    access: tuple[str | None, str | None], plan: Plan, files: tuple[Path, Path | None, Path | None], path: Path | None
) -> tuple[Report, Path]:
    folder, queries, qrels = files
    judged = await asyncio.to_thread(load_set, folder, queries=queries, qrels=qrels)
    async with admin_client(*access) as admin:
        with bars() as progress:
            report = await evaluate(admin, plan, judged, progress)
    stored = path or data_folder() / "eval" / report_name(judged)
    await asyncio.to_thread(save_report, report, stored)
    return report, stored


async def _compare(a: Path, b: Path) -> tuple[Report, Report, list[Change]]:
    def work() -> tuple[Report, Report, list[Change]]:
        first, second = load_report(a), load_report(b)
        return first, second, compare(first, second)

    return await asyncio.to_thread(work)


def report_name(judged: JudgedSet) -> str:
    """Return the name of a report's file: set, questions, time."""
    questions = judged.queries_file.removesuffix(".jsonl").removeprefix("queries").strip("_-")
    return "-".join(part for part in (judged.name, questions, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}") if part) + ".json"


class Bars:
    """Shows each stage of an evaluation as a bar on standard error."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._stage: TaskID | None = None

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""
        self._stage = self._shown.add_task(stage, total=total)

    def reach(self, done: int) -> None:
        """Move the bar."""
        if self._stage is not None:
            self._shown.update(self._stage, completed=done)


@contextmanager
def bars() -> Iterator[Bars]:
    """Give bars for the stages of a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as shown:
        yield Bars(shown)


def show_report(report: Report) -> None:
    """Print the figures of a run with their intervals."""
    facts = report.set
    out.print(text(f"{facts.name}, {facts.queries_file}: {facts.questions} questions, {facts.documents} documents"))
    shown = table("figure", "value", "95% interval")
    for name, figure in report.figures.items():
        shown.add_row(name, *_row(figure, ".4f"))
    for name, figure in report.latency_ms.items():
        shown.add_row(f"latency {name}, ms (k={report.choices.k})", *_row(figure, ".1f"))
    out.print(shown)
    for sentence in remarks(report):
        note(sentence)


def remarks(report: Report) -> list[str]:
    """Return what a reader of the figures must know besides."""
    found, facts, ingestion = [], report.set, report.ingestion
    if ingestion is not None:
        rate = ingestion.documents / ingestion.ready_s
        found.append(
            f"{ingestion.documents} documents were ready after {ingestion.ready_s:.1f} s ({rate:.1f} a second)."
        )
        for what, counts in (("refused", ingestion.refused), ("failed", ingestion.failed)):
            found += [f"{number} documents {what}: {code}." for code, number in sorted(counts.items())]
        if ingestion.metadata_dropped:
            found.append(f"{ingestion.metadata_dropped} metadata values could not be stored.")
    if facts.unjudged:
        found.append(f"{facts.unjudged} questions have no judged answer and were left out.")
    if facts.missing:
        found.append(f"{facts.missing} judged documents are not in the corpus; they count as not found.")
    for part, number in sorted(report.degraded.items()):
        found.append(f"WARNING: {number} questions were answered without {part}: do not compare this run.")
    return found


def show_changes(a: Report, b: Report, changes: list[Change]) -> None:
    """Print the differences between two runs."""
    asked = {one.id for one in a.questions}
    common = sum(one.id in asked for one in b.questions)
    out.print(text(f"{a.set.name}: {common} questions asked by both ({len(a.questions)} and {len(b.questions)})"))
    shown = table("figure", "A", "B", "B - A", "95% interval", "p")
    for change in changes:
        found = change.difference
        interval = f"{found.low:+.4f} .. {found.high:+.4f}"
        shown.add_row(
            change.measure, f"{change.a:.4f}", f"{change.b:.4f}", f"{found.value:+.4f}", interval, f"{found.p:.3f}"
        )
    out.print(shown)
    for name, left, right in (
        ("corpus", a.set.digests["corpus"], b.set.digests["corpus"]),
        ("questions", a.set.digests["queries"], b.set.digests["queries"]),
    ):
        if left != right:
            note(f"The two runs used different files: {name}.")


def _row(figure: Figure, form: str) -> tuple[str, str]:
    return f"{figure.value:{form}}", f"{figure.low:{form}} .. {figure.high:{form}}"
