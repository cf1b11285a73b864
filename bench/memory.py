"""Resident memory of the idle local stack, by child and in all; prints one JSON line.

    python -m bench.memory [--data-dir .tessera] [--watch-s 5]

RSS counts a page once in every process that maps it, so its sum is an upper bound; PSS divides shared pages among the
processes that share them, so its sum is what the machine has given away. The processor time during the watch says
whether the stack was idle.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.local_stack import arguments, print_line, running
from service.local import processes
from service.local.state import StackState

BAR_BYTES = 2_500_000_000
KIB = 1024


@dataclass(frozen=True)
class Resident:
    """Bytes of one process tree; `pss` is None where the kernel does not tell."""

    processes: int
    rss: int
    pss: int | None

    def shown(self) -> dict[str, float | None]:
        pss = None if self.pss is None else round(self.pss / 1e6, 1)
        return {"processes": self.processes, "rss_mb": round(self.rss / 1e6, 1), "pss_mb": pss}


def rollup(pid: int) -> tuple[int, int] | None:
    """(RSS, PSS) of a process in bytes, or None when it is gone or may not be read."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * KIB for line in lines}
    return sizes["Rss"], sizes["Pss"]


def resident(pids: list[int]) -> Resident:
    found = {pid: rollup(pid) for pid in pids}
    known = [sizes for sizes in found.values() if sizes is not None]
    if len(known) == len(pids):
        return Resident(len(pids), sum(rss for rss, _ in known), sum(pss for _, pss in known))
    return Resident(len(pids), sum(processes.resident_bytes(pid, descendants=False) for pid in pids), None)


def trees(state: StackState) -> dict[str, list[int]]:
    """Processes by child; the supervisor alone, for the others are its descendants."""
    found = {child.name: list(processes.session_tree(child.pid, child.identity)) for child in state.children}
    return {name: pids for name, pids in found.items() if pids} | {"supervisor": [state.supervisor_pid]}


def cpu_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            spent = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--watch-s", type=float, default=5.0, help="how long to watch that nothing works")
    chosen = parser.parse_args()
    state, _ = running(chosen.data_dir)
    by_child = trees(state)
    everything = [pid for pids in by_child.values() for pid in pids]
    before = cpu_seconds(everything)
    time.sleep(chosen.watch_s)
    busy = (cpu_seconds(everything) - before) / chosen.watch_s
    found = {name: resident(pids) for name, pids in by_child.items()}
    whole = resident(everything)
    print_line(
        {
            "bench": "memory",
            "children": {name: one.shown() for name, one in found.items()},
            "all": whole.shown(),
            "cores_busy": round(busy, 3),
            "bar_mb": BAR_BYTES / 1e6,
            "ok": whole.rss <= BAR_BYTES,
            "ok_by_pss": None if whole.pss is None else whole.pss <= BAR_BYTES,
        }
    )


if __name__ == "__main__":
    main()
