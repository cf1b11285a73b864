"""Linear layers in int8 with a fixed scale for the activations, so that a text's vector depends on nothing else.

- What a channel's range costs is shared between the activations and the weights: SmoothQuant (Xiao et al., 2022,
  https://arxiv.org/abs/2211.10438), `s = max|x|^a / max|w|^(1 - a)`, x / s against w * s.
- The few channels of the feed-forward layer that are far larger than the rest stay in float32: LLM.int8()
  (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339).
- Activations are unsigned 8 bit with one scale a layer, weights signed 8 bit with a scale an output channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# By measurement: .7 to .8 lose least on passages, questions, code, tables and Chinese alike.
SMOOTHING_SHARE = 0.75
# Wide inputs (the feed-forward layer's inner values) keep this many channels in float32.
OUTLIERS = 16
OUTLIERS_FROM_WIDTH = 1024
RANGES_FILE = Path(__file__).with_name("minilm_activation_ranges.npz")


@dataclass(frozen=True)
class Ranges:
    """Least and greatest value of each channel entering the linear layers, float32 (layer, 2, channel)."""

    attention_input: NDArray[np.float32]
    attention_output: NDArray[np.float32]
    feed_forward_input: NDArray[np.float32]
    feed_forward_inner: NDArray[np.float32]


@dataclass(frozen=True)
class QuantisedLayer:
    """`y = (round(x / smoothing / scale) - zero) * scale @ (weight * weight_scale).T + x[outliers] @ outlier_weight.T`;
    `weight` int8 (out, in)."""

    smoothing: NDArray[np.float32]
    scale: NDArray[np.float32]
    zero: NDArray[np.uint8]
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    outliers: NDArray[np.int64]
    outlier_weight: NDArray[np.float32]


def read_ranges() -> Ranges:
    """Those measured by bench/calibrate_embedder.py over mixed text: encyclopedia, mail, tables, code, Chinese."""
    with np.load(RANGES_FILE) as stored:
        arrays: dict[str, Any] = {name: stored[name].astype(np.float32) for name in stored.files}
    return Ranges(**arrays)


def quantise(weight: NDArray[np.float32], limits: NDArray[np.float32]) -> QuantisedLayer:
    """`weight` (out, in) for inputs within `limits` (2, in)."""
    peak = np.maximum(np.abs(limits).max(axis=0), 1e-3)
    reach = np.maximum(np.abs(weight).max(axis=0), 1e-5)
    count = OUTLIERS if weight.shape[1] >= OUTLIERS_FROM_WIDTH else 0
    outliers = np.sort(np.argsort(-peak * reach)[:count])
    peak[outliers] = np.median(peak)
    smoothing = peak**SMOOTHING_SHARE / reach ** (1 - SMOOTHING_SHARE)
    smoothing /= np.exp(np.log(smoothing).mean())

    inside = np.delete(limits / smoothing, outliers, axis=1)
    low, high = min(float(inside.min()), 0.0), max(float(inside.max()), 0.0)
    scale = (high - low) / 255

    widened = weight * smoothing
    widened[:, outliers] = 0
    weight_scale = np.abs(widened).max(axis=1) / 127
    whole = np.clip(np.round(widened / weight_scale[:, None]), -127, 127)
    return QuantisedLayer(
        smoothing=smoothing.astype(np.float32),
        scale=np.array(scale, dtype=np.float32),
        zero=np.array(round(-low / scale), dtype=np.uint8),
        weight=whole.astype(np.int8),
        weight_scale=weight_scale.astype(np.float32),
        outliers=outliers.astype(np.int64),
        outlier_weight=weight[:, outliers],
    )
