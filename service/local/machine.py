"""Does this machine, with this data folder, allow a local stack?"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from service.local.account import unprivileged_account
from service.local.finding import Finding, good, wrong
from service.local.launch import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETPCAP, MEND, permitted
from service.local.ports import is_free
from service.local.postgres import binaries
from service.local.redis import binary
from service.local.state import RUN_FILE, STATE_FILE, Installation
from tenants.errors import Misconfigured

OLDEST = (3, 11)
GIB = 1024**3
LEAST_DISK, LEAST_MEMORY = 2 * GIB, int(1.5 * GIB)
CGROUP_LIMIT, CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
ELSEWHERE = "set TESSERA_DATA_DIR to another folder"


def examine_machine(data_dir: Path, api_port: int, *, running: bool) -> list[Finding]:
    """Look at everything that needs no server. Free memory and ports count only while nothing runs."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_platform,
        check_account,
        check_programs,
        lambda: check_disk(data_dir),
        lambda: check_folder(data_dir),
        lambda: check_state(data_dir),
    ]
    if not running:
        checks += [check_memory, lambda: check_ports(data_dir, api_port)]
    return [check() for check in checks]


def check_python() -> Finding:
    """Python 3.11 or newer."""
    version = platform.python_version()
    if sys.version_info >= OLDEST:
        return good("Python", version)
    return wrong("Python", f"{version} is too old", "install Python 3.11 or newer and run `make setup` again")


def check_platform() -> Finding:
    """The wheels of Postgres and Redis are built for x86-64 Linux with glibc."""
    here = f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}".strip()
    if platform.system() == "Linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc":
        return good("platform", here)
    mend = "run it on x86-64 Linux with glibc, or give the servers by TESSERA_DATABASE_URL, _REDIS_URL and _MILVUS_URI"
    return wrong("platform", f"{here}: the bundled Postgres and Redis do not run here", mend)


def check_account() -> Finding:
    """Postgres runs as an ordinary account with a name; root needs capabilities to let it reach its files."""
    try:
        account = unprivileged_account()
    except Misconfigured as error:
        return wrong("account", error.detail, "add one, for example `useradd --system postgres`")
    if account is None:
        try:
            return good("account", f"an ordinary user, {pwd.getpwuid(os.geteuid()).pw_name}")
        except KeyError:  # initdb insists on a name; containers run with numbers alone
            return wrong(
                "account", f"{os.geteuid()} has no name", "give it a line in /etc/passwd, or use another account"
            )
    held = permitted()
    if held >> CAP_SETPCAP & 1 and any(held >> c & 1 for c in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)):
        return good("account", f"root; Postgres runs as {account.name}")
    return wrong("account", "root without the capabilities to run Postgres as another account", MEND)


def check_programs() -> Finding:
    """The servers that come in wheels."""
    try:
        return good("programs", f"{binaries() / 'postgres'}, {binary()}")
    except Misconfigured as error:
        return wrong("programs", error.detail, "run `make setup`")


def check_disk(data_dir: Path) -> Finding:
    """Free space where the data folder is or will be."""
    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / GIB:.1f} GiB free at {place}"
    if free >= LEAST_DISK:
        return good("disk", said)
    return wrong("disk", f"only {said}", f"free {LEAST_DISK // GIB} GiB there, or {ELSEWHERE}")


def check_folder(data_dir: Path) -> Finding:
    """Ours, writable, and closed to everybody else."""
    if not data_dir.exists():
        parent = next(folder for folder in data_dir.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return good("data folder", f"{data_dir} will be created")
        return wrong("data folder", f"{parent} cannot be written", f"make it writable, or {ELSEWHERE}")
    mode, owner = stat.S_IMODE(data_dir.stat().st_mode), data_dir.stat().st_uid
    if owner not in (os.geteuid(), 0) or not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        return wrong("data folder", f"{data_dir} belongs to account {owner}", f"run as that account, or {ELSEWHERE}")
    if mode != 0o700:
        return wrong("data folder", f"{data_dir} has mode {mode:o}: others may read it", f"chmod 700 {data_dir}")
    return good("data folder", f"{data_dir}, mode 700")


def check_state(data_dir: Path) -> Finding:
    """The files with the secrets."""
    for path in (data_dir / STATE_FILE, data_dir / RUN_FILE):
        if os.access(data_dir, os.X_OK) and path.exists() and stat.S_IMODE(path.stat().st_mode) != 0o600:
            return wrong("secrets", f"others may read {path}", f"chmod 600 {path}")
    if not os.access(data_dir, os.X_OK) or not (data_dir / STATE_FILE).exists():
        return good("secrets", "made at the first start")
    try:
        Installation.load(data_dir)
    except Misconfigured as error:
        mend = f"restore {STATE_FILE} from a backup; without it, start again in a new folder ({ELSEWHERE})"
        return wrong("secrets", error.detail, mend)
    return good("secrets", f"{data_dir / STATE_FILE}, mode 600")


def check_memory() -> Finding:
    """Free memory of the machine or of the container, whichever is less."""
    free = psutil.virtual_memory().available
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(limit) - int(CGROUP_USED.read_text(encoding="ascii")))
    said = f"{free / GIB:.1f} GiB available"
    if free >= LEAST_MEMORY:
        return good("memory", said)
    return wrong("memory", f"only {said}", f"end other programs until {LEAST_MEMORY / GIB:.1f} GiB are free")


def check_ports(data_dir: Path, api_port: int) -> Finding:
    """The preferred ports; one in use is replaced by another at the start, so nothing is wrong with that."""
    known = {"api": api_port}
    if os.access(data_dir, os.X_OK) and (data_dir / STATE_FILE).exists():
        try:
            known |= Installation.load(data_dir).ports
        except Misconfigured:
            return good("ports", "those of the last start are unknown")  # check_state says why
    busy = [f"{port} ({name})" for name, port in known.items() if not is_free(port)]
    return good("ports", f"in use, others will be chosen: {', '.join(busy)}" if busy else "free")
