"""A stack with a given Redis, and a stack of an ordinary user."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

import psutil
import pytest

from service.database import DATABASE
from service.local import processes
from service.local.account import private_folder
from service.local.ports import free_port
from service.local.postgres import role_url
from service.local.redis import redis_child, redis_url
from service.local.settings import native_environment
from service.local.state import running_stack
from service.local.stores import start_stores
from tenants.roles import APP, OWNER, WORKER, RolePasswords, ensure_roles

NOBODY = 65534


async def test_a_given_redis_is_used_and_none_is_started(make_checkout, tmp_path, supervise, data_dir):
    port = free_port()
    await supervise((redis_child(data_dir, port, "f00d", native_environment()),)).start()
    checkout = make_checkout(tmp_path / "checkout")
    checkout.env["TESSERA_REDIS_URL"] = redis_url(port, "f00d").replace("/0", "/3")
    try:
        done = checkout.run("up")
        assert done.returncode == 0, done.stderr
        state = running_stack(checkout.data_dir)
        assert [child.name for child in state.children] == ["postgres", "milvus", "api", "worker", "scheduler"]
        assert not (checkout.data_dir / "redis").exists()
        assert state.env["TESSERA_REDIS_URL"] == checkout.env["TESSERA_REDIS_URL"]
        assert f"Redis: 127.0.0.1:{port}/3 answers" in checkout.run("doctor").stdout
    finally:
        assert checkout.run("down").returncode == 0


async def test_given_stores_are_used_and_only_the_programs_are_started(make_checkout, tmp_path):
    stores = await start_stores(tmp_path / "stores")
    checkout = make_checkout(tmp_path / "checkout")
    try:
        secrets = stores.secrets
        ensure_roles(stores.superuser_url, DATABASE, RolePasswords(secrets.owner, secrets.app, secrets.worker))
        roles = (("OWNER_URL", OWNER, secrets.owner), ("URL", APP, secrets.app), ("WORKER_URL", WORKER, secrets.worker))
        urls = {f"TESSERA_DATABASE_{key}": role_url(stores.postgres_port, *who, DATABASE) for key, *who in roles}
        given = {"TESSERA_REDIS_URL": stores.redis_url, "TESSERA_MILVUS_URI": stores.milvus_uri, **urls}
        checkout.env |= given
        done = await asyncio.to_thread(checkout.run, "up")
        assert done.returncode == 0, done.stderr
        state = running_stack(checkout.data_dir)
        assert [child.name for child in state.children] == ["api", "worker", "scheduler"]
        assert given.items() <= state.env.items()
        doctor = await asyncio.to_thread(checkout.run, "doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert "schema: version" in doctor.stdout
        assert "Milvus: " in doctor.stdout
    finally:
        await asyncio.to_thread(checkout.run, "down")
        await stores.stop()


def test_a_given_server_that_is_away_is_named_by_doctor(make_checkout, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    checkout.env |= {
        "TESSERA_REDIS_URL": f"redis://:s3cret@127.0.0.1:{free_port()}/0",
        "TESSERA_MILVUS_URI": f"http://127.0.0.1:{free_port()}",
        "TESSERA_DATABASE_URL": f"postgresql+psycopg://app:s3cret@127.0.0.1:{free_port()}/tessera",
        "TESSERA_DATABASE_WORKER_URL": f"postgresql+psycopg://worker:s3cret@127.0.0.1:{free_port()}/tessera",
    }
    done = checkout.run("doctor")
    assert done.returncode == 1
    for name in ("TESSERA_REDIS_URL", "TESSERA_MILVUS_URI", "TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL"):
        assert f"correct {name}" in done.stdout
    assert "s3cret" not in done.stdout


def test_half_a_database_is_refused_in_one_sentence(make_checkout, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    checkout.env["TESSERA_DATABASE_URL"] = "postgresql+psycopg://app@127.0.0.1:1/tessera"
    done = checkout.run("up")
    assert done.returncode == 1
    assert "Give TESSERA_DATABASE_URL and TESSERA_DATABASE_WORKER_URL together" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="this suite already runs as an ordinary user")
def test_an_ordinary_user_has_the_same_stack(make_checkout, ordinary_python):
    place = Path(tempfile.mkdtemp())  # a test's own folder is closed to other accounts
    try:
        place.chmod(0o755)
        checkout = make_checkout(place / "checkout", postgres=True)
        checkout.python = ordinary_python(place, NOBODY)
        for path in (checkout.root, *checkout.root.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        done = checkout.run("up")
        assert done.returncode == 0, done.stderr
        state = running_stack(checkout.data_dir)
        members = {state.supervisor_pid: state.supervisor_identity}
        for child in state.children:
            members |= processes.session_tree(child.pid, child.identity)
        assert all(psutil.Process(pid).uids().effective == NOBODY for pid in members)
        assert len(members) > 9
        with urllib.request.urlopen(f"{state.url}/readyz", timeout=10) as response:
            assert response.status == 200
        assert checkout.run("doctor").returncode == 0
        assert checkout.run("down").returncode == 0
        assert processes.alive(members) == {}
    finally:
        shutil.rmtree(place)


def test_a_data_folder_of_another_account_is_refused_in_one_sentence(make_checkout, ordinary_python, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another account")
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        checkout = make_checkout(place / "checkout")
        private_folder(checkout.data_dir)
        checkout.python = ordinary_python(place, NOBODY)
        if any(word.startswith("--ambient-caps") for word in checkout.python):
            pytest.skip("the account reaches no interpreter here without the right to read everything")
        for command in ("up", "down", "status", "env"):
            done = checkout.run(command)
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert str(checkout.data_dir) in done.stderr
        assert checkout.run("doctor").returncode == 1
    finally:
        shutil.rmtree(place)
