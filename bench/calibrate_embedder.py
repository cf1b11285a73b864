"""Measures what the int8 embedder needs to know beforehand, and writes it beside the code.

    python bench/calibrate_embedder.py TEXTS.jsonl

Each line of TEXTS.jsonl is an object with a `text` of at most 256 tokens. The texts should be as mixed as the
documents to come (prose, mail, tables, code, other scripts, single words), since a value outside the ranges seen
here is cut off. Writes shards/minilm_activation_ranges.npz, and shards/minilm_token_mean.npy, the mean of each
dimension over the token vectors, which is the threshold of the token bits: stored bits are only comparable with a
question's bits of the same mean, so a new one needs a new index.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from shards import minilm_graph, minilm_tokens, minilm_weights
from shards.late_interaction import MEAN_FILE
from shards.minilm_int8 import RANGES_FILE


def main() -> None:
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text().splitlines()]
    folder = minilm_weights.model_folder()
    tokenizer = minilm_tokens.load(folder)
    model = minilm_graph.build(minilm_weights.read_weights(folder / "model.safetensors"), None)
    names = linear_inputs(model)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    token_sum, token_count = np.zeros(minilm_weights.WIDTH), 0
    for text in texts:
        pieces = minilm_tokens.pieces(tokenizer.encode(text), text)
        if len(pieces.ids) > minilm_tokens.MAX_TOKENS:
            continue
        tokens, *seen = session.run(["tokens", *names], {"ids": pieces.ids[None]})
        token_sum += tokens[0, pieces.kept].sum(axis=0)
        token_count += len(pieces.kept)
        least, most = [one[0].min(axis=0) for one in seen], [one[0].max(axis=0) for one in seen]
        low = [np.minimum(*pair) for pair in zip(low, least, strict=True)] if low else least
        high = [np.maximum(*pair) for pair in zip(high, most, strict=True)] if high else most
    limits = [np.stack(pair) for pair in zip(low, high, strict=True)]
    kinds = ("attention_input", "attention_output", "feed_forward_input", "feed_forward_inner")
    # Half precision rounds by less than one part in a thousand, far below one of 255 steps.
    arrays = {kind: np.stack(limits[at :: len(kinds)]).astype(np.float16) for at, kind in enumerate(kinds)}
    np.savez_compressed(RANGES_FILE, **arrays)
    np.save(MEAN_FILE, (token_sum / token_count).astype(np.float32))
    print(
        json.dumps({"texts": len(texts), "tokens": token_count, "shapes": {kind: arrays[kind].shape for kind in kinds}})
    )


def linear_inputs(model: onnx.ModelProto) -> list[str]:
    """What enters each linear layer, in the order of the graph."""
    constants = {one.name for one in model.graph.initializer}
    return [node.input[0] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]


if __name__ == "__main__":
    main()
