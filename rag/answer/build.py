"""The answerer that the settings ask for."""

from __future__ import annotations

import importlib

from rag.answer.extractive import ExtractiveGenerator
from rag.answer.figures import GenerationFigures
from rag.answer.routed import RoutedGenerator
from rag.answer.routes import choice_of, routes_of
from rag.answer.serving import Servers, Slots
from rag.settings import GenerationSettings
from shards.embed import Embedder


def build_generator(
    settings: GenerationSettings,
    embedder: Embedder,
    *,
    secret: str,
    slots: Slots,
    figures: GenerationFigures | None = None,
) -> RoutedGenerator:
    """The built-in answerer, with the declared models before it.

    Args:
        secret: of the installation; the tenants' salts follow from it.
        slots: bound the answers that models write for a tenant at once.
        figures: count what happens; without them, new ones do.

    Raises:
        Misconfigured: a setting contradicts another one.
    """
    routes = routes_of(settings)
    choice, figures = choice_of(settings, routes), figures or GenerationFigures()
    builtin = ExtractiveGenerator(embedder)
    servers: Servers | None = None
    if routes:
        # Only where a server is given; for its client alone the API would start 0.7 s later.
        opened = importlib.import_module("rag.answer.servers").ModelServers(settings, embedder, figures, secret=secret)
        for route in routes.values():
            opened.add(route)
        servers = opened
    return RoutedGenerator(choice, servers, builtin, slots, settings, figures)
