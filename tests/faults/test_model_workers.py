"""A stack whose default embedding model is computed by workers of a queue of its own: they come, die, and come back."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.local.plan import NOT_FOR_WORKERS
from service.local.settings import ROOT, python_environment
from shards.embed import NAME
from shards.minilm_weights import model_folder
from tests.conftest import TenantAccess, new_tenant
from tests.faults.own_stack import own_stack
from tests.servers import server

if TYPE_CHECKING:
    from pathlib import Path

    from service.local.state import StackState


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """The stack's own worker has no torch; questions are embedded by a server of the same model."""
    given = server("vllm_embed")
    model = {
        "kind": "sentence-transformers",
        "model": str(model_folder()),
        "served_as": given["model"],
        "url": given["base_url"],
        "key": given["key"],
        "dim": 384,
        "max_tokens": 256,
    }
    told = {"TESSERA_EMBED_MODELS": json.dumps({"big": model}), "TESSERA_EMBED_MODEL": "big"}
    with own_stack(tmp_path_factory.mktemp("model_workers") / "data", **told) as running:
        yield running


@pytest.fixture(scope="module")
async def admin(own: StackState) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {own.admin_key}"}
    async with httpx.AsyncClient(base_url=own.url, headers=headers, timeout=60) as client:
        yield client


@contextmanager
def gpu_worker(own: StackState, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that has torch and reads the queue `gpu` alone."""
    words = ["-m", "celery", "-A", "service.worker", "worker", "--pool", "threads", "--concurrency", "8"]
    env = {name: value for name, value in own.env.items() if name not in NOT_FOR_WORKERS}
    model = json.loads(env["TESSERA_EMBED_MODELS"])["big"]
    env["TESSERA_EMBED_MODELS"] = json.dumps({"big": model | {"device": "cpu", "precision": "bfloat16"}})
    env["TESSERA_INGEST_QUEUES"] = "gpu"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [server("torch")["python"], *words, "--without-gossip", "--without-mingle", "--loglevel", "INFO"],
            cwd=ROOT,
            env=python_environment(env) | {"HF_HUB_OFFLINE": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def examined(own: StackState) -> subprocess.CompletedProcess[str]:
    """Return what `tessera doctor` says of the stack."""
    command = [sys.executable, "-c", "from service.cli.main import main; main()", "doctor"]
    return subprocess.run(command, env=python_environment(dict(own.env)), capture_output=True, text=True, check=False)


async def until(admin: httpx.AsyncClient, state: str) -> None:
    async with asyncio.timeout(600):  # torch alone takes a minute and more on a machine that is busy
        while (await admin.get("/readyz")).json()["queues"] != {"gpu": state}:
            await asyncio.sleep(0.3)


async def until_it_waits(tenant: TenantAccess, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            job: dict[str, Any] = (await tenant.client.get(f"/v1/jobs/{job_id}")).json()
            assert job["state"] not in ("done", "failed"), job
            if job["waiting_for"] == "model_workers":
                return job
            await asyncio.sleep(0.2)


async def put(tenant: TenantAccess, text: str, name: str) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/documents", files={"file": (name, text.encode())})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_what_needs_the_model_waits_for_its_workers_and_nothing_else_does(
    own: StackState, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    big, plain = await new_tenant(admin, "big"), await new_tenant(admin, "plain")
    moved = await admin.post(f"/v1/admin/tenants/{plain.id}/reindex", json={"embedding_model": NAME})
    assert moved.status_code == 202, moved.text
    first = await put(big, "The ferry to Amber leaves at dawn.", "amber.txt")
    waits = await until_it_waits(big, first["job"]["id"])
    assert (waits["state"], waits["attempts"]) == ("queued", 0)
    assert (await admin.get("/readyz")).json()["queues"] == {"gpu": "away"}
    doctor = await asyncio.to_thread(examined, own)
    assert "workers of queue gpu: none is alive: uploads of tenants of big wait" in doctor.stdout, doctor.stdout
    assert doctor.returncode == 1
    said = await put(plain, "The ferry to Salt leaves at dusk.", "salt.txt")
    assert (await plain.job(said["job"]["id"]))["state"] == "done", "any worker does it"
    second = await put(big, "The ferry to Wool leaves at noon.", "wool.txt")
    gone = await big.client.delete(f"/v1/documents/{second['document']['id']}")
    assert (await big.job(gone.json()["job"]["id"]))["state"] == "done", "a deletion needs no model"

    with gpu_worker(own, tmp_path / "worker.log") as worker:
        await until(admin, "ok")
        done = await big.job(first["job"]["id"])
        assert (done["state"], done["attempts"]) == ("done", 1), done
        answer = (await big.client.post("/v1/search", json={"query": "When does the ferry leave?"})).json()
        assert answer["degraded"] == []
        assert [hit["ranks"]["ann"] for hit in answer["hits"]] == [1]
        worker.kill()
        third = await put(big, "The ferry to Pine leaves at one.", "pine.txt")
        await until_it_waits(big, third["job"]["id"])
    await until(admin, "away")
    with gpu_worker(own, tmp_path / "again.log"):
        await until(admin, "ok")
        assert (await big.job(third["job"]["id"]))["state"] == "done"
    await big.client.aclose()
    await plain.client.aclose()
