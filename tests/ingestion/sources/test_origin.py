"""Whom the credentials of a source are shown to."""

from __future__ import annotations

from typing import Any

import pytest

from ingestion.sources.config import check_places, read_config
from ingestion.sources.origin import origin_of
from ingestion.sources.settings import SourceSettings
from tenants.errors import InvalidRequest

GIT = {"url": "https://git.example.com/team/notes.git"}
S3 = {"url": "s3://bucket/docs", "endpoint": "https://s3.corp.example"}
AZURE = {"url": "az://cont/docs", "account": "acct12"}


@pytest.mark.parametrize(
    ("kind", "before", "change", "same"),
    [
        ("git", GIT, {"url": "https://git.example.com/team/other.git"}, True),
        ("git", GIT, {"url": "https://GIT.example.com:443/team/notes.git"}, True),
        ("git", GIT, {"branch": "next"}, True),
        ("git", GIT, {"url": "https://attacker.example/team/notes.git"}, False),
        ("git", GIT, {"url": "https://git.example.com:8443/team/notes.git"}, False),
        ("git", GIT, {"url": "http://git.example.com/team/notes.git"}, False),
        ("objects", S3, {"url": "s3://bucket/other", "region": "eu-west-1"}, True),
        ("objects", S3, {"url": "s3://another/docs"}, False),
        ("objects", S3, {"endpoint": "https://other.corp.example"}, False),
        ("objects", AZURE, {"account": "acct13"}, False),
    ],
)
def test_credentials_are_for_a_host_or_a_bucket(kind: str, before: dict[str, Any], change: Any, same: bool) -> None:
    one, other = read_config(kind, before), read_config(kind, before | change)
    assert (origin_of(one) == origin_of(other)) is same


@pytest.mark.parametrize(
    ("url", "allowed", "fine"),
    [
        ("https://git.example.com/a", "", True),
        ("http://git.example.com/a", "", False),
        ("http://git.example.com/a", "git.example.com", True),
        ("http://git.corp:8080/a", "git.corp:8080", True),
        ("http://10.1.2.3/a", "10.1.0.0/16", True),
        ("http://93.184.215.14/a", "10.1.0.0/16", False),
    ],
)
def test_credentials_are_sent_in_clear_only_where_the_operator_says_so(url: str, allowed: str, fine: bool) -> None:
    settings = SourceSettings(allow_networks=allowed)
    check_places(read_config("git", {"url": url}), settings)
    config = read_config("git", {"url": url, "credentials": {"token": "hush"}})
    if fine:
        check_places(config, settings)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_places(config, settings)
    assert [field.pointer for field in caught.value.fields] == ["body.config.url"]
