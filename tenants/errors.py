"""The one error tree. Each error knows its stable code, HTTP status and whether a retry can help.

TesseraError
├── InvalidRequest            422  the request is malformed; `fields` points at what
│   ├── InvalidFilter         422
│   ├── InvalidMetadata       422
│   └── InvalidCursor         422
├── Unauthenticated           401  no usable key
├── Forbidden                 403  a good key that may not do this
│   └── TenantSuspended       403
├── NotFound                  404  unknown or another tenant's: the two are the same
├── Conflict                  409
├── TooSlow                   408  the body comes too slowly; a retry on a better line can help
├── TooLarge                  413
├── UnsupportedType           415
├── DocumentRejected          422  the content of a document cannot be ingested; ends its job as `failed`
├── EmbeddingRefused          422  an embedding model refuses a text; alone it may pass, so it is tried again alone
├── SourceFailed              422  a source cannot be read; ends its run as failed, its documents stay
│   └── SourceUnavailable     503  it does not answer now; a retry can help
├── TooManyRequests           429  the tenant asks more at once than it may; a retry can help
├── NoRoom                    507  the cluster's budget is spent; the operator has to make room
├── Unavailable               503  a dependency is away; a retry can help
└── Misconfigured             500  a setting or role is wrong; the service refuses to start
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """Points at one field of a request: `pointer` is a dotted path such as `filter.and.0.year.gte`."""

    pointer: str
    detail: str


class TesseraError(Exception):
    """Something the caller can be told about. Its texts may quote the request: half a surrogate pair in it, which no
    answer and no row can hold, is written as `\\ud800`."""

    code = "internal_error"
    status = 500
    retryable = False
    title = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, fields: tuple[FieldError, ...] = ()) -> None:
        self.detail = _whole(detail)
        super().__init__(self.detail)
        self.fields = tuple(FieldError(_whole(field.pointer), _whole(field.detail)) for field in fields)
        if code is not None:
            self.code = code


def _whole(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


class InvalidRequest(TesseraError):
    """The request is malformed."""

    code = "invalid_request"
    status = 422
    title = "Invalid request"


class InvalidFilter(InvalidRequest):
    """The metadata filter is not in the grammar."""

    code = "invalid_filter"
    title = "Invalid filter"


class InvalidMetadata(InvalidRequest):
    """The document's metadata cannot be stored."""

    code = "invalid_metadata"
    title = "Invalid metadata"


class InvalidCursor(InvalidRequest):
    """The cursor was not issued by this list."""

    code = "invalid_cursor"
    title = "Invalid cursor"


class Unauthenticated(TesseraError):
    """No usable key came with the request (codes: missing_key, malformed_key, invalid_key)."""

    code = "invalid_key"
    status = 401
    title = "Unauthenticated"


class Forbidden(TesseraError):
    """The key is good, but may not do this."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class TenantSuspended(Forbidden):
    """The tenant is suspended."""

    code = "tenant_suspended"
    title = "Tenant suspended"


class NotFound(TesseraError):
    """No such object for this caller. Never says whether another tenant has it."""

    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(TesseraError):
    """The request contradicts the present state."""

    code = "conflict"
    status = 409
    title = "Conflict"


class TooSlow(TesseraError):
    """The body comes more slowly than is waited for."""

    code = "body_too_slow"
    status = 408
    retryable = True
    title = "Too slow"


class TooLarge(TesseraError):
    """The body is over the limit."""

    code = "too_large"
    status = 413
    title = "Too large"


class UnsupportedType(TesseraError):
    """The type of the file is not one that can be ingested."""

    code = "unsupported_type"
    status = 415
    title = "Unsupported type"


class DocumentRejected(TesseraError):
    """The content of a document cannot be ingested.

    Codes: document_empty, document_unreadable, document_encrypted, document_encoding, document_too_long, needs_ocr,
    image_too_large, nested_too_deeply, archive_bomb, archive_too_deep, archive_too_many_entries, unsafe_path,
    unsafe_link, xml_entities, parser_timeout, parser_memory. Each comes with one sentence that tells the document's
    owner what to do.
    """

    code = "document_unreadable"
    status = 422
    title = "Document rejected"


class EmbeddingRefused(TesseraError):
    """The server of an embedding model refuses what it is to embed, a text that is longer than it reads for example.

    A batch is tried again document by document, so that one that is refused keeps no other.
    """

    code = "embedding_refused"
    status = 422
    retryable = True
    title = "Embedding refused"


class SourceFailed(TesseraError):
    """A source, or one entry of it, cannot be read.

    Codes: source_not_found, source_error, source_forbidden, source_wrong_type, source_redirect_loop, source_too_large,
    source_too_many, source_address_refused, source_moved, source_robots, source_damaged, source_empty.
    """

    code = "source_error"
    status = 422
    title = "Source failed"


class SourceUnavailable(SourceFailed):
    """A source does not answer now; trying again later can help (codes: source_error, source_timeout,
    source_unreachable, source_busy)."""

    status = 503
    retryable = True
    title = "Source unavailable"


class TooManyRequests(TesseraError):
    """The tenant asks more at once than it may; trying again a little later helps."""

    code = "too_many_requests"
    status = 429
    retryable = True
    title = "Too many requests"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, code=code)
        self.retry_after_s = retry_after_s


class NoRoom(TesseraError):
    """The engine has no room for more; the message says what the operator can do."""

    code = "no_room"
    status = 507
    title = "Insufficient storage"


class Unavailable(TesseraError):
    """A dependency does not answer; trying again later can help."""

    code = "unavailable"
    status = 503
    retryable = True
    title = "Unavailable"


class Misconfigured(TesseraError):
    """A setting, role or schema is wrong; the service refuses to start."""

    code = "misconfigured"
    title = "Misconfigured"
