"""What a child of the supervisor is, as data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from service.local.account import Account
from service.local.health import Probe


@dataclass(frozen=True)
class ChildSpec:
    """A server that the supervisor keeps running."""

    name: str
    argv: tuple[str, ...]
    """Program (absolute path) and arguments. No secrets: every account of the machine can read them."""
    log: Path
    probe: Probe
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment."""
    port: int | None = None
    cwd: Path = Path("/")
    account: Account | None = None
    """Account to run as; None keeps the supervisor's own."""
    before: Callable[[], Awaitable[None]] | None = None
    """Idempotent work before every start, such as creating its data folder."""
    stop_signal: Signals = Signals.SIGTERM
    """Asks the process itself, not its descendants, to drain."""
    death_signal: Signals = Signals.SIGKILL
    """What the kernel sends it when the supervisor dies without draining."""
    grace_s: float = 10.0
    """How long it may drain before its whole tree is killed."""
    start_timeout_s: float = 60.0
    hangs_s: float | None = None
    """How long it may live and not be healthy before it is ended and started again; None: for ever. Only who
    says by itself that it gets round has one: a server that does not answer may have much to do."""


@dataclass(frozen=True)
class StepSpec:
    """A program that runs once and must exit 0 before the next stage."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: bytes = field(default=b"", repr=False)
    """Where secrets are handed over."""
    cwd: Path = Path("/")
    account: Account | None = None
    timeout_s: float = 120.0


Member = ChildSpec | StepSpec
Stage = tuple[Member | tuple[Member, ...], ...]
"""What starts at the same time; of a tuple inside, one after the other. Stages start in order, and children drain in
the opposite order of their start."""
