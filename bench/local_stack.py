"""Where the running local stack is, for the benchmarks: its address, its admin key, and its settings."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from service.local.state import StackState, running_stack
from service.settings import Settings


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(".tessera"), help="data folder of the running stack")
    return parser


def running(data_dir: Path) -> tuple[StackState, Settings]:
    """The stack and the settings that its own processes have; ends the program when none runs."""
    state = running_stack(data_dir.absolute())
    if state is None or not state.ready:
        sys.exit(f"No stack is ready in {data_dir.absolute()}: start one with `tessera up`.")
    os.environ.update(state.env)
    return state, Settings()


def print_line(found: dict[str, Any]) -> None:
    """One JSON line, with what a reader must know about the machine."""
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({**found, "cores": cores, "load_1m": round(os.getloadavg()[0], 2)}))
