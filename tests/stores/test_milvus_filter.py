from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.milvus_filter import LITE, ScopeFilter, versions_in
from shards.vectors import MAX_K, VersionScope

version_sets = st.one_of(
    st.sets(st.integers(1, 120), min_size=1),
    st.sets(st.integers(1, 2**62), min_size=1, max_size=20),
    st.builds(
        lambda runs: {version for first, length in runs for version in range(first, first + length)},
        st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 40)), min_size=1, max_size=60),
    ),
)


def scope(versions: set[int]) -> VersionScope:
    return VersionScope(np.array(sorted(versions), dtype=np.int64))


@given(version_sets)
def test_the_expression_means_the_scope(versions: set[int]) -> None:
    expression = ScopeFilter(scope(versions), LITE).expression()
    code = compile(expression, "filter", "eval")  # Milvus's grammar for this is also Python's
    probes = {near for version in versions for near in (version - 1, version, version + 1)}
    assert {version for version in probes if eval(code, {"version_no": version})} == versions


@given(version_sets, st.lists(st.integers(0, 2**62), max_size=20))
def test_allows_exactly_the_scope(versions: set[int], others: list[int]) -> None:
    probes = np.array([*versions, *others], dtype=np.int64)
    assert scope(versions).allows(probes).tolist() == [int(version) in versions for version in probes]


@given(version_sets)
def test_runs_cover_the_scope_once(versions: set[int]) -> None:
    runs = scope(versions).runs().tolist()
    assert [version for first, last in runs for version in range(first, last + 1)] == sorted(versions)


def test_an_empty_scope_allows_nothing() -> None:
    assert not scope(set()).allows(np.array([1, 2], dtype=np.int64)).any()
    assert scope(set()).runs().shape == (0, 2)


def test_documents_uploaded_together_make_a_short_filter() -> None:
    filtered = ScopeFilter(scope(set(range(100, 10_100))), LITE)
    assert filtered.expression() == "(version_no >= 100 and version_no <= 10099)"
    assert filtered.literals == 2
    assert filtered.first_fetch(50) is None


def test_only_integers_reach_the_filter() -> None:
    assert versions_in([np.int64(3), 4]) == "version_no in [3,4]"  # type: ignore[list-item]


def test_few_versions_are_pushed_down_at_once() -> None:
    assert ScopeFilter(scope({3 * n for n in range(1, 30)}), LITE).first_fetch(50) is None


def test_many_versions_are_first_tried_with_more_hits() -> None:
    filtered = ScopeFilter(scope({3 * n for n in range(1, 5000)}), LITE)
    assert filtered.first_fetch(50) == 200
    assert filtered.next_fetch(50, 200, 20) == 750
    assert filtered.next_fetch(50, 200, 0) == 800


def test_the_filter_is_pushed_down_once_more_hits_would_cost_more() -> None:
    filtered = ScopeFilter(scope({3 * n for n in range(1, 2000)}), LITE)
    assert filtered.next_fetch(50, 200, 1) is None
    assert filtered.next_fetch(50, 3200, 0) is None


def test_never_asks_for_more_hits_than_a_search_returns() -> None:
    filtered = ScopeFilter(scope({3 * n for n in range(1, 400_000)}), LITE)
    assert filtered.next_fetch(50, 4096, 0) == MAX_K
    assert filtered.next_fetch(50, MAX_K, 3) is None
    assert filtered.first_fetch(5000) is None
