"""Stands in for the demo."""

import os
import sys
from pathlib import Path


def run_demo(url: str, admin_key: str, data_dir: Path) -> int:
    sys.stdout.write(f"the demo at {url} with a key of {len(admin_key)} characters in {data_dir}\n")
    return int(os.environ.get("STANDIN_DEMO", "0"))
