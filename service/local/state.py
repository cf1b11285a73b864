"""What the stack remembers, in two files below the data folder that only their owner may read.

`state.json` holds what must outlive a restart: secrets and ports. `run.json` says what runs now, and is what remains
when a supervisor is killed, so that the next one can end its children.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from signal import Signals
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.local import processes
from service.local.account import private_file
from tenants.errors import Misconfigured

STATE_FILE, RUN_FILE = "state.json", "run.json"
SECRET_BYTES = 24  # 192 random bits

ChildState = Literal["starting", "healthy", "unhealthy", "waiting", "failed", "stopping", "stopped"]
Loaded = TypeVar("Loaded", bound=BaseModel)


def secret() -> str:
    """Return 192 random bits in hexadecimal, which needs no quoting in a URL, a file or a shell."""
    return secrets.token_hex(SECRET_BYTES)


class Secrets(BaseModel):
    """Made once for a data folder."""

    model_config = ConfigDict(frozen=True)

    superuser: str = Field(default_factory=secret, repr=False)
    owner: str = Field(default_factory=secret, repr=False)
    app: str = Field(default_factory=secret, repr=False)
    worker: str = Field(default_factory=secret, repr=False)
    redis: str = Field(default_factory=secret, repr=False)
    pepper: str = Field(default_factory=secret, repr=False)
    sources: str = Field(default_factory=secret, repr=False)
    admin_key: str = Field(default_factory=lambda: f"tsr_admin_{secret()}", repr=False)


class Installation(BaseModel):
    """What outlives a restart."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    secrets: Secrets = Field(default_factory=Secrets)
    ports: dict[str, int] = Field(default_factory=dict)
    """Of the last start, by child."""

    @classmethod
    def load(cls, data_dir: Path) -> Self:
        """Read the file; a data folder without one gets new secrets, and keeps them.

        Raises:
            Misconfigured: the file is damaged. Its passwords cannot be guessed, so it is never replaced.
        """
        path = data_dir / STATE_FILE
        if not path.exists():
            made = cls()
            made.save(data_dir)
            return made
        return read(path, cls)

    def save(self, data_dir: Path) -> None:
        """Write the file."""
        private_file(data_dir / STATE_FILE, self.model_dump_json(indent=2))


class ChildRecord(BaseModel):
    """One child as the supervisor sees it."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: ChildState
    pid: int = 0
    identity: str = ""
    """Tells the process from a later one with the same number."""
    port: int | None = None
    since: float = 0.0
    """Start of this process, seconds since 1970."""
    restarts: int = 0
    cause: str = ""
    """Why it last died."""
    log: Path
    stop_signal: Signals = Signals.SIGTERM


class StackState(BaseModel):
    """A running stack."""

    model_config = ConfigDict(frozen=True)

    supervisor_pid: int
    supervisor_identity: str
    since: float
    of: Literal["stack", "stores", "servers"] = "stack"
    """What runs: all, only the stores as part of another process, or the servers of `tessera servers`."""
    ready: bool = False
    url: str = ""
    """Of the API, if there is one."""
    admin_key: str = Field(default="", repr=False)
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """`TESSERA_*` settings by which another process of this machine uses the same stores."""
    children: tuple[ChildRecord, ...] = ()
    """In the order of their start."""

    def alive(self) -> bool:
        """Say whether the supervisor that wrote this still runs."""
        return processes.is_alive(self.supervisor_pid, self.supervisor_identity)

    def save(self, data_dir: Path) -> None:
        """Write the file."""
        private_file(data_dir / RUN_FILE, self.model_dump_json(indent=2))


def recorded_stack(data_dir: Path) -> StackState | None:
    """Return what the last supervisor wrote, running or not; None when it drained to the end."""
    try:
        return read(data_dir / RUN_FILE, StackState)
    except FileNotFoundError:
        return None


def running_stack(data_dir: Path) -> StackState | None:
    """Return the stack that runs from this data folder, ready or not yet, or None."""
    state = recorded_stack(data_dir)
    return state if state is not None and state.alive() else None


def forget_stack(data_dir: Path) -> None:
    """Remove the record after the last child has ended."""
    (data_dir / RUN_FILE).unlink(missing_ok=True)


def read(path: Path, model: type[Loaded]) -> Loaded:
    """Read one of the files.

    Raises:
        Misconfigured: it cannot be read or is not what this version writes.
    """
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, PermissionError) as error:
        raise Misconfigured(f"{path} cannot be used: {error}") from error
