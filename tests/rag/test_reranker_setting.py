from __future__ import annotations

import importlib.util

import pytest

from rag.search.build import build_reranker
from rag.settings import SearchSettings
from tenants.errors import Misconfigured


def test_the_default_is_late_interaction_and_needs_nothing() -> None:
    reranker = build_reranker(SearchSettings())
    assert reranker is not None
    assert reranker.name == "late_interaction"


def test_reranking_can_be_switched_off() -> None:
    assert build_reranker(SearchSettings(reranker="none")) is None


@pytest.mark.parametrize("value", ["crystal_ball", "", "cross_encoder", "cross_encoder:"])
def test_an_unknown_reranker_is_named_with_the_known_ones(value: str) -> None:
    with pytest.raises(Misconfigured, match="late_interaction"):
        build_reranker(SearchSettings(reranker=value))


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="the extra `torch` is installed"
)
def test_a_cross_encoder_without_its_extra_says_what_to_install() -> None:
    with pytest.raises(Misconfigured, match=r"tessera\[torch\]"):
        build_reranker(SearchSettings(reranker="cross_encoder:some/model"))
