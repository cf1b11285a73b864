"""Every password of docker-compose.yml, at random: `python3 deploy/passwords.py .env`. Needs nothing but Python.

What the file has is kept, whatever else stands in it; only passwords that it lacks are added.
"""

import os
import re
import secrets
import sys
from pathlib import Path

NAMES = (
    "POSTGRES_PASSWORD",
    "OWNER_PASSWORD",
    "APP_PASSWORD",
    "WORKER_PASSWORD",
    "REDIS_PASSWORD",
    "MILVUS_PASSWORD",
    "MILVUS_USER_PASSWORD",
    "MILVUS_OBJECTS_PASSWORD",
    "OBJECTS_PASSWORD",
    "OPENSEARCH_PASSWORD",
    "TESSERA_SECRET_PEPPER",
    "TESSERA_SECRET_SOURCES",
    "TESSERA_ADMIN_KEY",
)
_PREFIX = {"TESSERA_ADMIN_KEY": "tsr_admin_"}
_SUFFIX = {"OPENSEARCH_PASSWORD": "-Os1"}
"""OpenSearch asks for a character of each kind."""


def made(name: str) -> str:
    """Return 192 random bits, of characters that need no quoting anywhere."""
    return _PREFIX.get(name, "") + secrets.token_hex(24) + _SUFFIX.get(name, "")


def main() -> None:
    """Add to the file, which only its owner may read, what it lacks."""
    if len(sys.argv) != 2:
        sys.exit("Name the file: python3 deploy/passwords.py .env")
    try:
        lacking = completed(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error.strerror}.")
    told = f"added {', '.join(lacking)}" if lacking else "has every password"
    sys.stderr.write(f"{sys.argv[1]}: {told}.\n")


def completed(path: Path) -> list[str]:
    """Add what a file lacks; return the names."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        os.fchmod(file.fileno(), 0o600)
        text = file.read()
        lacking = [name for name in NAMES if not re.search(rf"^{name}=[ \t]*\S", text, re.MULTILINE)]
        start = "" if not text or text.endswith("\n") else "\n"
        file.write(start + "".join(f"{name}={made(name)}\n" for name in lacking))
    return lacking


if __name__ == "__main__":
    main()
