"""The multipart forms of uploads: every part is read and checked before anything is stored.

The functions that read block on the disk where a file is large: call them in a thread.
"""

from __future__ import annotations

import json
import re
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from ingestion.content import measure, media_type, safe_filename
from ingestion.intake import Incoming
from ingestion.metadata import check_metadata, parse_metadata
from ingestion.parse.detect import detect_format
from ingestion.settings import IngestSettings
from ingestion.upload_rows import Upload
from tenants.errors import FieldError, InvalidRequest, TesseraError, TooLarge

MAX_FILES = 100
_MAX_NAME = 512
_NAMES = ("external_id", "title")
_CHARSET = re.compile(r"""charset[*0-9]*\s*=\s*"?([^\s";]*)""", re.IGNORECASE)


def require_utf8(request: Request) -> None:
    """Raise `InvalidRequest` for a form in another charset: what some of them are read as is no text."""
    if {name.lower() for name in _CHARSET.findall(request.headers.get("content-type", ""))} - {"utf-8", "utf8"}:
        raise InvalidRequest("Send the form in UTF-8.", fields=(FieldError("body", "names another charset"),))


def opened(request: Request, settings: IngestSettings, *, files: int) -> AbstractAsyncContextManager[FormData]:
    """Return the form of a request, to be read within the context; it may hold `files` files.

    Raises:
        InvalidRequest: it is not multipart/form-data.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest(
            "Send the document as multipart/form-data with a part named `file`.",
            fields=(FieldError("body", "is not multipart/form-data"),),
        )
    # One more is let in, so that the refusal can name the limit.
    return request.form(max_files=files + 1, max_fields=8, max_part_size=files * settings.max_metadata_bytes * 4)


def read_one(form: FormData, settings: IngestSettings) -> Incoming:
    """Return the document of a form with the parts `file`, `metadata`, `external_id` and `title`.

    Raises:
        InvalidRequest: a part is missing, unknown or malformed.
        TooLarge, UnsupportedType: so is the file.
    """
    [file] = _files(form, most=1)
    _refuse_unknown(form, {"file", "metadata", *_NAMES})
    names = {name: _name(_text(form, name), f"body.{name}") for name in _NAMES}
    metadata = parse_metadata(_text(form, "metadata"), max_bytes=settings.max_metadata_bytes)
    return _incoming(file, settings, metadata=metadata, **names)


def read_many(form: FormData, settings: IngestSettings) -> list[Incoming | TesseraError]:
    """Return each `file` of a form, or why it is refused, in order; `items` is a JSON array with an object for each.

    Raises:
        InvalidRequest: the form as a whole is malformed.
    """
    files = _files(form, most=MAX_FILES)
    _refuse_unknown(form, {"file", "items"})
    read: list[Incoming | TesseraError] = []
    for at, (file, item) in enumerate(zip(files, _items(form, len(files)), strict=True)):
        try:
            read.append(_item(file, item, f"items.{at}", settings))
        except TesseraError as error:
            read.append(error)
    return read


def _item(file: UploadFile, item: Any, pointer: str, settings: IngestSettings) -> Incoming:
    if not isinstance(item, dict):
        raise _invalid(pointer, "must be an object")
    unknown = sorted(set(item) - {"metadata", *_NAMES})
    if unknown:
        raise _invalid(f"{pointer}.{unknown[0]}", "unknown")
    names = {name: _name(item.get(name), f"{pointer}.{name}") for name in _NAMES}
    metadata = item.get("metadata")
    if metadata is not None:
        check_metadata(metadata, max_bytes=settings.max_metadata_bytes, pointer=f"{pointer}.metadata")
    return _incoming(file, settings, metadata=metadata, **names)


def _incoming(
    file: UploadFile, settings: IngestSettings, *, metadata: dict[str, Any] | None, **names: str | None
) -> Incoming:
    size, digest, head, tail = measure(file.file)
    if size > settings.max_upload_bytes:
        raise TooLarge(f"The file is larger than {settings.max_upload_bytes} bytes.")
    filename = safe_filename(file.filename or "document")
    upload = Upload(
        filename=filename,
        content_type=media_type(file.content_type),
        format=detect_format(head, filename, file.content_type, tail),
        size_bytes=size,
        sha256=digest,
        metadata=metadata,
        external_id=names["external_id"],
        title=names["title"],
    )
    return Incoming(upload, file.file)


def _files(form: FormData, *, most: int) -> list[UploadFile]:
    files = form.getlist("file")
    if len(files) > most:
        raise _invalid("body.file", f"is there {len(files)} times; at most {most} fit into one request")
    if not files or not all(isinstance(file, UploadFile) for file in files):
        raise InvalidRequest("The form has no file.", fields=(FieldError("body.file", "is missing"),))
    return files  # type: ignore[return-value]  # checked above


def _items(form: FormData, files: int) -> list[Any]:
    text = _text(form, "items")
    if text is None:
        return [{}] * files
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("body.items", f"is not JSON ({error})") from error
    if not isinstance(items, list) or len(items) != files:
        raise _invalid("body.items", f"must be a JSON array with one object for each of the {files} files")
    return items


def _refuse_unknown(form: FormData, known: set[str]) -> None:
    unknown = sorted(set(form) - known)
    if unknown:
        name = unknown[0]
        raise InvalidRequest(f"The form has an unknown part {name!r}.", fields=(FieldError(f"body.{name}", "unknown"),))


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise InvalidRequest(f"`{name}` must be text.", fields=(FieldError(f"body.{name}", "is a file"),))
    return value


def _name(value: Any, pointer: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid(pointer, "must be a string")
    text = value.strip()
    if len(text) > _MAX_NAME or any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in text):
        raise _invalid(pointer, f"takes at most {_MAX_NAME} characters, without control characters")
    return text or None


def _invalid(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"`{pointer.removeprefix('body.')}` {detail}.", fields=(FieldError(pointer, detail),))
