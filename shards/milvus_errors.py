"""What the errors of Milvus and of its client mean."""

from __future__ import annotations

from collections.abc import Iterator

import grpc  # type: ignore[import-untyped]
from pymilvus import MilvusException
from pymilvus.client.types import Status
from pymilvus.grpc_gen import common_pb2

from shards.vectors import MissingCollection
from tenants.errors import NoRoom, Unavailable

_NOT_LOADED = (101, 201)
_NO_COLLECTION = 100
_NO_DATABASE = 800
_FULL = (102, 801)
"""So many collections or databases are not allowed."""
_AWAY = (
    Status.CONNECT_FAILED,
    *(4, 5, 11),  # the server is ending, overloaded, or one of its parts is away
    *(3, 7, 8, 9),  # memory, disk, rates or quotas are at their limits
    *(103, 202, 400, 401, 500, 501, 503, 601, 602, 901, 902, 903, 906),  # a part is being loaded or moved
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)
"""What passes: trying again later can help."""
_ANYTHING = 1
"""A server that starts, but also whatever Milvus Lite has no code for, and what the client has against arguments."""
_PASSING = ("loading collection timeout", "[Errno ")
"""Words in such an error: the client waited long enough, or the operating system refused Milvus Lite a file."""
_WRONG = {
    grpc.StatusCode.UNAUTHENTICATED: "it refuses the login: {details}. Set TESSERA_MILVUS_TOKEN to `user:password` or"
    " a token of a user that it knows.",
    grpc.StatusCode.PERMISSION_DENIED: "its user may not do that: {details}. Grant its role the privileges of"
    " docs/milvus.md.",
    grpc.StatusCode.UNIMPLEMENTED: "it is not a Milvus server, or one older than 2.3: {details}.",
}
_NO_CONNECTION = {
    "SSL_ERROR": "there is no TLS between us: it speaks none, or its certificate is of an authority not trusted."
    " Compare https:// in TESSERA_MILVUS_URI and the file of TESSERA_MILVUS_CA with the server's settings.",
    "certificate": "its certificate is not one that we trust. Name its authority's file in TESSERA_MILVUS_CA, and the"
    " name in the certificate in TESSERA_MILVUS_SERVER_NAME.",
    "Unwrap failed": "it ends the TLS connection: perhaps it asks for a certificate. Set TESSERA_MILVUS_CLIENT_CERT and"
    " TESSERA_MILVUS_CLIENT_KEY to one that is signed by an authority that it trusts.",
    "Failed parsing HTTP/2": "what answers there is not a Milvus server. TESSERA_MILVUS_URI names its gRPC port,"
    " which is 19530 if nobody changed it.",
}


class NotLoaded(Exception):
    """The collection exists, but its server has not loaded it."""


class Refused(Unavailable):
    """The server is there and will not serve us, until an operator changes something. `why` says what, and is not for
    callers of the service."""

    def __init__(self, why: str) -> None:
        super().__init__("The vector store does not answer.", code="vectors_unavailable")
        self.why = why


def translated(error: Exception) -> Exception:
    """Return what to raise for an error of the client or the server."""
    code = _code(error)
    if code in (_NO_COLLECTION, _NO_DATABASE) or _lite_lacks_database(error):
        return MissingCollection(str(getattr(error, "message", error)))
    if code in _NOT_LOADED:
        return NotLoaded(str(error))
    if code in _FULL:
        return NoRoom(f"The Milvus server takes no more: {getattr(error, 'message', error)}")
    why = next(filter(None, map(_why, _causes(error))), None)
    if why is not None:
        return Refused(why)
    if isinstance(error, TimeoutError) or code in _AWAY or any(map(_passes, _causes(error))):
        return away()
    return error


def away() -> Unavailable:
    """Return the error of a server that does not answer."""
    return Unavailable("The vector store does not answer.", code="vectors_unavailable")


def _passes(error: BaseException) -> bool:
    if not isinstance(error, MilvusException) or error.code != _ANYTHING:
        return False
    starting = error.retriable or error.compatible_code == common_pb2.NotReadyServe
    return starting or any(words in str(error.message) for words in _PASSING)


def _why(error: BaseException) -> str | None:
    """Return what is wrong for good, by an error of the connection."""
    if not isinstance(error, grpc.RpcError):
        return None
    details, code = str(error.details() or ""), _code(error)
    if code in _WRONG:
        return _WRONG[code].format(details=details.rstrip("."))
    if code != grpc.StatusCode.UNAVAILABLE:
        return None
    return next((why for mark, why in _NO_CONNECTION.items() if mark in details), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from: pymilvus says of all refusals that it cannot connect, and
    raises some errors from themselves."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__


def _code(error: BaseException) -> object:
    return error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)


def _lite_lacks_database(error: Exception) -> bool:
    """Milvus Lite has no code of its own for it."""
    message = str(getattr(error, "message", ""))
    return message.startswith("database '") and message.endswith("' does not exist")
