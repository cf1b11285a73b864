"""The answerer that the settings ask for."""

from __future__ import annotations

from rag.answer.extractive import ExtractiveGenerator
from rag.answer.fallback import FallbackGenerator
from rag.answer.generator import Generator
from rag.answer.openai_chat import OpenAIChatGenerator
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tenants.errors import Misconfigured


def build_generator(settings: GenerationSettings, embedder: Embedder) -> Generator:
    """The built-in answerer, or with `base_url` a model that falls back to it.

    Raises Misconfigured if a server is given without the name of its model.
    """
    builtin = ExtractiveGenerator(embedder)
    if not settings.base_url:
        return builtin
    if not settings.model:
        raise Misconfigured("TESSERA_GENERATION_MODEL is empty: name a model that TESSERA_GENERATION_BASE_URL serves.")
    return FallbackGenerator(OpenAIChatGenerator(settings, embedder), builtin)
