"""Converts the bundled embedding model into a folder, in every form that a processor may take: `convert.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from shards.minilm_model import converted
from shards.minilm_weights import model_folder

if __name__ == "__main__":
    converted(model_folder(), Path(sys.argv[1]), "float32")
    converted(model_folder(), Path(sys.argv[1]), "int8")
