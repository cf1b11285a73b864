"""Postgres over TLS with `verify-full`: the authority that signed passes, another one or another name is refused."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from migrations.head import HEAD
from service.local.account import unprivileged_account
from tenants.db import Database
from tenants.errors import Misconfigured
from tenants.postgres_check import check_postgres
from tenants.roles import APP
from tenants.settings import DatabaseSettings
from tests.certificates import certify
from tests.clusters import cluster
from tests.service.test_refusals import refusal


@pytest.fixture(scope="module")
def authorities() -> Iterator[tuple[Path, Path]]:
    """The folder of the authority that signed the server's certificate for 127.0.0.1, and that of another one."""
    folders = Path(tempfile.mkdtemp(prefix="authority-")), Path(tempfile.mkdtemp(prefix="authority-"))
    for folder in folders:
        certify(folder)
        if owner := unprivileged_account():  # the server refuses a key that is another account's
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.uid, owner.gid)
    yield folders
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def url(authorities: tuple[Path, Path]) -> Iterator[str]:
    """The app's address at a server that speaks TLS."""
    own, _ = authorities
    files = {"ssl_cert_file": str(own / "server.pem"), "ssl_key_file": str(own / "server.key")}
    with cluster(15, ssl="on", **files) as running:  # the wheel of 18 is built without TLS
        yield running.prepared("sealed")[APP]


def verified(url: str, ca_file: Path, host: str = "127.0.0.1") -> str:
    asked = make_url(url).set(host=host).update_query_dict({"sslmode": "verify-full", "sslrootcert": str(ca_file)})
    return asked.render_as_string(hide_password=False)


async def test_the_authority_that_signed_passes(url: str, authorities: tuple[Path, Path]) -> None:
    async with aclosing(Database(verified(url, authorities[0] / "ca.pem"), DatabaseSettings())) as database:
        assert (await check_postgres(database, HEAD)).revision == HEAD
        async with database.engine.connect() as connection:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert (await connection.exec_driver_sql(query)).scalar_one() is True


async def test_another_authority_is_refused(url: str, authorities: tuple[Path, Path]) -> None:
    found = await refusal(verified(url, authorities[1] / "ca.pem"))
    assert (type(found), "cannot be trusted" in found.detail) == (Misconfigured, True), found.detail
    assert "Correct sslmode and sslrootcert in TESSERA_DATABASE_URL" in found.detail


async def test_another_name_is_refused(url: str, authorities: tuple[Path, Path]) -> None:
    found = await refusal(verified(url, authorities[0] / "ca.pem", "localhost"))
    assert (type(found), 'does not match host name "localhost"' in found.detail) == (Misconfigured, True), found.detail
    assert "Correct sslmode and sslrootcert in TESSERA_DATABASE_URL" in found.detail


async def test_an_authority_that_is_not_there_is_refused(url: str, tmp_path: Path) -> None:
    found = await refusal(verified(url, tmp_path / "nowhere.pem"))
    assert (type(found), "nowhere.pem" in found.detail) == (Misconfigured, True), found.detail
