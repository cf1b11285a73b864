"""The Helm chart as tests render it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.servers import server

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/tessera"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
EVERYTHING, EXTERNAL_METRICS, LEAST = VALUES
KUBERNETES = ("1.27", "1.33", "1.37")
NOT_KUBERNETES = {"ScaledObject", "PodMonitor"}
"""Kinds of KEDA and of the Prometheus operator, which no schema of Kubernetes knows."""
Manifest = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([server("helm")["path"], *words], capture_output=True, text=True, check=False)


def rendered(values: Path, *more: str, version: str = KUBERNETES[1]) -> list[Manifest]:
    done = helm("template", "rag", str(CHART), "--values", str(values), "--kube-version", f"{version}.0", *more)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield name and pod of everything that runs."""
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods(manifests):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield name, container


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found
