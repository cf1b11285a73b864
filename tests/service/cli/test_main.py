from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.cli.main import COMMANDS, app
from service.local.settings import ROOT

HEAVY = {
    "alembic",
    "celery",
    "matplotlib",
    "fastapi",
    "httpx",
    "numpy",
    "onnxruntime",
    "psutil",
    "pydantic",
    "rich",
    "sqlalchemy",
}


def test_help_imports_nothing_heavy():
    script = """
import sys
from service.cli.main import main
sys.argv = ["tessera", "--help"]
try:
    main()
finally:
    sys.stderr.write("|".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert not HEAVY & set(done.stderr.split("|"))
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_exists_and_has_help(name):
    result = CliRunner().invoke(app, [name, "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{name} [OPTIONS]" in result.output


def test_an_unknown_command_is_named():
    result = CliRunner().invoke(app, ["upp"])
    assert result.exit_code == 2
    assert "No such command 'upp'" in result.output


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TESSERA_API_PORT", "sesame", "The setting TESSERA_API_PORT is wrong: Input should be a valid integer"),
        ("TESSERA_EMBED_MODELS", '{"m": {"kind": "sesame"}}', "The setting TESSERA_EMBED_MODELS (m.kind) is wrong"),
        ("TESSERA_EMBED_MODELS", "{sesame", "A setting TESSERA_EMBED_* is not the JSON that it must be"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(tmp_path, name, value, said):
    words = [sys.executable, "-m", "service.cli.main", "status"]
    env = {"TESSERA_DATA_DIR": str(tmp_path), name: value}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tessera: {said}")
    assert "sesame" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_a_caller_can_be_told_is_one_sentence(tmp_path):
    (tmp_path / "run.json").write_text("{")
    words = [sys.executable, "-m", "service.cli.main", "status"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={"TESSERA_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith(f"tessera: {tmp_path}/run.json cannot be used")
    assert "Traceback" not in done.stderr
