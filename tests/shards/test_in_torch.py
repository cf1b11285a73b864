"""The suites of embedders and rerankers once more, in an environment that has torch and sentence-transformers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers import server

ROOT = Path(__file__).parents[2]


def test_models_of_sentence_transformers_keep_what_all_keep() -> None:
    python = server("torch")["python"]
    command = [python, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-k", "torch and not lacks"]
    done = subprocess.run(
        [
            *command,
            "tests/shards/test_embedders.py",
            "tests/shards/test_torch_models.py",
            "tests/rag/test_rerankers.py",
        ],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout
