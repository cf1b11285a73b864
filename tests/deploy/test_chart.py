"""The Helm chart: what it renders is valid, restricted, drains in time, and every setting in it exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import (
    CHART,
    EVERYTHING,
    KUBERNETES,
    LEAST,
    NOT_KUBERNETES,
    ROOT,
    VALUES,
    Manifest,
    containers,
    helm,
    named,
    pods,
    rendered,
)
from tests.deploy.settings_names import SECRETS, settings_names
from tests.servers import server


def test_its_own_files_are_sound() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]
    words = "".join(path.read_text() for path in (CHART / "templates").iterdir()) + (CHART / "values.yaml").read_text()
    prefixes = {"TESSERA_SOURCES_ALLOW_NETWORKS"}
    assert set(re.findall(r"TESSERA_[A-Z_]+[A-Z]", words)) - settings_names() - prefixes == set()


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_it_is_linted(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_kubernetes_takes_what_it_renders(values: Path, version: str, tmp_path: Path) -> None:
    manifests = rendered(values, version=version)
    known = tmp_path / "manifests.yaml"
    known.write_text(yaml.safe_dump_all([one for one in manifests if one["kind"] not in NOT_KUBERNETES]))
    command = [server("kubernetes-validate")["path"], "--strict", "--kubernetes-version", version, str(known)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_container_is_restricted(values: Path) -> None:
    """What Kubernetes calls the restricted standard, and a root that cannot be written."""
    manifests = rendered(values)
    for name, pod in pods(manifests):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        kinds = {"emptyDir", "persistentVolumeClaim", "secret"}
        assert all(volume.keys() & kinds for volume in pod["volumes"])
    for name, container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"requests", "limits"} <= container["resources"].keys()
        assert "memory" in container["resources"]["limits"]
        assert re.search(r"(:v?\d+\.\d+\S*|@sha256:[0-9a-f]{64})$", container["image"]), container["image"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_setting_exists_and_every_secret_comes_from_the_secret(values: Path) -> None:
    manifests = rendered(values)
    given = {key for one in manifests if one["kind"] == "ConfigMap" for key in one["data"]}
    assert not given & SECRETS
    for name, container in containers(manifests):
        for variable in container.get("env", []):
            if not variable["name"].startswith("TESSERA_"):
                continue
            given.add(variable["name"])
            if variable["name"] in SECRETS:
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "tessera", f"{name}: {variable['name']}"
    assert given - settings_names() == set()


def test_a_pod_is_not_killed_before_its_drain_is_over() -> None:
    manifests = rendered(EVERYTHING)
    for name, pod in pods(manifests):
        env = {one["name"]: float(one["value"]) for one in pod["containers"][0]["env"] if one["name"].endswith("_S")}
        drain = sum(seconds for key, seconds in env.items() if "DRAIN" in key)
        assert pod.get("terminationGracePeriodSeconds", 30) > drain, name
        if name == "rag-tessera-vllm":
            [vllm] = pod["containers"]
            drain = float(vllm["args"][vllm["args"].index("--shutdown-timeout") + 1])
            pause = float(vllm["lifecycle"]["preStop"]["exec"]["command"][-1])
            assert drain == 120
            assert pod["terminationGracePeriodSeconds"] > pause + drain + 15
    api = named(manifests, "Deployment", "rag-tessera-api")
    assert api["spec"]["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    probes = api["spec"]["template"]["spec"]["containers"][0]
    assert probes["readinessProbe"]["httpGet"]["path"] == "/servingz"
    assert probes["readinessProbe"]["periodSeconds"] * probes["readinessProbe"]["failureThreshold"] < 5


def test_no_pod_is_told_of_services_by_names_that_settings_have() -> None:
    """Of a Service called tessera-api Kubernetes makes TESSERA_API_PORT=tcp://10.1.2.3:80."""
    for values in VALUES:
        assert [name for name, pod in pods(rendered(values)) if pod["enableServiceLinks"] is not False] == []


@pytest.mark.parametrize("name", ["worker-cpu", "scheduler"])
def test_a_container_that_starts_again_is_not_judged_by_the_file_of_the_one_before(name: str, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    pod = named(rendered(LEAST), "Deployment", f"rag-tessera-{name}")["spec"]["template"]["spec"]
    [container] = pod["containers"]

    def passes(handler: Manifest) -> bool:
        words = [word.replace("/tmp/alive", str(alive)) for word in handler["exec"]["command"]]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    assert not passes(container["startupProbe"]), "there is no file yet"
    alive.touch()
    assert passes(container["startupProbe"])
    assert passes(container["livenessProbe"])
    old = time.time() - 30
    os.utime(alive, (old, old))
    assert not passes(container["startupProbe"]), "a file of the container before"
    assert passes(container["livenessProbe"])
    os.utime(alive, (0, 0))
    assert not passes(container["livenessProbe"])
    assert passes(container["lifecycle"]["postStart"])
    assert not alive.exists()


def test_the_schema_is_brought_up_to_date_before_anything_else() -> None:
    job = named(rendered(LEAST), "Job", "rag-tessera-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["tessera", "db", "upgrade"]
    assert "envFrom" not in job["spec"]["template"]["spec"]["containers"][0], (
        "a hook runs before the ConfigMap is there"
    )


def test_only_the_api_can_be_called_and_vllm_only_by_it() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered(EVERYTHING) if one["kind"] == "NetworkPolicy"}
    everyone = policies["rag-tessera"]
    assert everyone["ingress"] == []
    assert set(everyone["podSelector"]["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    [door] = policies["rag-tessera-api"]["ingress"]
    names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in door["from"]]
    assert names == ["ingress-nginx", "monitoring"], "who scrapes it is not shut out"
    [door] = policies["rag-tessera-vllm"]["ingress"]
    assert door["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "api"
    assert len(door["from"]) == 2, "and whoever scrapes it"
    [outside] = policies["rag-tessera-worker-gpu"]["egress"]
    assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]
    assert [one["path"] for one in _paths(rendered(EVERYTHING))] == ["/v1"], "what is the operator's stays inside"


def _paths(manifests: list[Manifest]) -> list[Manifest]:
    rules: list[Manifest] = named(manifests, "Ingress", "rag-tessera-api")["spec"]["rules"]
    return [path for rule in rules for path in rule["http"]["paths"]]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("existingSecret=", "existingSecret: name a Secret"),
        ("image.repository=", "image.repository: name where you pushed the image"),
        ("settings.TESSERA_LEXICAL_URL=", "settings.TESSERA_LEXICAL_URL is missing"),
        ("settings.TESSERA_OBJECTS_URL=", "settings.TESSERA_OBJECTS_URL is missing"),
        ("settings.TESSERA_REDIS_URL=redis://x", "TESSERA_REDIS_URL"),
        ("settings.TESSERA_OBJECTS_SECRET_ACCESS_KEY=x", "TESSERA_OBJECTS_SECRET_ACCESS_KEY"),
        ("settings.REDIS=x", "REDIS"),
        ("workers.cpu.drain=3", "/workers/cpu"),
        ("autoscaling.kind=cron", "/autoscaling/kind"),
        ("image.digest=latest", "/image/digest"),
        ("workers.cpu.image.name=a", "/workers/cpu/image"),
        ("workers.cpu.image.tag=a", "/workers/cpu/image"),
        ("workers.cpu.args[0]=--queues=gpu", "/workers/cpu/args/0"),
        ("extraVolumes[0].name=a,extraVolumes[0].hostPath.path=/", "/extraVolumes/0"),
        ("extraVolumes[0].name=tmp,extraVolumes[0].emptyDir.medium=Memory", "/extraVolumes/0/name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(given: str, complaint: str) -> None:
    done = helm("template", "rag", str(CHART), "--values", str(LEAST), "--kube-version", "1.33.0", "--set", given)
    assert done.returncode != 0
    assert complaint in done.stderr
