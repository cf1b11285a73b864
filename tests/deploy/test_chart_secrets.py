"""Secrets in the Helm chart: refused where everybody reads, given from the Secret to the processes that need them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from tests.deploy.chart import CHART, EVERYTHING, LEAST, containers, helm, rendered
from tests.deploy.settings_names import OF_THE_COMMAND_LINE, SECRETS, settings_names

API, WORKER, SCHEDULER, UPGRADE, INIT = "api", "worker", "scheduler", "migrate", "init"
READERS = {
    "TESSERA_ADMIN_KEY": {API},
    "TESSERA_DATABASE_OWNER_URL": {UPGRADE, INIT},
    "TESSERA_DATABASE_URL": {API, INIT},
    "TESSERA_DATABASE_WORKER_URL": {WORKER, SCHEDULER, INIT},
    "TESSERA_EMBED_MODELS": {API, WORKER, SCHEDULER},
    "TESSERA_GENERATION_API_KEY": {API},
    "TESSERA_GENERATION_MODELS": {API},
    "TESSERA_LEXICAL_PASSWORD": {API, WORKER},
    "TESSERA_MILVUS_ENDPOINTS": {API, WORKER},
    "TESSERA_MILVUS_TOKEN": {API, WORKER},
    "TESSERA_OBJECTS_SECRET_ACCESS_KEY": {API, WORKER},
    "TESSERA_REDIS_CACHE_URL": {API, WORKER, SCHEDULER},
    "TESSERA_REDIS_URL": {API, WORKER, SCHEDULER},
    "TESSERA_SEARCH_RERANK_KEY": {API},
    "TESSERA_SECRET_PEPPER": {API},
    "TESSERA_SECRET_SOURCES": {API, WORKER},
    "TESSERA_SUPERUSER_URL": {INIT},
}
"""Each secret, and the containers that need it."""
OF_PEOPLE = {"TESSERA_KEY", "TESSERA_MILVUS_ADMIN_TOKEN"}
"""What a person gives to `tessera`: no process is started with it."""


def given(values: Path) -> dict[str, set[str]]:
    """Return which containers are given each secret setting of the Secret."""
    found: dict[str, set[str]] = {}
    for _, container in containers(rendered(values)):
        names = [one["name"] for one in container.get("env", []) if "secretKeyRef" in one.get("valueFrom", {})]
        assert len(names) == len(set(names)), f"{container['name']} has one twice"
        for name in names:
            found.setdefault(name, set()).add(container["name"])
    return found


def test_each_container_is_given_the_secrets_that_it_needs_and_no_others() -> None:
    assert READERS.keys() == SECRETS - OF_PEOPLE
    wanted = {name: readers - {INIT} for name, readers in READERS.items() if readers != {INIT}}
    assert given(LEAST) == wanted


def test_further_settings_of_the_secret_are_every_process_s() -> None:
    found = given(EVERYTHING)
    everyone = {API, WORKER, SCHEDULER, UPGRADE, INIT}
    assert found["TESSERA_OBJECTS_ACCESS_KEY_ID"] == found["TESSERA_REDIS_URL"] == everyone
    assert {name: found[name] for name in READERS.keys() - {"TESSERA_REDIS_URL"}} == {
        name: readers for name, readers in READERS.items() if name != "TESSERA_REDIS_URL"
    }


@pytest.mark.parametrize("place", ["settings", "api.settings", "workers.cpu.settings", "scheduler.settings"])
def test_a_secret_among_the_settings_is_refused_and_nothing_else_is(place: str, tmp_path: Path) -> None:
    def complaints(names: set[str]) -> set[str]:
        values: dict[str, object] = dict.fromkeys(sorted(names), "x")
        for key in reversed(place.split(".")):
            values = {key: values}
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        done = helm("template", "rag", str(CHART), "--values", str(LEAST), "--values", str(file))
        return set(re.findall(r"invalid propertyName '(TESSERA_\w+)'", done.stderr))

    assert complaints(SECRETS) == SECRETS
    assert complaints(settings_names() - SECRETS) == set()


def test_secrets_are_known_by_what_they_are() -> None:
    assert {"TESSERA_SEARCH_RERANK_KEY", "TESSERA_EMBED_MODELS", "TESSERA_REDIS_CACHE_URL"} <= SECRETS
    assert not {"TESSERA_MILVUS_URI", "TESSERA_MILVUS_CLIENT_KEY", "TESSERA_EMBED_MODEL"} & SECRETS
    assert not OF_THE_COMMAND_LINE & {f"TESSERA_{name}".upper() for name in Settings.model_fields}
