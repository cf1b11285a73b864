"""Servers of models on a processor: replicas of vLLM that generate, embed or rerank, and `transformers serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.local.account import private_folder
from service.local.health import HttpProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec

MODEL, ADAPTER = "tiny", "tiny-adapter"
"""The names by which vLLM serves them; `transformers serve` knows the model by its folder."""
GENERATES = ("--served-model-name", MODEL, "--max-model-len", "2048", "--enable-prefix-caching")
ADAPTS = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules")
EMBEDDER, RERANKER = "minilm", "tiny-cross-encoder"
POOLS = ("--runner", "pooling", "--served-model-name")
START_TIMEOUT_S = 600.0
VLLM = "from vllm.entrypoints.cli.main import main; main()"
TRANSFORMERS = "from transformers.cli.transformers import main; main()"
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
"""A gigabyte for the cache of keys and values; one thread, for the machine has more to do."""


def vllm_child(
    data_dir: Path,
    name: str,
    port: int,
    python: Path,
    model: Path,
    env: Mapping[str, str],
    words: tuple[str, ...],
) -> ChildSpec:
    """Describe a replica.

    Args:
        data_dir: what it caches lies in `vllm` below it.
        name: of the child.
        port: on loopback.
        python: of vLLM's environment.
        model: its folder.
        env: environment of native children; with VLLM_API_KEY it wants that key.
        words: what it does, and by which names it serves what.
    """
    folder = data_dir / "vllm"

    async def before() -> None:
        private_folder(folder)

    serve = ("serve", str(model), "--host", LOOPBACK, "--port", str(port), "--enforce-eager")
    homes = {"VLLM_CACHE_ROOT": str(folder), "HF_HOME": str(folder), "VLLM_HOST_IP": LOOPBACK}
    return ChildSpec(
        name=name,
        argv=(str(python), "-c", VLLM, *serve, *words),
        log=data_dir / "logs" / f"{name}.log",
        probe=HttpProbe(LOOPBACK, port, "/health"),
        env={**env, **OFFLINE, **SMALL, **homes},
        port=port,
        before=before,
        cwd=folder,
        start_timeout_s=START_TIMEOUT_S,
    )


def transformers_child(data_dir: Path, port: int, python: Path, model: Path, env: Mapping[str, str]) -> ChildSpec:
    """Describe the server. It lists its models only where a hub cache is, be it empty."""
    folder = data_dir / "transformers"

    async def before() -> None:
        for path in (folder, folder / "hub"):
            private_folder(path)

    return ChildSpec(
        name="transformers",
        argv=(str(python), "-c", TRANSFORMERS, "serve", str(model), "--host", LOOPBACK, "--port", str(port)),
        log=data_dir / "logs" / "transformers.log",
        probe=HttpProbe(LOOPBACK, port, "/health"),
        env={**env, **OFFLINE, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder)},
        port=port,
        before=before,
        cwd=folder,
        start_timeout_s=START_TIMEOUT_S,
    )
