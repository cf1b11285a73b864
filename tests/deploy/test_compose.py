"""docker-compose.yml: whole, pinned, guarded, without a password, and every setting in it exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import ApiSettings
from tests.deploy.settings_names import settings_names
from tests.servers import server

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONCE = {"migrate", "accounts", "buckets"}
"""Run to their end, so that nobody asks after their health."""
WRITES = {
    "pgbouncer": "Compose writes its files into it",
    "opensearch": "its security plugin writes beside its binaries",
    "milvus": "it writes beside its binaries",
    "vllm": "it compiles into its home folder",
}
"""Whose root is not read-only, and why."""
SECRET = re.compile(r"\$\{(\w+):\?run python3 deploy/passwords\.py \.env\}")


def resolved(text: str) -> str:
    """Give every variable a value, as `.env` and the shell do."""
    text = SECRET.sub(lambda found: f"{found[1].lower()}-value", text)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environments() -> list[tuple[str, str, str]]:
    return [
        (name, key, str(value)) for name, one in SERVICES.items() for key, value in one.get("environment", {}).items()
    ]


def test_every_setting_in_it_exists() -> None:
    given = {key for _, key, _ in environments() if key.startswith("TESSERA_")}
    assert given - settings_names() == set()


def test_the_settings_make_a_configuration() -> None:
    services: dict[str, Any] = yaml.safe_load(resolved(TEXT))["services"]
    for name in ("api", "worker", "scheduler"):
        script = "from service.settings import Settings; s = Settings(); print(s.milvus.uri, s.objects.url)"
        env = {key: str(value) for key, value in services[name]["environment"].items()}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**env, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["http://milvus:19530", "s3://tessera"]


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_is_pinned_guarded_watched_and_bounded(name: str) -> None:
    one = SERVICES[name]
    image = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", one["image"])
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+[\w.-]*", image), f"{image} is not an exact version"
    assert one["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert "privileged" not in one
    assert one["read_only"] is (name not in WRITES)
    assert {"memory"} <= one["deploy"]["resources"]["limits"].keys()
    if name in ONCE:
        assert (one["restart"], one["healthcheck"]) == ("no", {"disable": True})
    else:
        assert one["restart"] == "unless-stopped"
        assert one["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_only_the_api_is_published_and_on_the_loopback_address() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_stores_and_the_model_server_are_on_networks_that_lead_nowhere_else() -> None:
    internal = {name for name, network in FILE["networks"].items() if network and network.get("internal")}
    for name, one in SERVICES.items():
        if name not in {"api", "worker"}:
            assert set(one.get("networks", [])) <= internal, name
    assert {name for name, one in SERVICES.items() if "models" in one.get("networks", [])} == {"api", "vllm"}
    assert {name for name, one in SERVICES.items() if "milvus" in one.get("networks", [])} == {
        "milvus",
        "etcd",
        "milvus-objects",
    }


def test_there_is_no_password_in_it() -> None:
    for name, key, value in environments():
        if re.search(r"PASSWORD|SECRET|TOKEN|(API|ADMIN)_KEY$|PEPPER", key) and value:
            left = SECRET.sub("", value)
            left = re.sub(r"\$\{\w+:-\}", "", left)
            assert left in ("", "root:", "tessera:"), f"{name}: {key}"
    assert re.search(r"://[^:/\s]*:[^$@/\s][^@/\s]*@", TEXT) is None, "a password in an address"


def test_every_password_is_made_by_the_generator_and_no_two_times_the_same(tmp_path: Path) -> None:
    wanted = set(SECRET.findall(TEXT))
    made = []
    for number in range(2):
        path = tmp_path / str(number)
        make_passwords(path)
        made.append(dict(line.split("=", 1) for line in path.read_text().splitlines()))
    assert made[0].keys() == made[1].keys() == wanted
    assert not set(made[0].values()) & set(made[1].values())
    assert all(len(value) >= 32 and re.fullmatch(r"[A-Za-z0-9_-]+", value) for value in made[0].values())


def test_who_has_a_password_in_a_file_is_made_anew_with_another_one() -> None:
    """Compose compares the settings of a service, and not what stands in its `configs`."""
    for name, one in SERVICES.items():
        files = [FILE["configs"][config["source"]]["content"] for config in one.get("configs", [])]
        in_settings = " ".join(map(str, one.get("environment", {}).values()))
        assert set(SECRET.findall(" ".join(files))) <= set(SECRET.findall(in_settings)), name


def make_passwords(path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/passwords.py"), str(path)], check=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_passwords_that_are_there_are_kept_and_only_what_is_lacking_is_added(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nAPP_PASSWORD=kept\nVLLM_MODEL=bge\nREDIS_PASSWORD=")
    make_passwords(path)
    first = path.read_text()
    assert first.startswith("# mine\nAPP_PASSWORD=kept\nVLLM_MODEL=bge\nREDIS_PASSWORD=\n")
    assert first.count("APP_PASSWORD=") == 1
    assert set(SECRET.findall(TEXT)) <= {line.split("=")[0] for line in first.splitlines()}
    assert len([line for line in first.splitlines() if line.startswith("REDIS_PASSWORD=")]) == 2, "an empty one is none"
    make_passwords(path)
    assert path.read_text() == first


def test_a_process_is_not_killed_before_its_drain_is_over() -> None:
    api, worker = SERVICES["api"], SERVICES["worker"]
    drain = sum(float(api["environment"][f"TESSERA_API_{name}_S"]) for name in ("DRAIN_DELAY", "DRAIN"))
    assert int(api["stop_grace_period"].removesuffix("s")) > drain
    assert int(worker["stop_grace_period"].removesuffix("s")) > float(worker["environment"]["TESSERA_INGEST_DRAIN_S"])
    words = SERVICES["vllm"]["command"]
    vllm_drain = int(words[words.index("--shutdown-timeout") + 1])
    assert vllm_drain == 120, "as long as an answer may take"
    assert int(SERVICES["vllm"]["stop_grace_period"].removesuffix("s")) > vllm_drain + 15
    assert api["healthcheck"]["test"][-1].count(f":{ApiSettings().port}/healthz") == 1


def test_everything_waits_for_the_schema_and_the_stores() -> None:
    for name in ("api", "worker", "worker-gpu", "scheduler"):
        waits = SERVICES[name]["depends_on"]
        once = {"condition": "service_completed_successfully"}
        assert (waits["migrate"], waits["accounts"]) == (once, once)
        assert {one for one in waits if waits[one] == {"condition": "service_healthy"}} == {
            "pgbouncer",
            "redis",
            "milvus",
            "opensearch",
            "objects",
        }


def test_the_service_is_an_ordinary_user_of_milvus_which_one_container_makes() -> None:
    made = SERVICES["accounts"]["environment"]
    assert SERVICES["accounts"]["command"] == ["tessera", "milvus", "init"]
    user = made["TESSERA_MILVUS_TOKEN"]
    assert user.startswith("tessera:")
    assert made["TESSERA_MILVUS_ADMIN_TOKEN"].startswith("root:")
    for name, key, value in environments():
        if key == "TESSERA_MILVUS_TOKEN":
            assert value == user, name
        assert key != "TESSERA_MILVUS_ADMIN_TOKEN" or name == "accounts"


def test_the_reference_parser_of_compose_takes_it(tmp_path: Path) -> None:
    parser = server("compose")["path"]
    (tmp_path / "docker-compose.yml").write_text(resolved(TEXT))
    command = [parser, "-format", "json", "docker-compose.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert model["services"].keys() == SERVICES.keys()
    assert model["services"]["worker"]["healthcheck"]["test"][1].startswith("test $(( $(date +%s)")
    (tmp_path / "docker-compose.yml").write_text(TEXT)
    missing = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert missing.returncode != 0, "it starts without passwords"
    assert "run python3 deploy/passwords.py .env" in missing.stderr
