"""Certificates and models in the pods of the Helm chart, and the image of workers with GPUs."""

from __future__ import annotations

from tests.deploy.chart import EVERYTHING, LEAST, Manifest, containers, named, pods, rendered

CERTIFICATES = {"name": "authorities", "mountPath": "/etc/tessera", "readOnly": True}
MODELS = {"name": "models", "mountPath": "/models", "readOnly": True}


def worker(name: str) -> tuple[Manifest, Manifest]:
    """Return the pod of a worker and its container."""
    pod = named(rendered(EVERYTHING), "Deployment", f"rag-tessera-worker-{name}")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


def test_every_process_and_the_migration_can_be_given_certificates() -> None:
    manifests = rendered(EVERYTHING)
    for name, pod in pods(manifests):
        given = {"name": "authorities", "secret": {"secretName": "authorities"}}
        assert (given in pod["volumes"]) is (name != "rag-tessera-vllm"), name
    for name, container in containers(manifests):
        assert (CERTIFICATES in container["volumeMounts"]) is (name != "rag-tessera-vllm"), name
        names = [mount["name"] for mount in container["volumeMounts"]]
        assert "tmp" in names or name == "rag-tessera-vllm"


def test_a_worker_with_gpus_has_an_image_queues_and_models_of_its_own() -> None:
    pod, container = worker("gpu")
    assert container["image"] == "registry.example.com/tessera-torch:0.1.0"
    assert {"name": "TESSERA_INGEST_QUEUES", "value": "gpu"} in container["env"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod["volumes"]
    assert MODELS in container["volumeMounts"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 902, "its models are loaded first"


def test_the_other_workers_have_that_of_every_process() -> None:
    pod, container = worker("cpu")
    assert container["image"].startswith("registry.example.com/tessera@sha256:")
    assert MODELS not in container["volumeMounts"]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "authorities"]
    images = {one["image"] for name, one in containers(rendered(LEAST)) if name != "rag-tessera-vllm"}
    assert images == {"registry.example.com/tessera:0.1.0"}
