"""The Dockerfile: what a linter says of it, what it copies, and who runs in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from service.cli.connection import admin_address
from service.settings import Settings
from tests.deploy.settings_names import SECRETS, settings_names
from tests.servers import server
from tests.test_imports import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
STAGES = "\n".join(line for line in LINES if not line.startswith("#")).split("\nFROM ")
RUN = STAGES[-1]


def words(instruction: str, text: str = RUN) -> list[str]:
    return re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)


def test_the_base_is_an_exact_version() -> None:
    [base] = [line for line in LINES if line.startswith("ARG PYTHON=")]
    assert re.fullmatch(r"ARG PYTHON=python:3\.1[12]\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    assert {stage.split()[0] for stage in STAGES[1:]} == {"${PYTHON}"}


def test_wheels_come_with_their_hashes_and_nothing_is_built() -> None:
    [install, torch] = [line for line in LINES if " install " in line and "pip" in line]
    assert torch.startswith('RUN if [ "${TORCH}" = 1 ]'), "what is not locked is only there when it is asked for"
    assert {"--require-hashes", "--no-deps", "--only-binary", "requirements-image.lock"} <= {
        word.removeprefix("/tmp/") for word in install.split()
    }


def test_it_runs_as_an_ordinary_user_of_a_fixed_number_and_process_1_passes_signals_on() -> None:
    assert words("USER") == ["10001:10001"]
    assert words("ENTRYPOINT") == ['["tini", "--"]']
    assert words("CMD") == ['["python", "-m", "service.serve"]']
    assert words("STOPSIGNAL") == ["SIGTERM"]
    assert len(words("HEALTHCHECK")) == 1


def test_it_holds_every_package_and_nothing_else_of_the_checkout() -> None:
    copied = {line.split()[0] for line in words("COPY", STAGES[1])}
    assert copied == {*PACKAGES, "requirements-image.lock", "deploy/tessera", "deploy/convert.py"}
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored
    assert all(line.startswith("--from=build ") for line in words("COPY"))


def test_its_settings_exist_and_none_is_a_secret() -> None:
    given = set(re.findall(r"TESSERA_[A-Z_]+", RUN))
    assert given
    assert given - settings_names() == set()
    assert not given & SECRETS


def test_in_a_container_of_the_api_its_command_line_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = dict(re.findall(r"(TESSERA_[A-Z_]+)=(\S+)", " ".join(words("ENV"))))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TESSERA_DATA_DIR", str(tmp_path))
    address, _ = admin_address(None, "tsr_admin_key")
    assert address == f"http://127.0.0.1:{Settings().api.port}"
    assert environment["TESSERA_API_PORT"] in words("EXPOSE")


def test_a_linter_finds_nothing_and_what_it_is_not_asked_has_a_reason() -> None:
    left_out = re.findall(r"hadolint ignore=(\w+)", (ROOT / "Dockerfile").read_text())
    assert all(f"({rule})" in (ROOT / "Dockerfile").read_text() for rule in left_out)
    done = subprocess.run(
        [server("hadolint")["path"], str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
