"""The converted all-MiniLM-L6-v2 on disk, and ONNX Runtime sessions of it."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from shards import minilm_graph, minilm_int8, minilm_weights

Precision = Literal["float32", "int8"]

# Flags of the processors that multiply 8-bit numbers straight into 32-bit sums. Others would go through 16-bit sums
# that saturate (x86) or gain nothing.
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
_CPU_FLAGS = Path("/proc/cpuinfo")
_CONVERTERS = [Path(__file__).with_name(f"minilm_{part}.py") for part in ("graph", "int8", "weights")]


def best_precision() -> Precision:
    """What this machine computes fastest at no loss that retrieval shows."""
    if platform.system() == "Darwin":
        return "int8" if platform.machine() == "arm64" else "float32"
    if not _CPU_FLAGS.is_file():
        return "float32"
    return "int8" if _INT8_FLAGS.intersection(_CPU_FLAGS.read_text().split()) else "float32"


def session(folder: Path, cache: Path, precision: Precision) -> ort.InferenceSession:
    """A session whose `run` computes on the calling thread alone, so that texts run side by side without waiting."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = converted(folder, cache, precision)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def converted(folder: Path, cache: Path, precision: Precision) -> Path:
    """The ONNX file in `cache`, made on first use.

    Its name holds a digest of all that went into it, and it appears by renaming a whole file, so processes that
    convert at the same time each put the same content in place.
    """
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes())
    for part in (*_CONVERTERS, minilm_int8.RANGES_FILE):
        digest.update(part.read_bytes())
    target = cache / f"{minilm_weights.NAME}-{precision}-{digest.hexdigest()[:16]}.onnx"
    if not target.is_file():
        ranges = minilm_int8.read_ranges() if precision == "int8" else None
        _write(target, minilm_graph.build(minilm_weights.read_weights(weights), ranges).SerializeToString())
    return target


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".converting-", delete=False) as file:
        unfinished = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
