from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.cli.main import COMMANDS, app
from service.local.settings import ROOT
from service.settings import Settings
from tenants.errors import Misconfigured

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
        ("TESSERA_EMBED_MODELS", "{sesame", "The setting TESSERA_EMBED_MODELS is not the JSON that it must be"),
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


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("TESSERA_GENERATION_BASE_URLS", '["http://gpu-1:8000/v1", "http://gpu-2:8000/v1"]'),
        ("TESSERA_GENERATION_FALLBACKS", '["name", "another"]'),
        ("tessera_milvus_endpoints", '{"eu": {"uri": "https://...", "token": "..."}}'),
        ("TESSERA_GENERATION", '{"name": "value"}'),
    ],
)
def test_a_setting_that_is_no_json_is_named_with_its_form(monkeypatch, name, form):
    monkeypatch.setenv("TESSERA_GENERATION_ADAPTERS", '["a good one"]')
    monkeypatch.setenv(name, "http://sesame:8000/v1")
    with pytest.raises(Misconfigured) as refused:
        Settings()
    assert refused.value.detail.startswith(f"The setting {name.upper()} is not the JSON that it must be (Expecting")
    assert refused.value.detail.endswith(f": write it as '{form}'.")
    assert "sesame" not in refused.value.detail


def test_what_a_caller_can_be_told_is_one_sentence(tmp_path):
    (tmp_path / "run.json").write_text("{")
    words = [sys.executable, "-m", "service.cli.main", "status"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={"TESSERA_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith(f"tessera: {tmp_path}/run.json cannot be used")
    assert "Traceback" not in done.stderr
