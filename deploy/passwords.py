"""Every password of docker-compose.yml, at random: `python3 deploy/passwords.py > .env`. Needs nothing but Python."""

import os
import secrets
import sys

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
)


def made(name: str) -> str:
    """Return 192 random bits, of characters that need no quoting anywhere. OpenSearch asks for one of each kind."""
    return secrets.token_hex(24) + ("-Os1" if name == "OPENSEARCH_PASSWORD" else "")


def main() -> None:
    """Write the file to standard output; refuse a file that has something in it."""
    if sys.stdout.isatty():
        sys.exit("Send it to a file: python3 deploy/passwords.py > .env")
    os.fchmod(sys.stdout.fileno(), 0o600)
    for name in NAMES:
        sys.stdout.write(f"{name}={made(name)}\n")
    sys.stdout.write(f"TESSERA_ADMIN_KEY=tsr_admin_{secrets.token_hex(24)}\n")


if __name__ == "__main__":
    main()
