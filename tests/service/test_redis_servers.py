"""Redis as operators give it: an ACL user with no more than it needs, TLS, two installations on one server, a server of
its own for what may be lost, and one that comes back empty."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis.exceptions import NoPermissionError

from ingestion.dispatch import Dispatcher
from ingestion.settings import IngestSettings
from service import worker_seconds
from service.alive import SignOfLife, living
from service.broker import BrokerMemory, make_celery
from service.local.ports import free_port
from service.local.settings import python_environment
from service.redis_access import RedisAddress, broker_address, cache_address, connected_async
from service.redis_check import check_redis
from service.scheduler import make_good
from service.settings import Settings
from service.wake import Waker, Woken
from shards.embed_models import EmbedModels
from shards.settings import EmbedSettings
from tenants.db import Database
from tenants.errors import Misconfigured, Unavailable
from tenants.settings import DatabaseSettings, RedisSettings
from tenants.shared_places import SharedPlaces
from tests.redis_server import RedisServer, redis_server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = re.search(r"^ACL SETUSER (tessera .*)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
LOGIN = "tessera:pa55"


def documented_user() -> str:
    """Return the line that docs/operations.md tells operators to give."""
    assert DOCUMENTED is not None
    return f"user {DOCUMENTED[1].replace('>PASSWORD', '>pa55')}"


@pytest.fixture(params=["plain", "TLS"])
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that lets the documented user do what is documented and nothing else."""
    with redis_server(tls=request.param == "TLS", acl=documented_user()) as running:
        yield running


def address_of(running: RedisServer, login: str = LOGIN, **fields: str) -> RedisAddress:
    return RedisAddress("TESSERA_REDIS_URL", running.url(login), running.ca_file if running.tls else "", **fields)


@contextmanager
def celery_worker(address: RedisAddress) -> Iterator[subprocess.Popen[bytes]]:
    settings = {"TESSERA_REDIS_URL": address.url, "TESSERA_REDIS_CA_FILE": address.ca_file}
    words = ["-m", "celery", "-A", "tests.service.local.standins.worker", "worker", "--pool", "threads"]
    quiet = ["--concurrency", "1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen([sys.executable, *words, *quiet], env=python_environment(settings), cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def test_the_documented_rights_are_enough_and_none_is_tried_in_vain(guarded: RedisServer, tmp_path: Path) -> None:
    address = address_of(guarded)
    await check_redis(address, "broker")
    celery = make_celery(address)
    with celery_worker(address):
        for name in ("first", "second", "third"):
            celery.send_task("standin.write", kwargs={"path": str(tmp_path / name), "seconds": 0.0})
        await until(lambda: len(list(tmp_path.glob("*.begun"))) == 3)
        for name in ("long", "waiting"):
            celery.send_task("standin.write", kwargs={"path": str(tmp_path / name), "seconds": 1.0})
        await until(lambda: (tmp_path / "long.begun").exists())
    await others(address)
    with guarded.client() as admin:
        denied = {entry["object"] for entry in admin.acl_log()}
        assert {name for name in denied if not name.startswith("client")} == set(), "the driver's name is not needed"
        assert {key.split(b":")[0] for key in admin.keys("*")} == {b"tessera"}
        async with aclosing(connected_async(address)) as redis:
            with pytest.raises(NoPermissionError):
                await redis.flushall()


async def others(address: RedisAddress) -> None:
    """Use everything but Celery."""
    memory = BrokerMemory(address)
    assert await memory.was_lost()
    await memory.remember()
    assert not await memory.was_lost()
    await memory.aclose()
    waker, woken = Waker(address), Woken(address)
    waker.wake()
    async with asyncio.timeout(10):
        await woken.wait(asyncio.Event(), least_s=0, most_s=60)
    await waker.aclose()
    await woken.aclose()
    places = SharedPlaces(connected_async(address), address.prefix)
    async with places.taken("search", uuid4(), 1):
        pass
    await places.aclose()
    models = EmbedModels(EmbedSettings())
    async with worker_seconds.written(address, models):
        await models.bundled.seconds.count("batch", asyncio.sleep(0))
    sign = SignOfLife(address, "scheduler", Settings().process)
    async with aclosing(connected_async(address)) as redis:
        assert (await worker_seconds.read(redis, address)).keys() == {models.default.name}
        await until_async(lambda: living(redis, address, "scheduler"), (1,))
        sign.stop()
        assert await living(redis, address, "scheduler") == (0,)


async def until(condition: object) -> None:
    for _ in range(600):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to pass")


async def until_async(ask: object, wanted: object) -> None:
    for _ in range(200):
        if await ask() == wanted:  # type: ignore[operator]
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to pass")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaves streams half open
async def test_a_certificate_of_nobody_known_is_refused() -> None:
    with redis_server(tls=True) as running, redis_server(tls=True) as other:
        for ca_file in ("", other.ca_file, "/nowhere.pem"):
            with pytest.raises(Misconfigured, match="TESSERA_REDIS_CA_FILE"):
                await check_redis(RedisAddress("TESSERA_REDIS_URL", running.url(), ca_file), "broker")


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "holds no certificate"), ("no PEM", "holds no certificate"), (None, "Is a directory")],
)
async def test_a_file_of_authorities_that_cannot_be_used_is_not_waited_for(
    tmp_path: Path, content: str | None, why: str
) -> None:
    ca_file = tmp_path if content is None else tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    address = RedisAddress("TESSERA_REDIS_URL", f"rediss://127.0.0.1:{free_port()}/0", str(ca_file))
    with pytest.raises(Misconfigured, match=f"^TESSERA_REDIS_CA_FILE names {ca_file}.*{why}"):
        await check_redis(address, "broker")


async def test_two_installations_share_a_server_by_their_prefixes(tmp_path: Path) -> None:
    with redis_server() as running:
        one, two = (address_of(running, running.login, prefix=prefix) for prefix in ("one", "two"))
        make_celery(one).send_task("standin.write", kwargs={"path": str(tmp_path / "a"), "seconds": 0.0})
        first, second = BrokerMemory(one), BrokerMemory(two)
        for memory in (first, second):
            assert await memory.was_lost()
            await memory.remember()
        await first.aclose()
        await second.aclose()
        with running.client() as admin:
            assert {key.split(b":")[0] for key in admin.keys("*")} == {b"one", b"two"}
            assert (admin.llen("one:tessera"), admin.llen("two:tessera")) == (1, 0)


def test_what_may_be_lost_goes_to_the_cache_and_the_rest_to_the_broker() -> None:
    both = RedisSettings(url="redis://a/0", cache_url="redis://b/0", prefix="p")
    assert (broker_address(both).url, cache_address(both).url) == ("redis://a/0", "redis://b/0")
    assert cache_address(both).setting == "TESSERA_REDIS_CACHE_URL"
    alone = RedisSettings(url="redis://a/0")
    assert cache_address(alone) == broker_address(alone)


async def test_a_redis_that_comes_back_empty_is_noticed_and_used_again() -> None:
    with redis_server() as running:
        address = address_of(running, running.login)
        memory, waker, woken = BrokerMemory(address), Waker(address), Woken(address)
        await memory.remember()
        assert not await memory.was_lost()
        running.kill()
        await asyncio.sleep(1.1)
        assert not await memory.was_lost(), "away is not lost"
        waker.wake()
        running.start()
        await until_async(memory.was_lost, True)
        await memory.remember()
        async with asyncio.timeout(10):
            await woken.wait(asyncio.Event(), least_s=0, most_s=0.1)
            waker.wake()
            await woken.wait(asyncio.Event(), least_s=0, most_s=60)
        await memory.aclose()
        await waker.aclose()
        await woken.aclose()


async def test_what_the_broker_lost_stays_lost_until_it_was_given_out_again() -> None:
    away = f"postgresql://tessera_worker@127.0.0.1:{free_port()}/tessera"
    with redis_server() as running:
        memory = BrokerMemory(address_of(running, running.login))
        async with aclosing(memory), aclosing(Database(away, DatabaseSettings())) as database:
            dispatcher = Dispatcher(database, IngestSettings(), lambda *_: None)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await make_good(memory, dispatcher)
            assert await memory.was_lost()
