"""One hostile document takes nothing with it, and reaches nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from ingestion.parse.confine import landlock_version
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import ParserPool, parse_documents
from ingestion.settings import IngestSettings
from tenants.errors import DocumentRejected, Unavailable

_HOSTILE = (str(Path(__file__).with_name("hostile_nursery.py")),)
_DEADLINE_S = 30
_NURSERY_VARIABLES = {"LANG", "MALLOC_ARENA_MAX", "OMP_THREAD_LIMIT", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}

Write = Callable[..., ParseItem]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Puts a document into a file."""

    def written(format_name: str, content: str | bytes = "Words.") -> ParseItem:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.{format_name}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ParseItem(path, format_name, path.name)

    return written


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    pool = ParserPool(ParseLimits(memory_bytes=512 * 1024**2, cpu_s=1, max_text_chars=100_000), command=_HOSTILE)
    yield pool
    await pool.aclose()


def outcome(answer: ParsedDocument | DocumentRejected) -> str:
    return answer.code if isinstance(answer, DocumentRejected) else answer.text


def nursery_of(pool: ParserPool) -> psutil.Process:
    (child,) = (p for p in psutil.Process().children() if any("hostile_nursery" in part for part in p.cmdline()))
    return child


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def _python(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[3])
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env={**os.environ, "PYTHONPATH": root})


async def test_documents_come_back_in_order(write: Write):
    items = [write("txt", f"Document {i}.") for i in range(150)]
    items.insert(70, write("markdown", "# Title\n\nText."))
    items.insert(71, write("html", "<h1>Title</h1>"))
    items.insert(72, write("txt", b"\x00\x01" * 99))
    answers = await parse_documents(items, ParseLimits())
    assert [outcome(answer) for answer in answers] == [
        *[f"Document {i}." for i in range(70)],
        "# Title\n\nText.",
        "Title",
        "document_encoding",
        *[f"Document {i}." for i in range(70, 150)],
    ]
    markdown = answers[70]
    assert isinstance(markdown, ParsedDocument)
    assert (markdown.title, markdown.format, markdown.blocks[0].kind) == ("Title", "markdown", "heading")


async def test_nothing_to_parse_is_no_work():
    assert await parse_documents([], ParseLimits()) == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("fault", "document_unreadable"),
        ("leave", "document_unreadable"),
        ("bug", "document_unreadable"),
        ("deep", "nested_too_deeply"),
        ("lie", "document_unreadable"),
        ("flood", "document_unreadable"),
        ("nonsense", "document_unreadable"),
        ("hog", "parser_memory"),
        ("leak", "parser_memory"),
        ("spin", "parser_timeout"),
    ],
)
async def test_a_poison_document_is_rejected_and_the_others_go_on(pool: ParserPool, write: Write, kind: str, code: str):
    items = [write("txt", "First."), write("txt", "Second."), write(kind), write("txt", "Third."), write(kind)]
    answers = await pool.parse(items)
    assert [outcome(answer) for answer in answers] == ["First.", "Second.", code, "Third.", code]


async def test_a_document_that_hangs_is_rejected_after_the_wall_time(write: Write):
    pool = ParserPool(ParseLimits(wall_s=3), command=_HOSTILE)
    try:
        answers = await pool.parse([write("sleep", "0"), write("sleep", "1000"), write("txt")])
        assert [outcome(answer) for answer in answers] == ["slept", "parser_timeout", "Words."]
        await until(lambda: not nursery_of(pool).children())
    finally:
        await pool.aclose()


async def test_the_cpu_time_is_each_documents_own(pool: ParserPool, write: Write):
    """One second is allowed; together these need more, each alone does not."""
    items = [write("txt", "Words and words. " * 5000) for _ in range(64)]
    assert {outcome(answer)[:5] for answer in await pool.parse(items)} == {"Words"}


async def test_no_document_is_parsed_in_the_process_of_another(pool: ParserPool, write: Write):
    answers = await pool.parse([write("txt"), write("alone"), write("alone"), write("txt")])
    assert [outcome(answer) for answer in answers] == ["Words.", "alone", "alone", "Words."]


async def test_batches_may_run_at_once(pool: ParserPool, write: Write):
    batches = [[write("txt", f"{i}-{j}") for j in range(10)] + [write("bug")] for i in range(4)]
    answers = await asyncio.gather(*(pool.parse(batch) for batch in batches))
    expected = [[*[f"{i}-{j}" for j in range(10)], "document_unreadable"] for i in range(4)]
    assert [[outcome(answer) for answer in batch] for batch in answers] == expected


@pytest.mark.skipif(landlock_version() < 1, reason="this kernel has no Landlock")
async def test_a_taken_over_parser_reaches_nothing(
    pool: ParserPool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TESSERA_SECRET", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    beside = asyncio.create_task(pool.parse([write("sleep")]))  # another's worker, of which it has no handle
    await pool.parse([write("txt")])
    _, answer, _ = await pool.parse([write("txt"), write("look", str(secret)), write("txt")])
    beside.cancel()
    reached = json.loads(outcome(answer))
    assert set(reached.pop("environment")) == _NURSERY_VARIABLES
    assert reached.pop("codec") == "渡"
    assert reached.pop("documents") == 0  # its own is read and closed, the others are not there
    assert reached.pop("handles") == 1  # to answer by
    assert {name: str(value)[:8] for name, value in reached.items()} == dict.fromkeys(reached, "refused:")
    assert "hunter2" not in outcome(answer)
    assert secret.read_text() == "hunter2"


async def test_cancelling_ends_the_worker_and_leaves_the_pool_usable(pool: ParserPool, write: Write):
    task = asyncio.create_task(pool.parse([write("sleep", "1000")]))
    await until(lambda: bool(psutil.Process().children()) and bool(nursery_of(pool).children()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not nursery_of(pool).children())
    assert outcome((await pool.parse([write("txt")]))[0]) == "Words."


async def test_a_killed_nursery_is_replaced_in_the_middle_of_a_batch(pool: ParserPool, write: Write):
    await pool.start()
    first = nursery_of(pool)
    task = asyncio.create_task(pool.parse([write("txt", "First."), write("sleep", "1"), write("txt", "Last.")]))
    await until(lambda: bool(first.children()))
    first.kill()
    assert [outcome(answer) for answer in await task] == ["First.", "slept", "Last."]
    assert nursery_of(pool).pid != first.pid


async def test_text_is_parsed_beside_nothing_but_its_parsers(write: Write):
    pool = ParserPool(ParseLimits())
    items = [write("txt", "one"), write("markdown", "two"), write("html", "<p>three"), write("txt", "four")]
    try:
        assert [outcome(answer) for answer in await pool.parse(items)] == ["one", "two", "three", "four"]
        nurseries = [process for process in psutil.Process().children() if "ingestion.parse" in str(process.cmdline())]
        held = {process.cmdline()[-3]: {Path(one.path).name for one in process.memory_maps()} for process in nurseries}
    finally:
        await pool.aclose()
    text, everything = held["ingestion.parse.text_formats"], held["ingestion.parse.all_formats"]
    assert [name for name in text if any(other in name for other in ("pdfium", "_ssl", "_asyncio"))] == []
    assert [name for name in everything if "pdfium" in name]


async def test_a_nursery_that_cannot_start_is_unavailable_for_now(write: Write, capfd: pytest.CaptureFixture[str]):
    pool = ParserPool(ParseLimits(), command=("-m", "no_such_module"))
    with pytest.raises(Unavailable) as caught:
        await pool.parse([write("txt")])
    assert caught.value.retryable
    await pool.aclose()
    assert "no_such_module" in capfd.readouterr().err


async def test_a_missing_file_is_not_the_documents_fault(pool: ParserPool, write: Write, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        await pool.parse([write("txt"), ParseItem(tmp_path / "gone.txt", "txt", "gone.txt")])
    assert outcome((await pool.parse([write("txt")]))[0]) == "Words."


async def test_closing_ends_every_process(write: Write):
    pool = ParserPool(ParseLimits(), command=_HOSTILE)
    task = asyncio.create_task(pool.parse([write("sleep", "1000")]))
    await until(lambda: bool(psutil.Process().children()) and bool(nursery_of(pool).children()))
    family = [nursery_of(pool), *nursery_of(pool).children()]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pool.aclose()
    await until(lambda: not any(process.is_running() for process in family))


async def test_no_orphan_is_left_when_the_service_is_killed(write: Write):
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from ingestion.parse.flow import ParseItem
        from ingestion.parse.limits import ParseLimits
        from ingestion.parse.sandbox import ParserPool

        async def main():
            pool = ParserPool(ParseLimits(), command=(sys.argv[1],))
            await pool.parse([ParseItem(Path(sys.argv[2]), "sleep", "x")])

        asyncio.run(main())
    """)
    service = _python(script, *_HOSTILE, str(write("sleep", "1000").content))
    try:
        await until(lambda: len(psutil.Process(service.pid).children(recursive=True)) == 3)
        family = psutil.Process(service.pid).children(recursive=True)
    finally:
        service.send_signal(signal.SIGKILL)
        await asyncio.to_thread(service.wait)
    await until(lambda: not any(process.is_running() for process in family))


async def outcomes_of(pool: ParserPool, items: list[ParseItem], patience_s: float) -> list[tuple[int, str]]:
    found = []
    async with contextlib.aclosing(pool.stream(items, patience_s=patience_s).outcomes()) as outcomes:
        async for at, outcome in outcomes:
            found.append((at, getattr(outcome, "text", None) or getattr(outcome, "code", "overdue")))
    return found


async def test_a_slow_document_is_overtaken_by_those_after_it(write: Write):
    pool = ParserPool(ParseLimits(wall_s=20), command=_HOSTILE)
    items = [
        write("txt", "one"),
        write("sleep", "5"),
        write("txt", "three"),
        write("sleep", "4"),
        write("txt", "five"),
    ]
    try:
        found = await outcomes_of(pool, items, 0.7)
    finally:
        await pool.aclose()
    ended = [one for one in found if one[1] != "overdue"]
    assert set(ended[:3]) == {(0, "one"), (2, "three"), (4, "five")}
    assert set(ended[3:]) == {(1, "slept"), (3, "slept")}
    assert {(1, "overdue"), (3, "overdue")} <= set(found)


async def test_what_overtakes_may_be_hostile_and_what_is_overtaken_too(write: Write):
    pool = ParserPool(ParseLimits(wall_s=2), command=_HOSTILE)
    items = [
        write("sleep", "60"),
        write("fault", "x"),
        write("txt", "three"),
        write("leave", "x"),
        write("txt", "five"),
    ]
    try:
        found = dict(await outcomes_of(pool, items, 0.3))
    finally:
        await pool.aclose()
    assert found == {0: "parser_timeout", 1: "document_unreadable", 2: "three", 3: "document_unreadable", 4: "five"}


async def test_a_slow_document_can_be_given_up(write: Write):
    pool = ParserPool(ParseLimits(wall_s=60), command=_HOSTILE)
    stream = pool.stream([write("sleep", "50"), write("txt", "two"), write("sleep", "50")], patience_s=0.3)
    found = []
    try:
        async with contextlib.aclosing(stream.outcomes()) as outcomes:
            async for at, outcome in outcomes:
                found.append((at, outcome is None))
                if outcome is None:
                    assert stream.give_up(at)
                    assert not stream.give_up(at)
        await until(lambda: not nursery_of(pool).children())
    finally:
        await pool.aclose()
    assert found == [(0, True), (1, False), (2, True)]


def test_limits_come_from_the_settings():
    settings = IngestSettings(
        parse_cpu_s=7, parse_wall_s=8.5, max_text_chars=9, max_pages=10, ocr="off", ocr_languages="deu"
    )
    assert ParseLimits.from_settings(settings) == ParseLimits(1024**3, 7, 8.5, 9, 10, ocr=False, ocr_languages="deu")
