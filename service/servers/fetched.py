"""The programs of the servers, each fetched when it is first wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.servers import environments, maven, programs
from service.servers.cache import Cache
from service.servers.commands import run
from service.servers.installation import (
    AZURITE,
    MILVUS,
    OPENSEARCH_2,
    OPENSEARCH_3,
    POSTGRES,
    REDIS,
    S3,
    TORCH,
    TRANSFORMERS,
    VLLM,
    VLLM_EMBED,
    VLLM_RERANK,
)
from service.servers.programs import Found, bring
from shards.minilm_weights import model_folder

OPENSEARCH = {OPENSEARCH_2: "opensearch-2.19.1.0", OPENSEARCH_3: "opensearch-3.5.0.0"}
"""Version of each, as its lock and its folder in the cache are named."""
JAVAS = {OPENSEARCH_2: programs.JAVA_17, OPENSEARCH_3: programs.JAVA_21}
RANDOM_LLAMA_FOLDER, RANDOM_RERANKER_FOLDER = "random-llama-2", "random-reranker-1"
RANDOM_LLAMA = Path(__file__).with_name("random_llama.py")
RANDOM_RERANKER = Path(__file__).with_name("random_reranker.py")


class Fetched:
    """Where each program is. What is not there is fetched by the call, so a plan fetches what it starts."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def postgres(self) -> Found:
        """Postgres 15."""
        return bring(self._cache, programs.POSTGRES)

    def pgbouncer(self) -> Found:
        """PgBouncer."""
        return bring(self._cache, programs.PGBOUNCER)

    def redis(self) -> Found:
        """redis-server."""
        return bring(self._cache, programs.REDIS)

    def java(self, server: str) -> Found:
        """The Java that an OpenSearch needs."""
        return bring(self._cache, JAVAS[server])

    def jars(self, server: str) -> Path:
        """The folder of an OpenSearch."""
        version = OPENSEARCH[server]
        jars = maven.locked_jars(environments.LOCKS / f"{version}.txt")
        return self._cache.once(
            version, f"{version} (jars)", lambda to: maven.fetch_jars(jars, to, maven.registry(self._cache))
        )

    def milvus(self) -> Path:
        """The folder of Milvus."""
        return environments.milvus_package(self._cache)

    def versitygw(self) -> Path:
        """The S3 server."""
        return environments.versitygw(self._cache)

    def vllm(self) -> Path:
        """The Python of vLLM's environment."""
        return environments.vllm_environment(self._cache)

    def model(self) -> Path:
        """The folder of the model that vLLM serves, with an adapter in `adapter`."""
        python = self.vllm()

        def make(folder: Path) -> None:
            run([str(python), str(RANDOM_LLAMA), str(model_folder() / "tokenizer.json"), str(folder)], cwd=folder)

        return self._cache.once(RANDOM_LLAMA_FOLDER, "a tiny Llama with random weights (made here)", make)

    def reranker(self) -> Path:
        """The folder of the model that reranks."""
        python = self.vllm()

        def make(folder: Path) -> None:
            run([str(python), str(RANDOM_RERANKER), str(model_folder()), str(folder)], cwd=folder)

        return self._cache.once(RANDOM_RERANKER_FOLDER, "a tiny cross-encoder with random weights (made here)", make)

    def embedder(self) -> Path:
        """The folder of the model that embeds: the bundled one."""
        return model_folder()

    def torch(self) -> Path:
        """The Python of the environment with sentence-transformers."""
        return environments.torch_environment(self._cache)

    def azurite(self) -> tuple[Path, Path]:
        """Node, and the folder of Azurite."""
        return environments.azurite(self._cache)

    def all_of(self, server: str) -> None:
        """Fetch what a server needs."""
        wanted: dict[str, tuple[Callable[[], object], ...]] = {
            POSTGRES: (self.postgres, self.pgbouncer),
            REDIS: (self.redis,),
            MILVUS: (self.milvus,),
            OPENSEARCH_2: (lambda: self.java(OPENSEARCH_2), lambda: self.jars(OPENSEARCH_2)),
            OPENSEARCH_3: (lambda: self.java(OPENSEARCH_3), lambda: self.jars(OPENSEARCH_3)),
            S3: (self.versitygw,),
            VLLM: (self.model,),
            TRANSFORMERS: (self.model,),
            VLLM_EMBED: (self.vllm,),
            VLLM_RERANK: (self.reranker,),
            AZURITE: (self.azurite,),
            TORCH: (self.torch,),
        }
        for fetch in wanted[server]:
            fetch()
