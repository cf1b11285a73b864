"""Autoscaling in the Helm chart: what is asked for is scraped, is this installation's, and of the worker's queues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import Metric

from ingestion.job_queue import Depth
from ingestion.models import Lane
from service.metrics import _queue
from tests.deploy.chart import CHART, EVERYTHING, EXTERNAL_METRICS, LEAST, Manifest, helm, named, rendered

NAMESPACE = ("--namespace", "blue")
GPU = {
    "replicas": 1,
    "concurrency": 8,
    "drainSeconds": 45,
    "resources": {"requests": {}, "limits": {"memory": "16Gi"}},
    "settings": {"TESSERA_INGEST_QUEUES": "gpu, gpu-eu"},
}
SCALED = {"enabled": True, "minReplicas": 0, "maxReplicas": 4, "queueAgeSeconds": 30}


def scalers(values: Path, kind: str, *more: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one["spec"] for one in rendered(values, *more) if one["kind"] == kind}


def queries(values: Path, *more: str) -> dict[str, str]:
    found = scalers(values, "ScaledObject", *NAMESPACE, *more)
    return {name: spec["triggers"][0]["metadata"]["query"] for name, spec in found.items()}


def labels(query: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)=~?"([^"]*)"', query))


def workers(file: Path, **autoscaling: object) -> Path:
    """Write values with a worker that reads queues of its own."""
    least = yaml.safe_load(LEAST.read_text())
    given = {**least, "workers": {"gpu": {**GPU, "autoscaling": autoscaling}}}
    file.write_text(yaml.safe_dump(given))
    return file


def default_query() -> str:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    query: str = values["workers"]["cpu"]["autoscaling"]["query"]
    return query


def test_workers_grow_with_the_age_of_the_queue_and_vllm_with_what_waits() -> None:
    keda = scalers(EVERYTHING, "ScaledObject")
    assert "tessera_queue_oldest_seconds" in keda["rag-tessera-worker-cpu"]["triggers"][0]["metadata"]["query"]
    assert "vllm:num_requests_waiting" in keda["rag-tessera-vllm"]["triggers"][0]["metadata"]["query"]
    for name, spec in keda.items():
        target = named(rendered(EVERYTHING), spec["scaleTargetRef"]["kind"], name)["spec"]
        assert "replicas" not in target, "the chart would undo what the scaler does"
    hpa = scalers(EXTERNAL_METRICS, "HorizontalPodAutoscaler")
    metrics = {name: spec["metrics"][0]["external"]["metric"]["name"] for name, spec in hpa.items()}
    assert metrics == {
        "rag-tessera-worker-cpu": "tessera_queue_oldest_seconds",
        "rag-tessera-vllm": "vllm_num_requests_waiting",
    }


def test_a_query_asks_for_this_installation_alone() -> None:
    found = {name: labels(query) for name, query in queries(EVERYTHING).items()}
    for name, pods in {
        "rag-tessera-worker-cpu": "rag-tessera-api-.*",
        "rag-tessera-vllm": "rag-tessera-vllm-.*",
    }.items():
        assert (found[name]["namespace"], found[name]["pod"]) == ("blue", pods)


def test_a_worker_grows_with_the_queues_that_it_reads(tmp_path: Path) -> None:
    values = workers(tmp_path / "values.yaml", **SCALED, query=default_query())
    words = ("--set", "workers.cpu.autoscaling.enabled=true")
    found = {name: labels(query)["queue"] for name, query in queries(values, *words).items()}
    assert found == {"rag-tessera-worker-cpu": "tessera", "rag-tessera-worker-gpu": "gpu|gpu-eu"}
    hpa = scalers(values, "HorizontalPodAutoscaler", *words, "--set", "autoscaling.kind=hpa")
    selector = hpa["rag-tessera-worker-gpu"]["metrics"][0]["external"]["metric"]["selector"]
    assert selector == {
        "matchLabels": {"lane": "main"},
        "matchExpressions": [
            {"key": "state", "operator": "In", "values": ["queued", "retrying"]},
            {"key": "queue", "operator": "In", "values": ["gpu", "gpu-eu"]},
        ],
    }


def test_the_labels_of_the_queries_are_those_of_the_metric() -> None:
    families: list[Metric] = list(_queue([Depth("tessera", Lane.MAIN, "queued", 1, 1, 1.0)]))
    [sample] = [one for family in families for one in family.samples if one.name == "tessera_queue_oldest_seconds"]
    asked = labels(queries(EVERYTHING)["rag-tessera-worker-cpu"])
    of_prometheus = {"namespace", "pod"}
    assert asked.keys() - of_prometheus == sample.labels.keys()
    assert all(re.fullmatch(asked[name], value) for name, value in sample.labels.items())


def test_what_is_asked_for_is_scraped() -> None:
    monitors = {one["metadata"]["name"]: one for one in rendered(EVERYTHING) if one["kind"] == "PodMonitor"}
    assert monitors.keys() == {"rag-tessera", "rag-tessera-vllm"}
    for name, kind, pods in (
        ("rag-tessera", "Deployment", "rag-tessera-api"),
        ("rag-tessera-vllm", "StatefulSet", "rag-tessera-vllm"),
    ):
        template = named(rendered(EVERYTHING), kind, pods)["spec"]["template"]
        wanted = monitors[name]["spec"]["selector"]["matchLabels"].items()
        assert wanted <= template["metadata"]["labels"].items()
        [endpoint] = monitors[name]["spec"]["podMetricsEndpoints"]
        ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
        assert (endpoint["path"], endpoint["port"] in ports) == ("/metrics", True)
    [endpoint] = monitors["rag-tessera-vllm"]["spec"]["podMetricsEndpoints"]
    assert "authorization" not in endpoint, "vLLM asks for no key, and is not told the admin key"
    assert len([one for one in rendered(LEAST, "--set", "podMonitor.enabled=true") if one["kind"] == "PodMonitor"]) == 1


@pytest.mark.parametrize("missing", ["minReplicas", "maxReplicas", "queueAgeSeconds", "query"])
def test_a_worker_is_not_scaled_by_half_of_what_that_takes(missing: str, tmp_path: Path) -> None:
    whole = {**SCALED, "query": "vector(1)"}
    half = {name: value for name, value in whole.items() if name != missing}
    done = helm("template", "rag", str(CHART), "--values", str(workers(tmp_path / "values.yaml", **half)))
    assert done.returncode != 0
    assert missing in done.stderr


@pytest.mark.parametrize("missing", ["api.autoscaling.cpuPercent", "vllm.autoscaling.query"])
def test_nor_is_anything_else(missing: str) -> None:
    switched_on = f"{missing.rpartition('.')[0]}.enabled=true"
    done = helm("template", "rag", str(CHART), "--values", str(LEAST), "--set", f"{missing}=null,{switched_on}")
    assert done.returncode != 0
    assert missing.rpartition(".")[2] in done.stderr
