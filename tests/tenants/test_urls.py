"""What of a URL may be said."""

from __future__ import annotations

import pytest

from tenants.urls import without_secrets


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host:19530", "http://host:19530"),
        ("s3://bucket/originals", "s3://bucket/originals"),
        ("http://root:hush@host:1/db", "http://host:1/db"),
        ("s3://AKID:hu/sh?#hush@bucket/folder", "s3://bucket/folder"),
        ("root:hush@host:19530", "host:19530"),
        ("https://account.blob.example/box?sv=1&sig=hush", "https://account.blob.example/box"),
        ("https://host/box?who=a@b.example&sig=hush", "https://b.example"),
        ("https://host/#hush", "https://host/"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_a_url_is_said_without_its_secrets(url: str, said: str) -> None:
    assert without_secrets(url) == said
