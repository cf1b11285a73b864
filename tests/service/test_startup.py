"""How processes start: they wait for servers that are away, refuse what is wrong for good, and say which it was."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from service.local.ports import free_port
from service.local.settings import python_environment
from service.resources import open_stores
from service.settings import Settings
from service.startup import Check, all_good, exit_status
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable
from tenants.settings import ObjectSettings

if TYPE_CHECKING:
    from service.local.state import StackState

APP_SETTING, WORKER_SETTING = "TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL"


async def test_patience_ends_and_what_is_wrong_for_good_needs_none() -> None:
    looks = 0

    async def comes_back() -> None:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise Unavailable("not yet")

    async def away() -> None:
        raise Unavailable("away")

    async def wrong() -> None:
        raise Misconfigured("wrong")

    await all_good([Check("a", comes_back), Check("b", away, needed=False)], 30)
    assert looks == 3
    with pytest.raises(Unavailable):
        await all_good([Check("a", away)], 0.6)
    with pytest.raises(Misconfigured):
        async with asyncio.timeout(5):
            await all_good([Check("a", away), Check("b", wrong)], 60)
    with pytest.raises(Misconfigured):
        await all_good([Check("b", wrong, needed=False)], 60)


async def test_a_server_that_says_nothing_at_all_is_not_waited_for_beyond_patience() -> None:
    async def silent() -> None:
        await asyncio.sleep(3600)

    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match=r"The store does not answer\. Start it, or correct TESSERA_STORE_URL\."):
            await all_good([Check("the store", silent, setting="TESSERA_STORE_URL")], 0.5, look_s=0.1)
        await all_good([Check("The store", silent, needed=False)], 0.5, look_s=0.1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Port out of range 0-65535"), "ValueError: Port out of range 0-65535"),
        (TypeError(), "TypeError"),
        (ValueError("no way to 'http://root:s3cret@h:1/x?key=s3cret'"), "ValueError: no way to 'http://h:1/x"),
        (UnicodeEncodeError("ascii", "s3crêt", 4, 5, "not one of 128"), "UnicodeEncodeError: not one of 128"),
    ],
)
@pytest.mark.parametrize("needed", [True, False])
async def test_what_nobody_foresaw_is_a_wrong_setting_that_is_named(
    error: Exception, said: str, needed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise error

    caplog.set_level("DEBUG", "service.startup")
    with pytest.raises(Misconfigured) as refused:
        async with asyncio.timeout(5):
            await all_good([Check("the store", fails, needed, "TESSERA_STORE_URL")], 60)
    assert refused.value.detail == f"The store cannot be used ({said}): correct TESSERA_STORE_URL."
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


def test_the_status_says_who_has_to_do_something() -> None:
    errors = (Misconfigured("wrong"), Unavailable("away"), RuntimeError("nobody knows"))
    assert [exit_status(error) for error in errors] == [78, 75, 70]


PROGRAMS = {
    "API": ["-m", "service.serve"],
    "worker": ["-m", "celery", "-A", "service.worker", "worker", "--pool", "threads"],
    "scheduler": ["-m", "service.scheduler"],
}


def startable(stack: StackState) -> dict[str, str]:
    return dict(stack.env) | {"TESSERA_START_PATIENCE_S": "1", "TESSERA_API_PORT": str(free_port())}


def ended_start(program: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *PROGRAMS[program]],
        env=python_environment(env), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "wrong"), [("API", "password"), ("worker", "password"), ("scheduler", "password"), ("API", "port")]
)
def test_a_process_that_cannot_start_says_so_in_a_sentence(stack: StackState, program: str, wrong: str) -> None:
    env = startable(stack)
    for name in (APP_SETTING, WORKER_SETTING):
        url = make_url(env[name])
        spoilt = url.set(password="s3cret") if wrong == "password" else url.set(port=free_port())
        env[name] = spoilt.render_as_string(hide_password=False)
    ended = ended_start(program, env)
    said = ended.stdout + ended.stderr
    assert ended.returncode == (78 if wrong == "password" else 75), said
    assert f"The {program} cannot start: " in ended.stderr
    setting = APP_SETTING if program == "API" else WORKER_SETTING
    assert f"{setting}: the Postgres at " in ended.stderr.splitlines()[-1]
    assert "Traceback" not in said
    assert "s3cret" not in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_address_that_the_client_trips_over_ends_every_process(stack: StackState, program: str) -> None:
    env = startable(stack)
    ended = ended_start(program, env | {"TESSERA_REDIS_URL": f"{env['TESSERA_REDIS_URL']}?ssl=true"})
    said = ended.stdout + ended.stderr
    assert (ended.returncode, "Traceback" in said) == (78, False), said
    assert "The broker cannot be used (TypeError: " in ended.stderr.splitlines()[-1]
    assert ended.stderr.endswith("correct TESSERA_REDIS_URL.\n")


@pytest.mark.parametrize(("program", "status"), [("API", 3), ("worker", 70)])
def test_a_start_that_fails_as_nobody_foresaw_is_no_start(
    stack: StackState, program: str, status: int, tmp_path: Path
) -> None:
    (file := tmp_path / "file").touch()
    ended = ended_start(program, startable(stack) | {"TESSERA_EMBED_CACHE_DIR": str(file / "models")})
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "NotADirectoryError: " in ended.stderr
    assert "Traceback" in ended.stderr


async def test_a_store_of_vectors_that_is_away_is_named(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    milvus = MilvusSettings(uri=uri, timeout_s=3)
    async with open_stores(Settings(milvus=milvus, objects=ObjectSettings(url=f"file://{tmp_path}"))) as stores:
        looks = [check for check in stores.checks() if check.subject == "the vector store"]
        with pytest.raises(Unavailable, match=f"{uri} does not answer. Start it, or correct TESSERA_MILVUS_URI"):
            await all_good(looks, 0)
