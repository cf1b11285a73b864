"""What the errors of Milvus mean to the service."""

from __future__ import annotations

import pytest
from pymilvus import MilvusException
from pymilvus.exceptions import DataNotMatchException, ParamError
from pymilvus.grpc_gen import common_pb2

from shards.milvus_errors import NotLoaded, translated
from shards.vectors import MissingCollection
from tenants.errors import NoRoom, Unavailable


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        *((code, Unavailable) for code in (2, 3, 4, 7, 8, 9, 11, 103, 202, 401, 503, 901)),
        *((code, NotLoaded) for code in (101, 201)),
        *((code, MissingCollection) for code in (100, 800)),
        *((code, NoRoom) for code in (102, 801)),
        (1, MilvusException),
        (1100, MilvusException),
    ],
)
def test_a_code_of_the_server_is_waited_for_loaded_missing_full_or_our_mistake(
    code: int, meaning: type[Exception]
) -> None:
    """Codes as `pkg/util/merr/errors.go` of Milvus has them."""
    assert type(translated(MilvusException(code, "words"))) is meaning


@pytest.mark.parametrize(
    "error",
    [
        MilvusException(1, "service not ready", retriable=True),
        MilvusException(1, "service not ready", common_pb2.NotReadyServe),
        MilvusException(message="wait for loading collection timeout, collection: c"),
        MilvusException(1, "[Errno 28] No space left on device"),
    ],
)
def test_a_server_that_starts_and_a_wait_that_was_long_enough_are_waited_for(error: MilvusException) -> None:
    """They share their code with all that the client has against arguments."""
    assert type(translated(error)) is Unavailable
    wrapped = MilvusException(error.code, f"Retry timeout, message={error.message}")
    wrapped.__cause__ = error
    assert type(translated(wrapped)) is Unavailable


@pytest.mark.parametrize("error", [ParamError(message="wrong"), DataNotMatchException(message="wrong")])
def test_what_the_client_has_against_arguments_does_not_pass(error: MilvusException) -> None:
    assert translated(error) is error


def test_what_passes_may_be_tried_again_and_what_is_full_may_not() -> None:
    passing, full = (translated(MilvusException(code, "words")) for code in (9, 102))
    assert isinstance(passing, Unavailable)
    assert passing.retryable
    assert "words" not in passing.detail
    assert isinstance(full, NoRoom)
    assert not full.retryable


def test_an_error_that_was_raised_from_itself_ends() -> None:
    error = MilvusException(1100, "words")
    error.__cause__ = error
    assert translated(error) is error
