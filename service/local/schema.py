"""Run as a program: make the database ready.

A process of its own, so that the supervisor imports no database library. The order comes as one JSON object on
standard input, for arguments can be read by every account:
`{"superuser_url", "owner", "app", "worker"}` for a Postgres of the local stack, `{"owner_url"}` for a given one.
"""

from __future__ import annotations

import json
import sys

from migrations.run import upgrade
from service.database import prepare
from service.startup import refuse
from tenants.errors import TesseraError
from tenants.roles import RolePasswords


def main() -> None:
    """Read the order and carry it out; what is wrong with the database is told in a sentence."""
    order = json.load(sys.stdin)
    try:
        if "owner_url" in order:
            upgrade(order["owner_url"])
            return
        prepare(order["superuser_url"], RolePasswords(order["owner"], order["app"], order["worker"]))
    except TesseraError as error:
        refuse("schema step", error)


if __name__ == "__main__":
    main()
