"""The house rules that a machine can check. Each rule is shown a small sin first, so that it is known to see one."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rag", "ingestion", "tenants", "shards", "service", "eval", "migrations")
FILE_LINES, FUNCTION_LINES, MOCKS_A_TEST = 400, 60, 0.2

COMMITS_ELSEWHERE = {
    "ingestion/dispatch.py": "serves no request and no task: it commits a batch, then gives it to the broker",
    "shards/bm25.py": "tantivy's writer: the commit of an index, not of a database",
}
OWN_SESSIONS = {"tenants/roles.py": "it runs once, and refuses a pooler"}
LONG_FUNCTIONS = {"upgrade": "a migration is a list of statements", "downgrade": "the same"}

_API = r"(.*/)?(\w+_)?api\.py"
_REQUESTS = r"ingestion/upload_form\.py|(ingestion|shards|tenants)/state\.py"
"""What routes share: how a form is read, and what lies in `request.state`."""
DOORS = {
    "pymilvus": r"shards/.*",
    "milvus_lite": r"service/local/lite_server\.py",
    "tantivy": r"shards/.*",
    "opensearchpy": r"shards/opensearch\w*\.py",
    "faiss": r"shards/.*",
    "onnx": r"shards/.*",
    "onnxruntime": r"shards/.*",
    "openvino": r"shards/.*",
    "tokenizers": r"shards/.*|service/servers/random_llama\.py",
    "obstore": r"ingestion/(objects|object_stores|sources/bucket)\.py",
    "httpcore": r"ingestion/sources/(guard|fetch)\.py",
    "dulwich": r"ingestion/sources/git_\w+\.py",
    "cronsim": r"ingestion/sources/schedule\.py",
    "protego": r"ingestion/sources/robots\.py",
    "cryptography": r"ingestion/sources/vault\.py",
    "fastapi": rf"{_API}|{_REQUESTS}|(tenants|service)/(auth|app|health|metrics|openapi|problems|idempotency)\.py",
    "starlette": rf"{_API}|{_REQUESTS}|(tenants|service)/(auth|app|health|openapi|problems|idempotency|edge|serve)\.py",
    "celery": r"ingestion/tasks\.py|service/(worker|broker|scheduler)\.py",
    "kombu": r"ingestion/tasks\.py|service/(worker|broker|scheduler)\.py",
    "sqlalchemy": r"(?!rag/answer/|ingestion/parse/|service/cli/|service/local/|eval/).*",
    "psycopg": r"tenants/(roles|engine|locks|one_trip)\.py|service/(database|local/\w+)\.py",
    "openai": r"rag/answer/.*",
    "typer": r"service/cli/.*",
    "rich": r"service/cli/.*",
    "matplotlib": r"service/cli/.*",
    "prometheus_client": r"service/(generation_|model_)?metrics\.py|rag/answer/server_metrics\.py",
}
"""Which modules may import a third party: a pattern over their paths."""

# In parts, so that this file keeps its own rules.
PUT_OFF = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("crates", "io"),
        ("maven", "org"),
        ("proxy", "golang", "org"),
    )
)

_OF_SESSIONS = re.compile(
    r"\s*(SET (?!LOCAL)(SESSION )?\w+(\.\w+)? ?(=|TO)|LISTEN |NOTIFY |PREPARE |DECLARE |CREATE (LOCAL )?TEMP|DISCARD "
    r"|SELECT pg_(try_)?advisory_(un)?lock)"
)

READERS = {"environ", "environb", "getenv", "getenvb"}
MOCKS = {"Mock", "MagicMock", "AsyncMock", "PropertyMock", "NonCallableMock", "create_autospec", "patch"}


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the checkout."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def sources(*folders: str) -> list[Source]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text()) for path in paths]


def files_are_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines, at most {FILE_LINES}: find the second noun in it and give it a file"


def functions_are_short(source: Source) -> Iterator[str]:
    for node in source.functions:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES and not (source.path.parts[0] == "migrations" and node.name in LONG_FUNCTIONS):
            yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"


def names_say_something(source: Source) -> Iterator[str]:
    for part in (*source.path.parent.parts, source.path.stem):
        if part in {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}:
            yield f"'{part}' says nothing of what is inside"


def package_files_are_empty(source: Source) -> Iterator[str]:
    if source.path.name == "__init__.py" and source.text.strip():
        yield "an __init__.py stays empty: import from the module itself"


def imports_stand_on_top(source: Source) -> Iterator[str]:
    for function in source.functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{node.lineno}: an import inside {function.name}"


def the_environment_is_read_by_settings(source: Source) -> Iterator[str]:
    if source.path.name == "settings.py":
        return
    for node in ast.walk(source.tree):
        read = isinstance(node, ast.Attribute) and node.attr in READERS and ast.unparse(node.value) == "os"
        name = isinstance(node, ast.ImportFrom) and node.module == "os"
        if read or (name and READERS.intersection(alias.name for alias in node.names)):
            yield f"{node.lineno}: the environment is read in settings.py alone"


def commits_are_in_sight(source: Source) -> Iterator[str]:
    allowed = re.fullmatch(rf"{_API}|.*/(\w+_)?tasks\.py|migrations/.*", str(source.path))
    if not allowed and str(source.path) not in COMMITS_ELSEWHERE:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit":
                yield f"{node.lineno}: commit in api.py or tasks.py, where the caller can see it"


def errors_are_named(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)
            last = node.body[-1]
            # What cleans up and raises again hides nothing.
            if broad and not (isinstance(last, ast.Raise) and last.exc is None):
                yield f"{node.lineno}: catch errors that you can name, or clean up and raise again"


def third_parties_have_one_door(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            door = DOORS.get(name.split(".")[0])
            if door and not re.fullmatch(door, str(source.path)):
                yield f"{node.lineno}: {name} comes in by another door ({door})"


def tasks_are_sent_by_the_dispatcher(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "delay":
            yield f"{node.lineno}: jobs wait in Postgres; the dispatcher alone sends them"


def nothing_outlives_a_transaction(source: Source) -> Iterator[str]:
    """Behind PgBouncer in transaction mode the next transaction may be on another connection of the server."""
    if source.path.parts[0] == "migrations" or str(source.path) in OWN_SESSIONS:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := _OF_SESSIONS.match(node.value)):
            yield f"{node.lineno}: '{found[0].strip()}' is a session's: what is set or locked ends with its transaction"


def what_is_public_is_explained(source: Source) -> Iterator[str]:
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield "1: the module has no docstring"
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            # Alembic calls these two by name.
            migration = source.path.parts[0] == "migrations" and node.name in LONG_FUNCTIONS
            if not migration and not ast.get_docstring(node):
                yield f"{node.lineno}: {node.name} has no docstring"


def nothing_is_put_off(source: Source) -> Iterator[str]:
    for found in re.finditer(rf"\b({'|'.join(PUT_OFF)})\b", source.text):
        yield f"{source.text.count(chr(10), 0, found.start()) + 1}: {found[0]}: do it, or file an issue"


def fakes_stand_in_not_mocks(source: Source) -> Iterator[str]:
    tests = sum(node.name.startswith("test_") for node in source.functions)
    calls = [ast.unparse(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    mocks = sum(call == "monkeypatch.setattr" or _is_mock(call) for call in calls)
    if mocks > MOCKS_A_TEST * tests:
        yield f"{mocks} mocks in {tests} tests, at most {MOCKS_A_TEST} a test: write a fake, or use the real thing"


def _is_mock(call: str) -> bool:
    first, *rest = call.split(".")
    return first in MOCKS or (first in {"mock", "mocker"} and bool(MOCKS.intersection(rest) or "object" in rest))


Rule = Callable[[Source], Iterator[str]]

PACKAGE_RULES: list[Rule] = [
    files_are_short,
    functions_are_short,
    names_say_something,
    package_files_are_empty,
    imports_stand_on_top,
    the_environment_is_read_by_settings,
    commits_are_in_sight,
    errors_are_named,
    third_parties_have_one_door,
    tasks_are_sent_by_the_dispatcher,
    nothing_outlives_a_transaction,
    what_is_public_is_explained,
    nothing_is_put_off,
]
TEST_RULES: list[Rule] = [fakes_stand_in_not_mocks, nothing_is_put_off]

_LONG = "def upgrade() -> None:\n" + "    pass\n" * FUNCTION_LINES
SINS: list[tuple[Rule, str, str]] = [
    (files_are_short, "rag/a.py", "x = 1\n" * (FILE_LINES + 1)),
    (functions_are_short, "rag/a.py", _LONG),
    (names_say_something, "rag/helpers.py", ""),
    (names_say_something, "rag/common/fuse.py", ""),
    (package_files_are_empty, "rag/__init__.py", "from rag.a import b"),
    (imports_stand_on_top, "rag/a.py", "def f():\n    if True:\n        import json"),
    (the_environment_is_read_by_settings, "rag/a.py", "import os\nx = os.environ['A']"),
    (the_environment_is_read_by_settings, "rag/a.py", "import os\nx = os.getenv('A')"),
    (the_environment_is_read_by_settings, "rag/a.py", "from os import environ"),
    (commits_are_in_sight, "rag/pipeline.py", "async def f(session):\n    await session.commit()"),
    (errors_are_named, "rag/a.py", "try:\n    f()\nexcept:\n    pass"),
    (errors_are_named, "rag/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (errors_are_named, "rag/a.py", "try:\n    f()\nexcept (OSError, BaseException) as e:\n    raise ValueError from e"),
    (third_parties_have_one_door, "rag/search/a.py", "import pymilvus"),
    (third_parties_have_one_door, "service/local/health.py", "from fastapi import Request"),
    (third_parties_have_one_door, "rag/answer/a.py", "from sqlalchemy.orm import Session"),
    (third_parties_have_one_door, "ingestion/api.py", "import celery.app"),
    (tasks_are_sent_by_the_dispatcher, "ingestion/api.py", "ingest.delay(tenant_id=1)"),
    (nothing_outlives_a_transaction, "rag/a.py", "x = text('SET lock_timeout = 1')"),
    (nothing_outlives_a_transaction, "rag/a.py", "x = text('SELECT pg_advisory_lock(:key)')"),
    (nothing_outlives_a_transaction, "rag/a.py", "x = 'CREATE TEMP TABLE a (b int)'"),
    (what_is_public_is_explained, "rag/a.py", '"""A."""\ndef f() -> None:\n    pass'),
    (what_is_public_is_explained, "rag/a.py", "x = 1"),
    (nothing_is_put_off, "rag/a.py", f"x = 1  # {PUT_OFF[0]} later"),
    (fakes_stand_in_not_mocks, "tests/a.py", "def test_a():\n    assert mock.patch('x')"),
    (fakes_stand_in_not_mocks, "tests/a.py", "def test_a(monkeypatch):\n    monkeypatch.setattr(a, 'b', 1)"),
]
VIRTUES: list[tuple[Rule, str, str]] = [
    (nothing_outlives_a_transaction, "rag/a.py", "x = 'SET LOCAL lock_timeout = 1'"),
    (nothing_outlives_a_transaction, "rag/a.py", "x = 'SELECT pg_advisory_xact_lock(:key)'"),
    (functions_are_short, "migrations/versions/0001.py", _LONG),
    (the_environment_is_read_by_settings, "rag/settings.py", "import os\nx = os.environ['A']"),
    (commits_are_in_sight, "ingestion/jobs_api.py", "async def f(session):\n    await session.commit()"),
    (errors_are_named, "rag/a.py", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
    (third_parties_have_one_door, "ingestion/jobs_api.py", "from fastapi import Request"),
    (third_parties_have_one_door, "rag/search/a.py", "import sqlalchemy"),
    (fakes_stand_in_not_mocks, "tests/a.py", "async def test_a(client):\n    await client.patch('/x')"),
]


def _named(case: object) -> str:
    return getattr(case, "__name__", str(case))[:40]


@pytest.mark.parametrize(("rule", "path", "text"), SINS, ids=_named)
def test_a_rule_sees_the_sin(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(PurePosixPath(path), text)))


@pytest.mark.parametrize(("rule", "path", "text"), VIRTUES, ids=_named)
def test_a_rule_lets_the_rest_pass(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(PurePosixPath(path), text))) == []


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=_named)
def test_the_packages_keep_the_rule(rule: Rule) -> None:
    _keep(rule, sources(*PACKAGES))


@pytest.mark.parametrize("rule", TEST_RULES, ids=_named)
def test_the_tests_keep_the_rule(rule: Rule) -> None:
    _keep(rule, sources("tests"))


def _keep(rule: Rule, checked: list[Source]) -> None:
    broken = [f"{source.path}:{problem}" for source in checked for problem in rule(source)]
    assert not broken, "\n" + "\n".join(broken)


def test_every_exception_is_still_needed() -> None:
    for path in COMMITS_ELSEWHERE:
        assert ".commit(" in (ROOT / path).read_text(), f"{path} commits no more: take it off the list"


def test_no_file_names_a_package_registry() -> None:
    named = [f"{path.relative_to(ROOT)}: {host}" for path, text in _texts() for host in REGISTRIES if host in text]
    assert not named, "\n" + "\n".join(named)


def _texts() -> Iterator[tuple[Path, str]]:
    for folder, folders, names in os.walk(ROOT):
        # What is hidden is the tools' own, but for CI's.
        folders[:] = [
            name for name in folders if name in {".ci", ".github"} or not name.startswith((".", "__pycache__"))
        ]
        for name in names:
            data = (Path(folder) / name).read_bytes()
            if b"\0" not in data[:8192]:
                yield Path(folder) / name, data.decode("utf-8", errors="replace")
