"""all-MiniLM-L6-v2 as an ONNX graph, written from its weights: BERT, mean pooling, unit length.

The graph reads one text at a time. So there is no padding and no attention mask, a text's vector never depends on
the texts beside it, and the activations of one text stay in a core's cache: on two cores, one text to a core was
faster than any batch (docs/decisions/0002-embedder-runtime.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shards.minilm_int8 import Ranges, quantise
from shards.minilm_weights import HEADS, LAYER_NORM_EPSILON, LAYERS, NAME, WIDTH

Weights = Mapping[str, NDArray[np.float32]]

OPSET = 20
IR_VERSION = 10
# Operators of ONNX Runtime itself: attention in one step, and an int8 product that ends in float32.
RUNTIME_DOMAIN = "com.microsoft"


class _Graph:
    """Nodes and weights in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns the output's name."""
        return self.split(op, 1, *inputs, **attributes)[0]

    def split(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node and returns the names of its outputs."""
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def weight(self, array: NDArray[Any]) -> str:
        """Adds a constant and returns its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def build(weights: Weights, ranges: Ranges | None) -> onnx.ModelProto:
    """The model with the input `ids`, int64 (1, t), and the outputs `pooled`, float32 (1, 384), a unit row, and
    `tokens`, float32 (1, t, 384), the last hidden state of each token at unit length.

    `ranges`: those of the activations; with them the linear layers compute in int8, without them all is float32.
    """
    graph = _Graph()
    hidden = _embeddings(graph, weights)
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        attended = _attention(graph, weights, prefix + "attention.", hidden, ranges, layer)
        hidden = _feed_forward(graph, weights, prefix, attended, ranges, layer)
    # Mean pooling divides the sum by the number of tokens; at unit length that division makes no difference.
    summed = graph.add("ReduceSum", hidden, graph.weight(np.array([1], dtype=np.int64)), keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [summed], ["pooled"], axis=-1, p=2))
    graph.nodes.append(helper.make_node("LpNormalization", [hidden], ["tokens"], axis=-1, p=2))
    made = helper.make_graph(
        graph.nodes,
        NAME,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "t"])],
        [
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, WIDTH]),
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [1, "t", WIDTH]),
        ],
        graph.weights,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME_DOMAIN, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)


def _normalise(graph: _Graph, weights: Weights, name: str, value: str) -> str:
    scale, bias = graph.weight(weights[name + ".weight"]), graph.weight(weights[name + ".bias"])
    return graph.add("LayerNormalization", value, scale, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _embeddings(graph: _Graph, weights: Weights) -> str:
    words = graph.add("Gather", graph.weight(weights["embeddings.word_embeddings.weight"]), "ids")
    # There is one segment only, so its embedding is added to every position's once and for all.
    places = weights["embeddings.position_embeddings.weight"].copy()
    places += weights["embeddings.token_type_embeddings.weight"][0]
    zero = graph.weight(np.array([0], dtype=np.int64))
    length = graph.add("Shape", "ids", start=1, end=2)
    summed = graph.add("Add", words, graph.add("Slice", graph.weight(places), zero, length, zero))
    return _normalise(graph, weights, "embeddings.LayerNorm", summed)


def _attention(graph: _Graph, weights: Weights, prefix: str, hidden: str, ranges: Ranges | None, layer: int) -> str:
    parts = [f"{prefix}self.{part}" for part in ("query", "key", "value")]
    limits = ranges.attention_input[layer] if ranges else None
    joined = _linear(graph, weights, parts, hidden, limits)
    query, key, value = graph.split("Split", 3, joined, axis=2, num_outputs=3)
    mixed = graph.add("MultiHeadAttention", query, key, value, domain=RUNTIME_DOMAIN, num_heads=HEADS)
    limits = ranges.attention_output[layer] if ranges else None
    projected = _linear(graph, weights, [prefix + "output.dense"], mixed, limits)
    return _normalise(graph, weights, prefix + "output.LayerNorm", graph.add("Add", projected, hidden))


def _feed_forward(graph: _Graph, weights: Weights, prefix: str, hidden: str, ranges: Ranges | None, layer: int) -> str:
    limits = ranges.feed_forward_input[layer] if ranges else None
    inner = graph.add("Gelu", _linear(graph, weights, [prefix + "intermediate.dense"], hidden, limits))
    limits = ranges.feed_forward_inner[layer] if ranges else None
    projected = _linear(graph, weights, [prefix + "output.dense"], inner, limits)
    return _normalise(graph, weights, prefix + "output.LayerNorm", graph.add("Add", projected, hidden))


def _linear(graph: _Graph, weights: Weights, names: list[str], value: str, limits: NDArray[np.float32] | None) -> str:
    """The layers `names` side by side on one input; `limits` (2, in): the input's least and greatest by channel."""
    matrix = np.concatenate([weights[name + ".weight"] for name in names])
    bias = np.concatenate([weights[name + ".bias"] for name in names])
    if limits is None:
        return graph.add("Add", graph.add("MatMul", value, graph.weight(matrix.T)), graph.weight(bias))
    layer = quantise(matrix, limits)
    shrunk = graph.add("Mul", value, graph.weight(1 / layer.smoothing))
    scale, zero = graph.weight(layer.scale), graph.weight(layer.zero)
    whole = graph.add("QuantizeLinear", shrunk, scale, zero)
    zeros = graph.weight(np.zeros(len(bias), dtype=np.int8))
    product = graph.add(
        "MatMulIntegerToFloat",
        *(whole, graph.weight(layer.weight.T), scale, graph.weight(layer.weight_scale), zero, zeros),
        graph.weight(bias),
        domain=RUNTIME_DOMAIN,
    )
    if not len(layer.outliers):
        return product
    apart = graph.add("Gather", value, graph.weight(layer.outliers), axis=2)
    return graph.add("Add", product, graph.add("MatMul", apart, graph.weight(layer.outlier_weight.T)))
