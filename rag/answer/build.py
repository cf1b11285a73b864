"""The answerer that the settings name."""

from __future__ import annotations

from rag.answer.extractive import ExtractiveGenerator
from rag.answer.generator import Generator
from rag.settings import GenerationSettings
from shards.embed import Embedder


def build_generator(settings: GenerationSettings, embedder: Embedder) -> Generator:
    """Return the generator."""
    return ExtractiveGenerator(embedder)
