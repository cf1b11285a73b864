"""What passes from the environment to the children: what they need, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder from which `service` is imported: the checkout, or site-packages."""

INHERITED = ("HOME", "LANG", "PATH", "TZ", "TMPDIR")
DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
PREFIX = "TESSERA_"


def native_environment() -> dict[str, str]:
    """Return the environment of Postgres and Redis."""
    return DEFAULTS | {name: os.environ[name] for name in INHERITED if name in os.environ}


CALM_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Matrix products here are small: the threads of OpenBLAS and OpenMP would wait for the next one at full speed, on the
cores that the embedder needs."""


def python_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Python child with its `TESSERA_*` settings.

    No model is looked for on the network, and output reaches the log at once. The allocator is left alone: two arenas
    (MALLOC_ARENA_MAX=2) would save some memory and halve the embedder's speed, whose threads then wait for each other.
    """
    fixed = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return native_environment() | fixed | dict(settings)


def given_settings() -> dict[str, str]:
    """Return the `TESSERA_*` variables that the user has set, to be passed on."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def daemon_environment() -> dict[str, str]:
    """Return the environment of the supervisor in the background: a child's, with the settings as they were given."""
    return python_environment(given_settings())
