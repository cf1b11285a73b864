"""Models of sentence-transformers in this process, on a GPU where there is one. Needs the extra `tessera[torch]`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tenants.errors import Misconfigured, Unavailable

T = TypeVar("T")
Precision = Literal["auto", "float32", "float16", "bfloat16"]
LIBRARY = "sentence_transformers"


def has_torch() -> bool:
    """Whether this process can compute such models; looks without importing them, which takes seconds."""
    return importlib.util.find_spec(LIBRARY) is not None


def load(kind: str, model: str, device: str, precision: Precision, setting: str) -> Any:
    """Load a model of the library (`SentenceTransformer` or `CrossEncoder`) and put it where it is to compute.

    Args:
        device: `auto` is the first GPU, or the processor where there is none.
        precision: `auto` is half precision on a GPU, float32 on a processor.
        setting: what is named when it cannot be loaded.

    Raises:
        Misconfigured: the library, the model or the device is not there.
    """
    try:
        library: Any = importlib.import_module(LIBRARY)
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise Misconfigured(f"{setting} names {model!r}, which needs `pip install 'tessera[torch]'`.") from error
    gpu = bool(torch.cuda.is_available())
    if device.startswith("cuda") and not gpu:
        raise Misconfigured(f"{setting}: {model!r} is to compute on {device!r}, and this process sees no GPU.")
    place = device if device != "auto" else ("cuda" if gpu else "cpu")
    chosen = precision if precision != "auto" else ("float16" if place.startswith("cuda") else "float32")
    try:
        found = getattr(library, kind)(model, device=place)
        return found.to(getattr(torch, chosen))
    except (OSError, ValueError, RuntimeError) as error:
        raise Misconfigured(f"{setting}: {model!r} cannot be loaded: {error}"[:500]) from error


async def in_turn(turn: asyncio.Lock, compute: Callable[[], T]) -> T:
    """Compute in a thread when it is one's turn. A thread cannot be stopped: also when the caller is cancelled the turn
    ends with the thread's work, so that nothing is computed beside it."""
    await turn.acquire()
    computing = asyncio.create_task(asyncio.to_thread(compute))

    def end(done: asyncio.Task[T]) -> None:
        turn.release()
        if not done.cancelled():
            done.exception()  # seen, whether or not the caller is still there

    computing.add_done_callback(end)
    return await asyncio.shield(computing)


def by_halves(
    compute: Callable[[Sequence[Any]], NDArray[np.float32]], given: Sequence[Any], what: str, code: str
) -> NDArray[np.float32]:
    """Compute a batch; one that is too large for the memory of the GPU in halves.

    Raises:
        Unavailable: it cannot be computed even one by one.
    """
    try:
        return compute(given)
    except RuntimeError as error:  # torch has no memory left, or something else that its log says
        if len(given) < 2 or "out of memory" not in str(error):
            raise Unavailable(f"{what} cannot be computed: {error}"[:500], code=code) from error
    half = len(given) // 2
    return np.concatenate([by_halves(compute, part, what, code) for part in (given[:half], given[half:])])
