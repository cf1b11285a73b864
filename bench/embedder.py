"""How fast the bundled embedder is, against sentence-transformers in float32 on the same texts. One JSON line.

    python bench/embedder.py --data DATASETS [--reference-python PYTHON] [--chunks 384] [--rounds 5] [--threads 2]

DATASETS holds `squad_dev` and `mtrag/cloud`, `mtrag/clapnq`, each with a corpus.jsonl. PYTHON is an interpreter that
can import sentence_transformers; it runs as a subprocess on the same texts, and the two take turns, so that `ratio`
(the median over rounds) holds on a busy machine too. Without it only this side is measured. Tokenising is included on
both sides; the cosines compare the fast vectors with our own float32 ones, and those with the reference's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards import minilm_model, minilm_weights
from shards.embed import Embedder, load_embedder
from shards.settings import EmbedSettings

SETS = {"squad_dev": ("squad_dev",), "mtrag": ("mtrag/cloud", "mtrag/clapnq")}
CHUNK_TOKENS = 200

REFERENCE = """
import json, sys, time
import numpy, torch
from sentence_transformers import SentenceTransformer
folder, texts, out, threads = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(threads)
model = SentenceTransformer(folder, device="cpu")
model.max_seq_length = 256
numpy.save(out, model.encode(texts, normalize_embeddings=True))
print("ready", flush=True)
for _ in sys.stdin:
    begun = time.perf_counter()
    model.encode(texts, normalize_embeddings=True)
    print(time.perf_counter() - begun, flush=True)
"""


class Reference:
    """sentence-transformers in another interpreter, one timed pass over the texts for each line it is sent."""

    def __init__(self, python: str, texts: list[str], threads: int, folder: Path) -> None:
        given, self._vectors = folder / "texts.json", folder / "vectors.npy"
        given.write_text(json.dumps(texts))
        command = [python, "-c", REFERENCE, str(minilm_weights.model_folder()), str(given), str(self._vectors)]
        self._process = subprocess.Popen(
            [*command, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while (line := self._read()) != "ready":
            if not line:
                raise SystemExit(f"{python} cannot run sentence-transformers")

    def seconds(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        return float(self._read())

    def vectors(self) -> NDArray[np.float32]:
        return np.load(self._vectors)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def chunks(data: Path, corpora: tuple[str, ...], count: int, embedder: Embedder) -> list[str]:
    """`count` passages taken evenly from the corpora, cut after CHUNK_TOKENS tokens."""
    found: list[str] = []
    for corpus in corpora:
        lines = (data / corpus / "corpus.jsonl").read_text().splitlines()
        wanted = count // len(corpora)
        for line in lines[:: max(1, len(lines) // wanted)][:wanted]:
            text = json.loads(line)["text"]
            spans = embedder.token_spans(text)[:CHUNK_TOKENS]
            if spans:
                found.append(text[: spans[-1][1]])
    return found


async def seconds(embedder: Embedder, texts: list[str]) -> float:
    begun = time.perf_counter()
    await embedder.embed_passages(texts)
    return time.perf_counter() - begun


async def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, object]:
    shared = {"cache_dir": folder / "models", "threads": options.threads}
    fast = load_embedder(EmbedSettings(precision="auto", **shared))
    exact = load_embedder(EmbedSettings(precision="float32", **shared))
    texts = chunks(options.data, SETS[name], options.chunks, fast)
    vectors = (await fast.embed_passages(texts)).vectors
    true = (await exact.embed_passages(texts)).vectors
    cosines = (vectors * true).sum(axis=1)
    result: dict[str, object] = {
        "chunks": len(texts),
        "tokens_mean": round(statistics.mean(len(fast.token_spans(text)) for text in texts), 1),
        "cosine_mean": round(float(cosines.mean()), 5),
        "cosine_min": round(float(cosines.min()), 5),
    }
    reference = None
    if options.reference_python:
        reference = Reference(options.reference_python, texts, options.threads, folder)
    rounds: list[tuple[float, float, float]] = []
    for _ in range(options.rounds):
        other = reference.seconds() if reference else float("nan")
        rounds.append((other, await seconds(fast, texts), await seconds(exact, texts)))
    for at, side in ((1, "embedder"), (2, "float32")):
        result[f"{side}_chunks_per_s"] = round(len(texts) / statistics.median(one[at] for one in rounds), 1)
    if reference:
        agreed = (true * reference.vectors()).sum(axis=1)
        result["sentence_transformers_chunks_per_s"] = round(
            len(texts) / statistics.median(one[0] for one in rounds), 1
        )
        result["ratio"] = round(statistics.median(one[0] / one[1] for one in rounds), 2)
        result["float32_ratio"] = round(statistics.median(one[0] / one[2] for one in rounds), 2)
        result["float32_cosine_min_to_sentence_transformers"] = round(float(agreed.min()), 6)
        reference.close()
    await fast.aclose()
    await exact.aclose()
    return result


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference-python")
    parser.add_argument("--chunks", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    line: dict[str, object] = {"bench": "embedder", "precision": minilm_model.best_precision()}
    line["threads"] = options.threads
    for name in SETS:
        with tempfile.TemporaryDirectory() as folder:
            line[name] = await measure(name, options, Path(folder))
    print(json.dumps(line))


if __name__ == "__main__":
    asyncio.run(main())
