"""Whether a declared embedding model can be used as it is declared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards import torch_models
from shards.embed import Embedder
from shards.model_server import Away, Refusal, by_itself
from shards.remote_model import RemoteModel, WrongDimension
from shards.sentence_model import SETTING
from shards.settings import EmbedModel
from tenants.errors import EmbeddingRefused, Misconfigured, Unavailable

_FIELDS = {401: "key", 403: "key", 404: "model` or its `url"}
"""What is wrong with a declared model whose server answers so."""
_PROBE = "A probe of the embedding model."
_SAME = 0.98
"""Least cosine between the vectors of one model computed in two places, in half precision too."""
_Probed = tuple[str, NDArray[np.float32]]
"""An address, and what it makes of the probe."""


async def check_model(name: str, declared: EmbedModel) -> None:
    """Ask the server of a model, or see that questions can be embedded here.

    Raises:
        Misconfigured: it is refused, or is another model than was declared.
        Unavailable: its server does not answer.
    """
    if declared.addresses:
        await _of_servers(name, declared)
    elif not torch_models.has_torch():
        raise Misconfigured(
            f"{SETTING}: questions to {name!r} are embedded in each API process, and this one has no torch: give its"
            " `url`, a server of /v1/embeddings that has the same model, or `pip install 'tessera[torch]'`."
        )


async def compare_with_server(name: str, declared: EmbedModel, here: Embedder) -> None:
    """Compute a passage here and, where the model has one, on its server: it has to be the same model.

    Raises:
        Misconfigured: it is not, or one of them is set up wrongly.
        Unavailable: one of them cannot do it now.
    """
    local = (await here.embed_passages([_PROBE])).vectors[0]
    if not declared.addresses:
        return
    address, remote = await _of_servers(name, declared)
    if (cosine := _cosine(local, remote)) < _SAME:
        raise Misconfigured(
            f"{SETTING}: what {address} serves as {name!r} is another model than the workers load"
            f" (cosine {cosine:.2f}): give both the same."
        )


async def _of_servers(name: str, declared: EmbedModel) -> _Probed:
    """Return one of the servers that answer, and what it makes of the probe; all have to make the same of it."""

    async def probe(address: str) -> _Probed:
        return address, await _of_server(name, declared.model_copy(update={"url": address}))

    first, *others = await by_itself(declared.addresses, probe)
    for other in others:
        if (cosine := _cosine(first[1], other[1])) < _SAME:
            raise Misconfigured(
                f"{SETTING}: {first[0]} and {other[0]} serve different models as {name!r} (cosine {cosine:.2f}): have"
                " both serve the same, or correct its `url`."
            )
    return first


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


async def _of_server(name: str, declared: EmbedModel) -> NDArray[np.float32]:
    """Return what a server makes of the probe, asked as for a question and as for passages."""
    model = RemoteModel(name, declared)
    try:
        await model.question(_PROBE)
        found: NDArray[np.float32] = (await model.passages([_PROBE]))[0]
        return found
    except EmbeddingRefused as error:
        cause = error.__cause__
        why = cause.why if isinstance(cause, Refusal) else error.detail
        raise Misconfigured(f"{SETTING}: {name!r} refuses a short text: {why}") from error
    except Refusal as error:
        field = "model" if error.of_content else _FIELDS.get(error.answered, "url")
        raise Misconfigured(f"{SETTING}: the `{field}` of {name!r} is wrong: {error.why}") from error
    except Away as error:
        if error.lasts:
            raise Misconfigured(f"{SETTING}: the `url` of {name!r} cannot be asked: {error.why}.") from error
        raise Unavailable(f"{error.detail} {error.why}", code=error.code) from error
    except WrongDimension as error:
        raise Misconfigured(f"{SETTING}: the `dim` of {name!r} is wrong: {error.detail}") from error
    finally:
        await model.aclose()
