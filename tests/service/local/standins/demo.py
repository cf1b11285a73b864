"""Stands in for the demo."""

import sys


def run_demo(*, url: str, admin_key: str) -> None:
    sys.stdout.write(f"the demo at {url} with a key of {len(admin_key)} characters\n")
