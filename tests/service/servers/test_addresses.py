"""The file of addresses: what tests read, and settings that are Tessera's own."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from pydantic import BaseModel

from service.servers.addresses import FILE, stack_settings, write_addresses
from service.servers.entries import Running, server_entries
from service.servers.installation import ALL, ServerInstallation, port_names
from service.servers.programs import Found
from service.settings import Settings

OPENSEARCH = ("opensearch2", "opensearch3", "opensearch2 java", "opensearch3 java")
PROGRAMS = ("postgres", "pgbouncer", "redis", "s3", "transformers", "milvus", "torch", *OPENSEARCH)


def installed(tmp_path: Path) -> ServerInstallation:
    made = ServerInstallation.load(tmp_path)
    ports = {name: 20_000 + number for number, name in enumerate(port_names(ALL))}
    return made.model_copy(update={"ports": ports})


def test_secrets_outlive_a_restart(tmp_path: Path) -> None:
    assert ServerInstallation.load(tmp_path).secrets == ServerInstallation.load(tmp_path).secrets


def test_every_server_has_an_entry_on_a_port_of_its_own(tmp_path: Path) -> None:
    programs = {name: Found(Path(f"/programs/{name}/{name}")) for name in PROGRAMS}
    known = server_entries(Running(installed(tmp_path), programs, {"vllm-1": 7, "vllm-2": 8}), ALL)
    assert set(known) == {*(name for name in ALL if name != "postgres"), "postgres15", "pgbouncer"}
    assert known["vllm"]["pids"] == [7, 8]
    assert len(set(known["vllm"]["base_urls"])) == 2
    assert "127.0.0.1" in json.dumps(known)
    assert "0.0.0.0" not in json.dumps(known)


def test_the_settings_are_ones_that_there_are(tmp_path: Path) -> None:
    settings = stack_settings(installed(tmp_path), ALL, tmp_path)
    there = set()
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        inner = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else [""]
        there |= {f"TESSERA_{name}_{one}".rstrip("_").upper() for one in inner}
    assert set(settings) - there == set()


def test_only_what_runs_is_used(tmp_path: Path) -> None:
    settings = stack_settings(installed(tmp_path), ["redis"], tmp_path)
    assert set(settings) == {"TESSERA_DATA_DIR", "TESSERA_SERVERS_DIR", "TESSERA_REDIS_URL"}


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    write_addresses(tmp_path, {"redis": {"url": "redis://"}}, {"TESSERA_REDIS_URL": "redis://"})
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert set(json.loads((tmp_path / FILE).read_text())) == {"servers", "settings"}
