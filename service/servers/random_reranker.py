"""Make a small cross-encoder with random weights.

Run as a script in vLLM's environment: `random_reranker.py MINILM FOLDER`. Its scores mean nothing; all else about it is
real. The tokenizer is that of the bundled MiniLM.
"""

import sys

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

SEED = 1


def main(minilm: str, folder: str) -> None:
    """Save model and tokenizer into one folder."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    torch.manual_seed(SEED)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        num_labels=1,
    )
    BertForSequenceClassification(shape).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
