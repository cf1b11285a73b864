"""The engines that `bench.shard_others` compares cells with: each builds its usual index over rows, and is asked.

LanceDB and the Milvus server come from packages that the service does not need; without them `MISSING` says what to
install.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import faiss
import numpy as np
import psutil
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from pymilvus import MilvusClient

from bench.shard_growth import unsharded
from service.local.account import private_folder, unprivileged_account
from service.local.postgres import SETTINGS, SUPERUSER, binaries
from shards.milvus import MilvusVectors
from shards.settings import MilvusSettings

MISSING: dict[str, str] = {}
try:
    import lancedb
except ImportError:
    MISSING["lancedb"] = "not installed: uv pip install lancedb"
try:
    from milvus import MilvusServer, MilvusServerConfig
except ImportError:
    MISSING["milvus_server"] = "not installed: uv pip install milvus==2.3.5 setuptools"

GRAPH_LINKS, GRAPH_BUILD = 16, 200
"""M and ef_construction of every HNSW graph."""
_EFS = (100, 120, 150, 200, 300, 400, 600)
_OTHER_TENANTS = 9
_PROBES = (5, 10, 15, 20, 30, 40, 60)
_REFINES = (1, 2, 4, 8)
Vector = NDArray[np.float32]


@dataclass
class Engine:
    """An engine that holds the rows. `search` asks it with one of `knobs`; `rows` makes row numbers of what it found,
    best first; `seen` is what else is worth a mean, and `built` what is known from the start."""

    search: Callable[[Vector, Any], Awaitable[Any]]
    rows: Callable[[Any], list[int]]
    knobs: Sequence[Any] = (None,)
    built: dict[str, Any] = field(default_factory=dict)
    seen: Callable[[Any], dict[str, float]] = lambda _: {}


class Build:
    """Seconds that building takes, and resident memory: what this process gained, or all that a server has by then."""

    def __init__(self, pid: int | None = None) -> None:
        self._server, self._process = pid is not None, psutil.Process(pid)
        self._began, self._before = time.perf_counter(), self._resident()

    def done(self, **more: Any) -> dict[str, Any]:
        """Return both, with more that is worth knowing."""
        resident = (self._resident() - (0 if self._server else self._before)) / 2**20
        return {"build_s": round(time.perf_counter() - self._began, 1), "rss_mb": round(resident), **more}

    def _resident(self) -> float:
        """Memory of the processes, what they share counted once."""
        return sum(one.memory_full_info().pss for one in self._resident_in())

    def _resident_in(self) -> list[psutil.Process]:
        return [self._process, *(self._process.children() if self._server else ())]


def exact(rows: Vector, k: int) -> Engine:
    """Every row, by NumPy."""

    async def search(query: Vector, _: Any) -> NDArray[np.intp]:
        scores = rows @ query
        best = np.argpartition(scores, len(scores) - k)[-k:]
        return best[np.argsort(-scores[best])]

    return Engine(search, lambda found: found.tolist(), built={"build_s": 0.0, "rss_mb": round(rows.nbytes / 2**20)})


def faiss_graph(rows: Vector, k: int) -> Engine:
    """HNSW in this process: no server, no network, no tenants, nothing durable."""
    build = Build()
    index = faiss.IndexHNSWFlat(rows.shape[1], GRAPH_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_BUILD
    index.add(rows)

    async def search(query: Vector, ef: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(query[None], k, params=faiss.SearchParametersHNSW(efSearch=ef))[1][0]
        return found

    return Engine(search, lambda found: found.tolist(), [ef for ef in (k, *_EFS) if ef >= k], build.done())


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a Postgres of the benchmark's own, with room for the graph in memory; yield its address and process."""
    account = unprivileged_account()
    private_folder(folder, account)
    who: dict[str, Any] = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    cluster = folder / "cluster"
    words = ["-U", SUPERUSER, "-A", "trust", "--locale", "C", "-E", "UTF8", "-D", str(cluster)]
    subprocess.run([str(binaries() / "initdb"), *words], check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    room = {"port": str(port), "shared_buffers": "1GB", "maintenance_work_mem": "1GB", "max_wal_size": "4GB"}
    words = [word for name, value in {**SETTINGS, **room}.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [binaries() / "postgres", "-D", cluster, *words], stdout=log, stderr=log, cwd=folder, **who
        )
    address = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"
    try:
        while True:
            try:
                psycopg.connect(address).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGINT)  # "fast": it does not wait for clients
        process.wait()


_NEAREST: LiteralString = "SELECT row_no FROM chunks WHERE tenant_id = %s ORDER BY embedding <#> %s::vector LIMIT %s"


def pgvector(rows: Vector, others: Vector, k: int, address: str, pid: int) -> Engine:
    """HNSW over all tenants' rows in one table, the tenant a condition; `others` are those of small tenants."""
    build = Build(pid)
    connection = psycopg.connect(address, autocommit=True)
    connection.execute("CREATE EXTENSION vector")
    connection.execute(
        "CREATE TABLE chunks (tenant_id int, row_no int, embedding vector(384), PRIMARY KEY (tenant_id, row_no))"
    )
    connection.execute("ALTER TABLE chunks ALTER COLUMN embedding SET STORAGE PLAIN")
    with connection.cursor().copy("COPY chunks FROM STDIN") as copy:
        for number, row in enumerate(rows):
            copy.write_row((0, number, _text(row)))
        for number, row in enumerate(others):
            copy.write_row((1 + number % _OTHER_TENANTS, number, _text(row)))
    graph = f"WITH (m = {GRAPH_LINKS}, ef_construction = {GRAPH_BUILD})"
    connection.execute(f"CREATE INDEX ON chunks USING hnsw (embedding vector_ip_ops) {graph}".encode())
    connection.execute("VACUUM ANALYZE chunks")
    connection.execute("SET hnsw.iterative_scan = strict_order")
    asked = {"ef": 0}

    async def search(query: Vector, ef: int) -> list[tuple[int]]:
        if asked["ef"] != ef:
            connection.execute(f"SET hnsw.ef_search = {ef:d}".encode())
            asked["ef"] = ef
        return connection.execute(_NEAREST, (0, _text(query), k)).fetchall()

    plan = "\n".join(line for (line,) in connection.execute("EXPLAIN " + _NEAREST, (0, _text(rows[0]), k)))
    used = "hnsw" if "embedding_idx" in plan else "no graph"
    built = build.done(plan=used, other_tenants_rows=len(others))
    return Engine(search, lambda found: [row for (row,) in found], (40, *_EFS), built)


def _text(vector: Vector) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def lance(rows: Vector, k: int, folder: Path, kind: str) -> Engine:
    """An IVF index of LanceDB; it keeps product-quantised vectors (`IVF_PQ`) or graphs (`IVF_HNSW_SQ`), and reads
    `refine` times as many whole ones as are asked for."""
    build = Build()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    made = lancedb.connect(str(folder)).create_table(kind, pa.table({"row": np.arange(len(rows)), "vector": vectors}))
    made.create_index(metric="dot", index_type=kind)

    async def search(query: Vector, knob: tuple[int, int]) -> Any:
        probes, refine = knob
        asked = made.search(query).distance_type("dot").nprobes(probes).limit(k).select(["row", "_distance"])
        return (asked if refine == 1 else asked.refine_factor(refine)).to_arrow()

    knobs = [(probes, refine) for probes in _PROBES for refine in _REFINES]
    return Engine(search, lambda found: found["row"].to_pylist(), knobs, build.done())


@contextmanager
def milvus_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a standalone Milvus 2.3.5 and yield its address and process. It listens on every interface."""
    server = MilvusServer(MilvusServerConfig(data_dir=str(folder)))
    server.start()
    try:
        yield f"http://127.0.0.1:{server.listen_port}", server.server_proc.pid
    finally:
        server.stop()


def sealed(uri: str, name: str) -> dict[str, float]:
    """Seal what was written and load it again, as a server does by itself in time; return the seconds of loading."""
    client = MilvusClient(uri)
    client.flush(name)
    client.release_collection(name)
    began = time.perf_counter()
    client.load_collection(name)
    return {"load_s": round(time.perf_counter() - began, 1)}


async def milvus_graph(rows: Vector, k: int, uri: str, pid: int) -> Engine:
    """HNSW over one partition of a Milvus server, with the service's own schema."""
    build, client = Build(pid), MilvusClient(uri)
    store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
    name = (await unsharded(store, rows)).collection
    await store.aclose()
    client.flush(name)
    client.release_collection(name)
    client.drop_index(name, client.list_indexes(name)[0])
    index = client.prepare_index_params()
    build_with = {"M": GRAPH_LINKS, "efConstruction": GRAPH_BUILD}
    index.add_index("vector", index_type="HNSW", metric_type="IP", params=build_with)
    client.create_index(name, index)
    built = {**build.done(), **sealed(uri, name)}

    async def search(query: Vector, ef: int) -> list[Any]:
        found: list[Any] = client.search(
            name,
            data=[query],
            anns_field="vector",
            limit=k,
            output_fields=["version_no"],
            search_params={"metric_type": "IP", "params": {"ef": ef}},
            consistency_level="Bounded",
        )[0]
        return found

    return Engine(search, lambda found: [hit["entity"]["version_no"] for hit in found], _EFS, built)


async def whole(rows: Vector, k: int, uri: str, pid: int, *, flush: bool) -> Engine:
    """One partition with every row, searched exactly, on Milvus Lite or a Milvus server."""
    build, store = Build(pid), MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
    space = await unsharded(store, rows)
    built = build.done()
    if flush:
        built |= sealed(uri, space.collection)
    place = {row.chunk_id: row.version_no async for page in store.scan(space, batch=8000) for row in page}

    async def search(query: Vector, _: Any) -> Any:
        return await store.search(space, query, k=k, cells=None, scope=None)

    return Engine(search, lambda found: [place[hit.chunk_id] for hit in found], built=built)
