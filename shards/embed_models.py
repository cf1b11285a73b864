"""The embedding models of an installation, by the name that an index records. Each is loaded once a process, when it
is first needed; there are as many as the operator declared."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

from shards.call_seconds import CallSeconds
from shards.catalog import Recipe
from shards.dense import SPECIAL_TOKENS, DenseEmbedder, DenseModel
from shards.embed import NAME, NAME_FLOAT32, Embedder, MiniLmEmbedder, load_embedder
from shards.model_check import check_model, compare_with_server
from shards.remote_model import RemoteModel
from shards.sentence_model import ModelOfWorkers
from shards.settings import EmbedModel, EmbedSettings
from tenants.errors import FieldError, InvalidRequest, Misconfigured, Unavailable


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without loading it."""

    name: str
    dim: int
    max_tokens: int


class EmbedModels:
    """Loads and shares embedders. `bundled` reads every question and every chunk for its words, whichever model finds.

    Raises:
        Misconfigured: the default is not declared, or a declared name is a bundled one.
    """

    def __init__(self, settings: EmbedSettings) -> None:
        self.bundled: MiniLmEmbedder = load_embedder(settings)
        self._declared = settings.models
        self._loaded: dict[str, MiniLmEmbedder | DenseEmbedder] = {NAME: self.bundled}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        taken = {NAME, NAME_FLOAT32} & settings.models.keys()
        if taken:
            raise Misconfigured(f"TESSERA_EMBED_MODELS: {sorted(taken)[0]!r} is the name of a bundled model.")
        if settings.model not in self.names:
            raise Misconfigured(f"TESSERA_EMBED_MODEL is {settings.model!r}, not one of {', '.join(self.names)}.")
        self.default = self.facts(settings.model)

    @property
    def names(self) -> list[str]:
        """Return the names of all models."""
        return [NAME, NAME_FLOAT32, *sorted(self._declared)]

    @property
    def seconds(self) -> dict[str, CallSeconds]:
        """Return how long the calls of each model took that is loaded, by its name."""
        return {name: embedder.seconds for name, embedder in self._loaded.items()}

    def facts(self, name: str) -> ModelFacts:
        """Return what is known of a model.

        Raises:
            Unavailable: it is not declared (any more).
        """
        if name in (NAME, NAME_FLOAT32):
            return ModelFacts(name, self.bundled.dim, self.bundled.max_tokens)
        found = self._declared_as(name)
        return ModelFacts(name, found.dim, found.max_tokens)

    async def get(self, name: str) -> Embedder:
        """Return the embedder of a name.

        Raises:
            Unavailable: it is not declared (any more), or cannot be loaded (`embedder_unavailable`).
        """
        async with self._loading[name]:
            found = self._loaded.get(name)
            if found is None:
                found = self._loaded[name] = await asyncio.to_thread(self._load, name)
        return found

    async def check(self) -> None:
        """Try each declared model as every process uses it: ask its server, or see that there is torch for questions.

        Raises:
            Misconfigured: a server refuses the key or the model, or it has another dimension; names the setting.
            Unavailable: the server of one does not answer; its tenants are found by words until it does.
        """
        await self._each(self._declared, check_model)

    async def load(self, queues: Collection[str]) -> None:
        """Load the models of these queues, which this worker reads, and see that they are those of their servers.

        Raises:
            Misconfigured: one cannot be loaded, or is another than was declared, or than its server's.
            Unavailable: the server of one does not answer.
        """
        mine = [name for name, declared in self._declared.items() if self._queue(declared) in queues]

        one_by_one = asyncio.Lock()  # else two would ask for memory at the same time, and torch for its own import

        async def load(name: str, declared: EmbedModel) -> None:
            async with one_by_one:
                model = await self.get(name)
            await compare_with_server(name, declared, model)

        await self._each(mine, load)

    async def _each(self, names: Iterable[str], work: Callable[[str, EmbedModel], Awaitable[None]]) -> None:
        """Do something for all of these models, at the same time: one that says nothing keeps no other waiting. What is
        wrong with one goes before another that is away."""
        ended = await asyncio.gather(*(work(name, self._declared[name]) for name in names), return_exceptions=True)
        errors = [error for error in ended if error is not None]
        for error in errors:
            if isinstance(error.__cause__, Misconfigured):
                raise error.__cause__ from error
        if errors:
            raise min(errors, key=lambda error: isinstance(error, Unavailable))

    @staticmethod
    def _queue(declared: EmbedModel) -> str | None:
        return declared.queue if declared.kind == "sentence-transformers" else None

    async def aclose(self) -> None:
        """Close every embedder that was loaded."""
        for embedder in self._loaded.values():
            await embedder.aclose()

    def _load(self, name: str) -> MiniLmEmbedder | DenseEmbedder:
        if name == NAME_FLOAT32:
            return self.bundled.in_float32()
        declared = self._declared_as(name)
        model: DenseModel
        model = RemoteModel(name, declared) if declared.kind == "openai" else ModelOfWorkers(name, declared)
        return DenseEmbedder(name, declared.dim, declared.max_tokens, model, self.bundled)

    def _declared_as(self, name: str) -> EmbedModel:
        if name not in self._declared:
            raise Unavailable(
                f"The embedding model {name!r} is not declared (any more): TESSERA_EMBED_MODELS.",
                code="embedder_unavailable",
            )
        return self._declared[name]


def check_recipe(models: EmbedModels, now: Recipe, model: str | None, chunk_tokens: int | None) -> None:
    """Check what is asked to change of a recipe.

    Raises:
        InvalidRequest: the model is not declared, or its chunks would be longer than it reads.
    """
    name = model or now.model
    if model is not None and model not in models.names:
        raise _refused("embedding_model", f"There is no embedding model {model!r}, only {', '.join(models.names)}.")
    most = models.facts(name).max_tokens - SPECIAL_TOKENS
    if chunk_tokens is not None and chunk_tokens > most:
        raise _refused("chunk_tokens", f"A chunk of {name} has at most {most} tokens.")


def _refused(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, fields=(FieldError(f"body.{name}", detail),))
