from __future__ import annotations

import numpy as np

from shards.balance import Wish, wishes
from shards.routing import Routing
from shards.settings import ShardSettings

SETTINGS = ShardSettings(rows_per_cell=100, max_cells=64)


def routing(*rows: int, apart: int = 2) -> Routing:
    """Cell `n` numbered 10 n, each pointing a little further round, of `apart` micro-cells."""
    angles = np.repeat(np.linspace(0, 1.5, len(rows)), apart)
    means = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    counts = np.array([count // apart + (count % apart if at == 0 else 0) for count in rows for at in range(apart)])
    sums = means * counts[:, None].astype(np.float32)
    cells = np.arange(len(rows))
    return Routing(sums, counts, np.repeat(cells, apart), 10 * cells, 2.0)


def test_cells_of_the_right_size_stay() -> None:
    assert wishes(routing(100, 120, 80, 190, 40), SETTINGS) == []


def test_a_large_cell_becomes_several() -> None:
    assert wishes(routing(100, 520, 80), SETTINGS) == [Wish("split", (10,), 5)]


def test_rows_that_cannot_be_told_apart_are_not_divided_for_ever() -> None:
    assert wishes(routing(100, 5200, 80, apart=1), SETTINGS) == []


def test_a_small_cell_joins_its_neighbour() -> None:
    assert wishes(routing(100, 90, 10, 100), SETTINGS) == [Wish("merge", (20, 10), 1)]
    assert wishes(routing(100, 124, 10, 124), SETTINGS) == [Wish("merge", (20, 0), 1)], "where there is room"
    assert wishes(routing(0, 100, 0), SETTINGS)[0].kind == "merge"
    assert wishes(routing(0, 0, 0), SETTINGS) == [], "nothing is gained"


def test_no_cell_is_changed_twice_at_once() -> None:
    found = wishes(routing(*[10] * 6, 500, 500), SETTINGS)
    parents = [cell for wish in found for cell in wish.parents]
    assert len(parents) == len(set(parents))
    assert len(wishes(routing(*[500] * 10), SETTINGS, most=3)) == 3


def test_a_hot_cell_is_divided_sooner() -> None:
    rows = routing(*[150] * 20)
    even = {10 * cell: 100.0 for cell in range(20)}
    assert wishes(rows, SETTINGS, heat=even) == []
    assert wishes(rows, SETTINGS, heat=even | {30: 9000.0}) == [Wish("split", (30,), 2)]
    assert wishes(rows, SETTINGS, heat={30: 90.0}) == [], "a few visits say nothing"


def test_cells_grow_when_there_may_be_no_more() -> None:
    assert wishes(routing(300, 320, 310), ShardSettings(rows_per_cell=100, max_cells=3)) == []


def test_nothing_is_divided_without_room_for_the_copies() -> None:
    many = ShardSettings(rows_per_cell=100, max_cells=980)
    assert wishes(routing(*[100] * 980, 900), many) == [Wish("split", (9800,), 9)]
    assert wishes(routing(*[100] * 994, 900), many) == []
