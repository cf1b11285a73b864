"""vLLM in the Helm chart: each replica is a server of its own to the API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.answer.routes import routes_of
from rag.settings import GenerationSettings
from tests.deploy.chart import CHART, EVERYTHING, EXTERNAL_METRICS, LEAST, helm, named, rendered

WITH_VLLM = ("vllm.enabled=true", "vllm.modelPath=a", "vllm.servedModelName=a", "vllm.modelClaim=models")


def settings(*given: str) -> dict[str, str]:
    words = [word for one in (*WITH_VLLM, *given) for word in ("--set", one)]
    data: dict[str, str] = named(rendered(LEAST, *words), "ConfigMap", "rag-tessera")["data"]
    return data


def test_each_replica_has_an_address_that_the_api_is_told() -> None:
    found = settings("vllm.replicas=3")
    urls = json.loads(found["TESSERA_GENERATION_BASE_URLS"])
    assert urls == [f"http://rag-tessera-vllm-{number}.rag-tessera-vllm:8000/v1" for number in range(3)]
    [route] = routes_of(GenerationSettings(base_urls=urls, model=found["TESSERA_GENERATION_MODEL"])).values()
    assert len(route.urls) == 3


def test_with_autoscaling_every_replica_that_there_may_be_is_named() -> None:
    found = settings("vllm.autoscaling.enabled=true", "vllm.autoscaling.maxReplicas=5")
    assert len(json.loads(found["TESSERA_GENERATION_BASE_URLS"])) == 5


@pytest.mark.parametrize("name", ["TESSERA_GENERATION_BASE_URL", "TESSERA_GENERATION_MODEL"])
def test_what_the_installation_says_itself_comes_first(name: str) -> None:
    found = settings(f"settings.{name}=http://other:8000/v1")
    assert found[name] == "http://other:8000/v1"
    assert ("TESSERA_GENERATION_BASE_URLS" in found) is (name == "TESSERA_GENERATION_MODEL")


def test_the_names_are_those_of_the_pods() -> None:
    manifests = rendered(EVERYTHING)
    pods, service = named(manifests, "StatefulSet", "rag-tessera-vllm"), named(manifests, "Service", "rag-tessera-vllm")
    assert pods["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None", "it stands for one of them at random"
    assert service["spec"]["selector"] == pods["spec"]["selector"]["matchLabels"]
    assert pods["spec"]["podManagementPolicy"] == "Parallel"


SCALERS = [(EVERYTHING, "ScaledObject"), (EXTERNAL_METRICS, "HorizontalPodAutoscaler")]


@pytest.mark.parametrize(("values", "kind"), SCALERS, ids=["keda", "hpa"])
def test_the_scaler_scales_it(values: Path, kind: str) -> None:
    scaler = named(rendered(values), kind, "rag-tessera-vllm")
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": "rag-tessera-vllm",
    }


@pytest.mark.parametrize("given", ["vllm.replicas=65", "vllm.autoscaling.maxReplicas=65"])
def test_there_are_no_more_than_the_api_takes(given: str) -> None:
    done = helm("template", "rag", str(CHART), "--values", str(LEAST), "--set", given)
    assert done.returncode != 0
    assert given.partition("=")[0].replace(".", "/") in done.stderr


def test_a_process_starts_again_when_what_it_is_told_of_vllm_changes() -> None:
    def sums(*given: str) -> list[str]:
        words = [word for one in (*WITH_VLLM, *given) for word in ("--set", one)]
        pods = [one["spec"]["template"] for one in rendered(LEAST, *words) if one["kind"] == "Deployment"]
        return [pod["metadata"]["annotations"]["checksum/settings"] for pod in pods]

    before = sums()
    assert len(before) == 3
    assert sums() == before
    assert not set(before) & set(sums("vllm.replicas=3"))
    assert not set(before) & set(sums("settings.TESSERA_INGEST_BATCH_S=20"))
