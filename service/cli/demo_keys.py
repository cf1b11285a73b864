"""The keys of the demo's tenants: the service shows a key once, so the demo keeps them, for its owner's eyes alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.local.account import private_file
from tenants.errors import Misconfigured

FILE = "demo-keys.json"


class DemoKey(BaseModel):
    """The key of one tenant."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str
    key_id: str
    key: str = Field(repr=False)


class DemoKeys(BaseModel):
    """The keys by the tenants' slugs, and the address for which they were made."""

    model_config = ConfigDict(frozen=True)

    url: str
    tenants: dict[str, DemoKey] = Field(default_factory=dict)

    def save(self, data_dir: Path) -> None:
        """Write the file (mode 0600)."""
        private_file(data_dir / FILE, self.model_dump_json(indent=2))


def demo_keys(data_dir: Path) -> DemoKeys | None:
    """Return the keys that the demo kept in this data folder, or None.

    Raises:
        Misconfigured: the file cannot be read or is damaged.
    """
    path = data_dir / FILE
    try:
        return DemoKeys.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, PermissionError) as error:
        raise Misconfigured(f"{path} cannot be read; without it `tessera demo` makes new keys.") from error
