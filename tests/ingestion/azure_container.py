"""The container that the tests of the object store use, made on the stand-in for Azure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

_VERSION = "2021-12-02"


def make_azure_container(given: dict[str, Any]) -> None:
    """Make a container, if it is not there, by a request that is signed with the account's key."""
    account, container = given["access_key_id"], urlsplit(given["url"]).netloc
    stamp = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = f"x-ms-date:{stamp}\nx-ms-version:{_VERSION}"
    path = f"{urlsplit(given['endpoint']).path}/{container}"
    what = "PUT" + "\n" * 12 + f"{headers}\n/{account}{path}\nrestype:container"
    digest = hmac.digest(base64.b64decode(given["secret_access_key"]), what.encode(), hashlib.sha256)
    signature = base64.b64encode(digest).decode()
    answer = httpx.put(
        f"{given['endpoint']}/{container}",
        params={"restype": "container"},
        headers={
            "x-ms-date": stamp,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {account}:{signature}",
            "Content-Length": "0",
        },
    )
    assert answer.status_code in (201, 409), answer.text
