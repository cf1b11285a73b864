"""An object store that is away, refuses, is full or set up wrongly: what is said of it, and nothing is half done."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ingestion.objects import Objects, object_key
from tenants.errors import Misconfigured, NoRoom, Unavailable
from tenants.settings import ObjectSettings
from tests.faults import small_disk
from tests.faults.proxy import Mode, Proxy, proxy_before
from tests.ingestion.s3_server import S3Server
from tests.servers import server

TENANT = uuid4()
KEY = object_key(TENANT, UUID(int=1), 1)
LARGE = b"x" * 40 * 1024 * 1024
MALFORMED = """<?xml version="1.0"?>
<Error><Code>AuthorizationHeaderMalformed</Code>
<Message>the region 'us-east-1' is wrong; expecting 'eu-central-1'</Message></Error>"""


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    own = S3Server(server("s3")["program"], tmp_path / "s3")
    own.start()
    yield own
    own.kill()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    with proxy_before(s3.port) as made:
        yield made


async def read_all(objects: Objects) -> None:
    async for _ in objects.listing(TENANT):
        pass


def calls(objects: Objects) -> list[Callable[[], Awaitable[object]]]:
    """Return everything that the service asks of an object store."""
    return [
        lambda: objects.put(KEY, BytesIO(b"a note")),
        lambda: objects.get(KEY),
        lambda: objects.open(KEY),
        lambda: objects.head(KEY),
        lambda: objects.delete([KEY]),
        lambda: objects.delete_tenant(TENANT),
        lambda: objects.tenants(),
        lambda: read_all(objects),
    ]


async def codes(objects: Objects) -> set[str]:
    """Return the codes with which the calls are unavailable; each has to be."""
    found = set()
    for call in calls(objects):
        with pytest.raises(Unavailable) as error:
            await call()
        found.add(error.value.code)
    return found


@pytest.mark.parametrize("mode", ["reset", "silence"])
async def test_while_it_is_away_every_call_says_so_and_then_goes_on(s3: S3Server, proxy: Proxy, mode: Mode) -> None:
    objects = Objects(s3.settings(proxy.port))
    await objects.put(KEY, BytesIO(b"a note"))
    proxy.fail(mode)
    assert await codes(objects) == {"objects_unavailable"}
    with pytest.raises(Unavailable, match="TESSERA_OBJECTS_ENDPOINT"):
        await objects.check()
    proxy.heal()
    assert await objects.get(KEY) == b"a note"
    await objects.check()


async def test_one_that_is_killed_and_started_again_has_what_it_had(s3: S3Server) -> None:
    objects = Objects(s3.settings())
    await objects.put(KEY, BytesIO(b"a note"))
    s3.kill()
    assert await codes(objects) == {"objects_unavailable"}
    s3.start()
    assert await objects.get(KEY) == b"a note"
    assert await objects.list_tenant(TENANT) == [KEY]


async def test_an_upload_that_breaks_off_is_never_seen(s3: S3Server, proxy: Proxy) -> None:
    objects = Objects(s3.settings(proxy.port))
    for mode in ("reset", "silence"):
        proxy.heal()
        putting = asyncio.create_task(objects.put(KEY, BytesIO(LARGE)))
        while proxy.passed < len(LARGE) // 4:
            assert not putting.done(), "it ended before it was broken off"
            await asyncio.sleep(0.001)
        proxy.fail(mode)
        with pytest.raises(Unavailable):
            await putting
        proxy.heal()
        assert await objects.head(KEY) is None
        assert await objects.list_tenant(TENANT) == []
        proxy.passed = 0
    await objects.put(KEY, BytesIO(LARGE))
    found = await objects.head(KEY)
    assert found is not None
    assert found.size == len(LARGE)


async def test_one_that_refuses_says_so_and_the_check_names_the_setting(s3: S3Server) -> None:
    for wrong in ({"secret_access_key": "wrong"}, {"access_key_id": "nobody"}):
        objects = Objects(s3.settings(**wrong))
        assert await codes(objects) == {"objects_refused"}
        with pytest.raises(Misconfigured, match="TESSERA_OBJECTS_ACCESS_KEY_ID"):
            await objects.check()


async def test_a_missing_bucket_is_not_taken_for_missing_originals(s3: S3Server) -> None:
    objects = Objects(s3.settings(url="s3://elsewhere"))
    for call in (*calls(objects)[:3], calls(objects)[4]):  # the others are not told, or ask for nothing but a list
        with pytest.raises(Unavailable) as error:
            await call()
        assert error.value.code == "objects_refused"
    with pytest.raises(Misconfigured, match=r"TESSERA_OBJECTS_URL.*there is no such bucket"):
        await objects.check()


async def test_originals_whose_bucket_is_gone_are_not_counted_as_deleted(s3: S3Server, tmp_path: Path) -> None:
    """A receipt would prove a deletion of what comes back with the bucket, or with the disk."""
    for objects in (Objects(s3.settings()), Objects(ObjectSettings(url=(tmp_path / "folder").as_uri()))):
        await objects.put(KEY, BytesIO(b"a note"))
        assert await objects.delete([KEY, f"{KEY}0"]) == 1
        assert await objects.delete([KEY]) == 0
        await objects.put(KEY, BytesIO(b"another note"))
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    for call in (
        lambda: objects.delete([KEY]),
        lambda: objects.delete_tenant(TENANT),
        lambda: objects.list_tenant(TENANT),
        objects.tenants,
    ):
        with pytest.raises(Unavailable) as error:
            await call()
        assert error.value.code == "objects_refused"
    (tmp_path / "elsewhere").rename(tmp_path / "folder")
    assert await objects.delete_tenant(TENANT) == 1


async def test_a_store_that_may_only_be_read_is_found_by_the_check(s3: S3Server) -> None:
    s3.kill()
    s3.start("--readonly")
    objects = Objects(s3.settings())
    assert await objects.tenants() == []
    with pytest.raises(Misconfigured, match="may not be written to"):
        await objects.check()


async def test_a_full_one_refuses_what_is_too_large_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    program, folder = server("s3")["program"], tmp_path / "small"
    folder.mkdir()
    before = small_disk.words_before(folder)
    if not before:
        pytest.skip("this machine does not allow a small file system to be mounted (unshare --user --mount)")
    s3 = S3Server(program, folder, before=before)
    s3.start()
    try:
        objects = Objects(s3.settings())
        for size in (2 * small_disk.KIBIBYTES * 1024, len(LARGE)):  # at once, and in parts
            with pytest.raises(NoRoom) as error:
                await objects.put(KEY, BytesIO(b"x" * size))
            assert error.value.code == "objects_full"
            assert await objects.list_tenant(TENANT) == []
        await objects.put(KEY, BytesIO(b"a note"))
        assert await objects.get(KEY) == b"a note"
    finally:
        s3.kill()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "ftp://host/folder"}, "TESSERA_OBJECTS_URL is 'ftp://host/folder'; it must be"),
        ({"url": "memory://"}, "TESSERA_OBJECTS_URL"),
        ({"url": "s3://"}, "TESSERA_OBJECTS_URL is 's3://'"),
        ({"url": "no address"}, "TESSERA_OBJECTS_URL"),
        ({"url": "file:///proc/nowhere/objects"}, "TESSERA_OBJECTS_URL: the folder .* cannot be made"),
        ({"url": "s3://bucket", "endpoint": "http://s3.corp.example"}, "TESSERA_OBJECTS_ALLOW_HTTP=true"),
        ({"url": "s3://bucket", "endpoint": "s3.corp.example"}, "TESSERA_OBJECTS_ENDPOINT is 's3.corp.example'"),
        *(
            ({"url": "s3://bucket", "endpoint": endpoint}, "TESSERA_OBJECTS_ENDPOINT is")
            for endpoint in (
                "http://127.0.0.1:99999",
                "https://[::1",
                "https://s 3",
                "https://s3\u00fc",
                "https://s3?x=1",
            )
        ),
        ({"url": "s3://bucket", "ca_file": "/nowhere.pem"}, "TESSERA_OBJECTS_CA_FILE cannot be read"),
        ({"url": "s3://bucket", "ca_file": __file__}, "TESSERA_OBJECTS"),
        ({"url": "gs://bucket", "secret_access_key": "no-json"}, "TESSERA_OBJECTS"),
    ],
)
def test_what_is_set_up_wrongly_is_refused_when_it_is_opened(given: dict[str, str], said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as error:
        Objects(ObjectSettings.model_validate(given))
    assert "no-json" not in error.value.detail, "it may be a secret"


@pytest.mark.parametrize(
    "given",
    [
        {"url": "s3:/AKID:hush@bucket"},
        {"url": "s3://AKID:hush@bucket", "ca_file": __file__},
        {"url": "s3://bucket", "endpoint": "http://AKID:hush@s3.corp.example"},
        {"url": "s3://bucket", "endpoint": "https://s3.corp.example?sig=hush"},
        {"url": "s3://bucket", "endpoint": "ftp://AKID:hush@s3.corp.example"},
        {"url": "memory://AKID:hush@bucket"},
        {"url": "az://box?sig=hush", "ca_file": __file__},
    ],
)
def test_secrets_that_somebody_wrote_into_an_address_are_not_said(given: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as error:
        Objects(ObjectSettings.model_validate(given))
    assert "hush" not in error.value.detail


async def test_secrets_in_an_address_are_not_said_by_the_check() -> None:
    given = {"url": "s3://AKID:hush@bucket?sig=hush", "endpoint": "http://127.0.0.1:1", "retries": 0}
    with pytest.raises((Misconfigured, Unavailable)) as error:
        await Objects(ObjectSettings.model_validate(given)).check()
    assert "hush" not in error.value.detail


async def test_a_folder_that_nothing_can_be_written_to_is_found_by_the_check(tmp_path: Path) -> None:
    objects = Objects(ObjectSettings(url=tmp_path.as_uri()))
    (tmp_path / "probes").write_text("a file in the way")
    with pytest.raises(
        Misconfigured, match=rf"TESSERA_OBJECTS_URL: the folder {tmp_path} cannot be written to"
    ) as error:
        await objects.check()
    assert "(os error 20)" in error.value.detail
    assert "KEY" not in error.value.detail, "a folder has none"
    with pytest.raises(Unavailable) as refused:
        await objects.put("probes/one", BytesIO(b"a note"))
    assert refused.value.code == "objects_refused"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="this machine has no folder where nobody may write")
async def test_a_folder_of_another_owner_is_named_with_its_user() -> None:
    with pytest.raises(
        Misconfigured, match=r"TESSERA_OBJECTS_URL: the folder /sys/kernel .*\(os error \d+\).* \(uid \d+\)"
    ):
        await Objects(ObjectSettings(url="file:///sys/kernel")).check()


class Answers(BaseHTTPRequestHandler):
    """Answers every request alike, as object stores and metadata services do that have nothing for us."""

    status, content = 301, b""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int, content: str) -> Iterator[str]:
    """Yield the address of a server that answers so."""
    told = type("Told", (Answers,), {"status": status, "content": content.encode()})
    with ThreadingHTTPServer(("127.0.0.1", 0), told) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (301, "", "incorrectly configured region"),
        (400, MALFORMED, r"\(the region 'us-east-1' is wrong; expecting 'eu-central-1'\)"),
    ],
)
async def test_a_bucket_in_another_region_is_named_with_the_region(status: int, content: str, said: str) -> None:
    given = {"url": "s3://bucket", "access_key_id": "AKID", "secret_access_key": "hush", "retries": 0}
    with answering(status, content) as endpoint:
        objects = Objects(ObjectSettings.model_validate({**given, "endpoint": endpoint}))
        with pytest.raises(Misconfigured, match=f"^TESSERA_OBJECTS_REGION is not .*{said}") as error:
            await objects.check()
    assert "prefix=" not in error.value.detail


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_keys_that_nobody_gave_are_named(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with answering(status, "") as machine:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", machine)
        objects = Objects(ObjectSettings(url="s3://bucket", endpoint="http://127.0.0.1:1", retries=0))
        with pytest.raises(Misconfigured, match=r"^TESSERA_OBJECTS_ACCESS_KEY_ID and _SECRET_ACCESS_KEY hold no key"):
            await objects.check()


def test_every_form_of_a_cloud_is_opened() -> None:
    for given in (
        {"url": "gs://bucket/prefix"},
        {"url": "az://container/prefix", "access_key_id": "account", "secret_access_key": "a2V5"},
        {"url": "s3://bucket", "region": "eu-central-1"},
        {"url": "s3://bucket/a/prefix", "endpoint": "https://s3.corp.example", "path_style": "false"},
    ):
        assert Objects(ObjectSettings.model_validate(given))
