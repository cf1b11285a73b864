"""The answerer that the settings ask for."""

from __future__ import annotations

import importlib

from rag.answer.extractive import ExtractiveGenerator
from rag.answer.fallback import FallbackGenerator
from rag.answer.generator import Generator
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
    # Only where a server is given; for its client alone the API would start 0.7 s later.
    chat: Generator = importlib.import_module("rag.answer.openai_chat").OpenAIChatGenerator(settings, embedder)
    return FallbackGenerator(chat, builtin)
