"""How a command finds the service and its key: options, then the environment, then the local stack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from eval.client import TesseraClient
from service.cli.demo_keys import demo_keys
from service.cli.settings import ClientSettings
from service.local.state import StackState, running_stack
from tenants.errors import Misconfigured, Unauthenticated

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Address of the service [TESSERA_URL, else the local stack].", show_default=False),
]
KeyOption = Annotated[str | None, typer.Option("--key", help="The tenant's API key [TESSERA_KEY].", show_default=False)]
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", help="A demo tenant's slug; uses the key that the demo kept.", show_default=False),
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option("--admin-key", help="The admin key [TESSERA_ADMIN_KEY, else the local stack's].", show_default=False),
]


@dataclass(frozen=True)
class Access:
    """What the options say about address and key; None where they say nothing."""

    url: str | None
    key: str | None
    tenant: str | None


def tenant_client(access: Access) -> TesseraClient:
    """Return a client with a tenant's key.

    Raises:
        Misconfigured: no address is given and no local stack is ready.
        Unauthenticated: no key is given.
    """
    settings = ClientSettings()
    stack = _ready_stack(settings)
    address = _address(access.url, settings, stack)
    if access.key is None and access.tenant is not None:
        return TesseraClient(address, _kept_key(settings.data_dir, address, stack, access.tenant))
    given = access.key or (settings.key.get_secret_value() if settings.key else None)
    if given is None:
        raise Unauthenticated(_no_key(settings.data_dir), code="missing_key")
    return TesseraClient(address, given)


def admin_client(url: str | None, admin_key: str | None) -> TesseraClient:
    """Return a client with the admin key; raises as `tenant_client` does."""
    return TesseraClient(*admin_address(url, admin_key))


def admin_address(url: str | None, admin_key: str | None) -> tuple[str, str]:
    """Return the address and its admin key; raises as `tenant_client` does."""
    settings = ClientSettings()
    stack = _ready_stack(settings)
    address = _address(url, settings, stack)
    given = admin_key or (settings.admin_key.get_secret_value() if settings.admin_key else None)
    # The local stack's key is never sent to another address.
    if given is None and stack is not None and address == stack.url:
        given = stack.admin_key
    if given is None:
        raise Unauthenticated(f"Give the admin key of {address}: --admin-key or TESSERA_ADMIN_KEY.", code="missing_key")
    return address, given


def data_folder() -> Path:
    """Return the absolute data folder of the settings."""
    return ClientSettings().data_dir.absolute()


def _ready_stack(settings: ClientSettings) -> StackState | None:
    state = running_stack(settings.data_dir.absolute())
    return state if state is not None and state.ready and state.url else None


def _address(url: str | None, settings: ClientSettings, stack: StackState | None) -> str:
    given = url or settings.url or (stack.url if stack is not None else None)
    if given is None:
        raise Misconfigured(
            "No service is known: start one with `tessera up`, or give --url or TESSERA_URL.", code="no_service"
        )
    return given.rstrip("/")


def _kept_key(data_dir: Path, address: str, stack: StackState | None, slug: str) -> str:
    kept = demo_keys(data_dir.absolute())
    if kept is None or slug not in kept.tenants:
        raise Unauthenticated(f"The demo has kept no key of {slug!r}: run `tessera demo`.", code="missing_key")
    if address not in (kept.url, stack.url if stack is not None else None):
        raise Unauthenticated(f"The kept key of {slug!r} belongs to {kept.url}, not to {address}.", code="missing_key")
    return kept.tenants[slug].key


def _no_key(data_dir: Path) -> str:
    sentence = "Give the tenant's key: --key or TESSERA_KEY"
    kept = demo_keys(data_dir.absolute())
    if kept is None or not kept.tenants:
        return f"{sentence} (`tessera key create` makes one)."
    return f"{sentence}; for the demo's tenants: --tenant {' or '.join(sorted(kept.tenants))}."
