"""What a tenant says about a source, checked kind by kind. Credentials are kept apart: they are never shown."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from ingestion.sources.guard import check_url, host_of
from ingestion.sources.settings import SourceSettings
from tenants.errors import FieldError, InvalidRequest, SourceFailed

Kind = Literal["web", "sitemap", "feed", "git", "objects", "folder"]
Url = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[^\x00]*$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
_RELATIVE = re.compile(r"(?!.*(?:^|/)\.\.(?:/|$))[^/\x00][^\x00]*\Z|\Z")
_BUCKET = r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$"


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    misses: ClassVar[int] = 1
    """How often in a row an entry has to be missing, where the tenant does not say."""
    keeps: ClassVar[bool] = False
    """Whether the documents of what vanished stay, where the tenant does not say."""

    def urls_to_check(self) -> list[tuple[str, str]]:
        """Return the addresses by the field they are in."""
        return []


class WebConfig(_Config):
    """Pages of the web; with `depth`, also the pages of the same host that they link to."""

    misses: ClassVar[int] = 2
    urls: list[Url] = Field(min_length=1, max_length=100)
    depth: int = Field(default=0, ge=0, le=3)
    max_pages: int = Field(default=200, ge=1, le=5000)

    @model_validator(mode="before")
    @classmethod
    def _one_url(cls, given: Any) -> Any:
        """Take `url` for a list of one."""
        if isinstance(given, dict) and "url" in given and "urls" not in given:
            return {name: value for name, value in given.items() if name != "url"} | {"urls": [given["url"]]}
        return given

    def urls_to_check(self) -> list[tuple[str, str]]:
        """Return the addresses by the field they are in."""
        return [(f"urls.{at}", url) for at, url in enumerate(self.urls)]


class SitemapConfig(_Config):
    """The pages of a sitemap or an index of sitemaps."""

    misses: ClassVar[int] = 2
    url: Url
    trust_lastmod: bool = False
    """Whether a page whose `lastmod` is the one of the last run is not asked for again."""

    def urls_to_check(self) -> list[tuple[str, str]]:
        """Return the addresses by the field they are in."""
        return [("url", self.url)]


class FeedConfig(_Config):
    """The entries of an RSS or Atom feed: what the feed says of each, or the pages that they link to."""

    misses: ClassVar[int] = 2
    keeps: ClassVar[bool] = True
    url: Url
    content: Literal["entry", "page"] = "entry"

    def urls_to_check(self) -> list[tuple[str, str]]:
        """Return the addresses by the field they are in."""
        return [("url", self.url)]


class GitCredentials(BaseModel):
    """For a private repository."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(default="git", max_length=200)
    token: SecretStr = Field(min_length=1, max_length=1000)


class GitConfig(_Config):
    """The files of a folder of a Git repository, at the head of a branch."""

    url: Url
    branch: str | None = Field(
        default=None, min_length=1, max_length=250, pattern=r"^[^\x00-\x20~^:?*\[\\-][^\x00-\x20~^:?*\[\\]*$"
    )
    folder: str = Field(default="", max_length=1000)
    include: list[Pattern] = Field(default_factory=list, max_length=50)
    credentials: GitCredentials | None = None

    @field_validator("folder")
    @classmethod
    def _inside(cls, value: str) -> str:
        return relative(value)

    def urls_to_check(self) -> list[tuple[str, str]]:
        """Return the addresses by the field they are in."""
        return [("url", self.url)]


class ObjectCredentials(BaseModel):
    """What opens a bucket: of S3 the first three, of Google the fourth, of Azure one of the last two."""

    model_config = ConfigDict(extra="forbid")

    access_key_id: SecretStr | None = Field(default=None, max_length=200)
    secret_access_key: SecretStr | None = Field(default=None, max_length=400)
    session_token: SecretStr | None = Field(default=None, max_length=4000)
    service_account_key: SecretStr | None = Field(default=None, max_length=8000)
    account_key: SecretStr | None = Field(default=None, max_length=400)
    sas_token: SecretStr | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self


class ObjectsConfig(_Config):
    """The objects below a prefix: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///...`
    where the operator allows the folder."""

    url: Url
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,40}$")
    endpoint: Url | None = None
    account: str | None = Field(default=None, pattern=r"^[a-z0-9]{3,24}$")
    include: list[Pattern] = Field(default_factory=list, max_length=50)
    credentials: ObjectCredentials | None = None

    @property
    def scheme(self) -> str:
        """Return which kind of store it is: s3, gs, az or file."""
        return urlsplit(self.url).scheme

    @property
    def bucket(self) -> str:
        """Return the bucket or container."""
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """Return the prefix within the bucket, or the folder of a file URL."""
        path = urlsplit(self.url).path
        return unquote(path) if self.scheme == "file" else path.strip("/")

    @model_validator(mode="after")
    def _is_a_store(self) -> Self:
        if self.scheme not in ("s3", "gs", "az", "file"):
            raise ValueError("url must begin with s3://, gs://, az:// or file://")
        if self.scheme == "file" and (self.bucket or not self.path.startswith("/")):
            raise ValueError("a file url has three slashes and a whole path")
        if self.scheme != "file" and not re.match(_BUCKET, self.bucket):
            raise ValueError("url does not name a bucket")
        if self.scheme == "az" and self.account is None:
            raise ValueError("az:// needs the account")
        if self.endpoint is not None and self.scheme != "s3":
            raise ValueError("only s3:// takes an endpoint")
        return self


class FolderConfig(_Config):
    """The files below a folder of the workers' machine, where the operator allows it."""

    path: str = Field(min_length=1, max_length=1000, pattern=r"^/[^\x00]*$")
    include: list[Pattern] = Field(default_factory=list, max_length=50)


Config = WebConfig | SitemapConfig | FeedConfig | GitConfig | ObjectsConfig | FolderConfig
CONFIGS: dict[str, type[Config]] = {
    "web": WebConfig,
    "sitemap": SitemapConfig,
    "feed": FeedConfig,
    "git": GitConfig,
    "objects": ObjectsConfig,
    "folder": FolderConfig,
}


def read_config(kind: str, given: dict[str, Any]) -> Config:
    """Return the configuration of a source of this kind.

    Raises:
        InvalidRequest: it is not one; `fields` points at each fault below `body.config`.
    """
    try:
        return CONFIGS[kind].model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        fields = tuple(
            FieldError(".".join(["body", "config", *(str(part) for part in item["loc"])]), item["msg"])
            for item in found
        )
        first = fields[0]
        raise InvalidRequest(f"The source is not valid: {first.pointer}: {first.detail}.", fields=fields) from error


def check_places(config: Config, settings: SourceSettings) -> None:
    """Refuse addresses that can be told to be out of bounds before they are looked up.

    Raises:
        InvalidRequest: `source_address_refused`, naming the field.
    """
    for name, url in config.urls_to_check():
        try:
            check_url(url, settings.rules)
        except SourceFailed as error:
            where = FieldError(f"body.config.{name}", error.detail)
            raise InvalidRequest(error.detail, code=error.code, fields=(where,)) from error
    if isinstance(config, GitConfig) and config.credentials is not None:
        _require_private(config.url, settings)
    endpoint = config.endpoint if isinstance(config, ObjectsConfig) else None
    if endpoint is not None and endpoint.rstrip("/") not in settings.endpoints:
        where = FieldError("body.config.endpoint", "is not one that the operator allows")
        detail = "The endpoint is refused: the operator names those that may be used."
        raise InvalidRequest(detail, code="source_address_refused", fields=(where,))


def _require_private(url: str, settings: SourceSettings) -> None:
    """Refuse credentials in clear over a network that the operator does not name."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not settings.rules.name(host_of(parts)):
        where = FieldError("body.config.url", "must be https where there are credentials")
        raise InvalidRequest("Credentials are sent over https only.", fields=(where,))


def relative(path: str) -> str:
    """Return a path within a repository without slashes at its ends; raise `ValueError` when it could lead out."""
    bare = path.strip("/")
    if not _RELATIVE.match(bare):
        raise ValueError("must be a path within the repository")
    return bare


def parted(config: Config) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the configuration without its credentials, and these as they were given."""
    shown = config.model_dump(exclude={"credentials"}, exclude_none=True)
    given = getattr(config, "credentials", None)
    if given is None:
        return shown, None
    raw = {name: getattr(given, name) for name in type(given).model_fields}
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in raw.items()}
    return shown, {name: value for name, value in plain.items() if value is not None}


def whole(kind: str, shown: dict[str, Any], credentials: dict[str, Any] | None) -> Config:
    """Put together what `parted` took apart."""
    return read_config(kind, shown | ({"credentials": credentials} if credentials else {}))


def redacted(shown: dict[str, Any], *, sealed: bool) -> dict[str, Any]:
    """Return a configuration for its owner's eyes: whether there are credentials, never which."""
    return shown | ({"credentials": "set"} if sealed else {})


def service_account(key: str) -> str:
    """Return the parts of a Google service account's key that sign requests, and no address it may also hold.

    Raises:
        SourceFailed: it is not such a key.
    """
    wanted = ("type", "private_key", "private_key_id", "client_email")
    try:
        given = json.loads(key)
        return json.dumps({name: str(given[name]) for name in wanted if name in given})
    except (ValueError, TypeError) as error:
        raise SourceFailed("The service account key is not JSON.", code="source_forbidden") from error
