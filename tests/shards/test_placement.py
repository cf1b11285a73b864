from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest
from pydantic import ValidationError

from shards.generation import NO_CELL, Generation
from shards.names import BUCKETS_A_COLLECTION, TIERS, Space, Tier, bucket_of
from shards.placement import Target, first_space, target, tier_for
from shards.routing import means_of
from shards.settings import ShardSettings
from tenants.context import Placement
from tests.shards.clustered import clustered
from tests.shards.generations import generation_of

SETTINGS = ShardSettings(threshold=4000, pooled_rows=4000, demote_at=0.25, pool_buckets=256)
AUTO = Placement()
MADE = clustered(6000, 20, topics=40)


def generation(tier: Tier, *, divided: bool = True, endpoint: str = "") -> Generation:
    made = generation_of(MADE)
    space = Space(made.tenant_id, 1, made.space.dim, tier, endpoint=endpoint)
    header = replace(made.header, space=space, trained_residual=MADE.routing.residual)
    return replace(made, header=header, routing=made.routing if divided else None)


@pytest.mark.parametrize("tier", ["dedicated", "isolated"])
@pytest.mark.parametrize("now", [None, *TIERS])
@pytest.mark.parametrize("rows", [0, 10**6])
def test_what_the_operator_chose_holds_whatever_the_size(tier: Tier, now: Tier | None, rows: int) -> None:
    assert tier_for(Placement(tier=tier), rows, SETTINGS, now) == tier


def test_a_tenant_at_the_border_does_not_move_to_and_fro() -> None:
    now: Tier = "pooled"
    moves = []
    for rows in [0, 3999, 4000, 3900, 4100, 3000, 1000, 999, 1001, 3999, 4001]:
        after = tier_for(AUTO, rows, SETTINGS, now)
        moves += [(rows, after)] if after != now else []
        now = after
    assert moves == [(4000, "dedicated"), (999, "pooled"), (4001, "dedicated")]


def test_a_pool_takes_nobody_large() -> None:
    pooled = Placement(tier="pooled")
    assert tier_for(pooled, 3999, SETTINGS, "dedicated") == "pooled"
    assert tier_for(pooled, 4000, SETTINGS, "pooled") == "dedicated"


def test_a_promoted_tenant_gets_its_cells_in_the_same_move() -> None:
    live = generation("pooled", divided=False)
    assert target(live, 3999, AUTO, SETTINGS, room=1000) is None
    assert target(live, 6000, AUTO, SETTINGS, room=1000) == Target("dedicated", "", 24, "placement")
    assert target(live, 6000, AUTO, SETTINGS, room=11) == Target("dedicated", "", 10, "placement"), "as room allows"
    assert target(live, 6000, AUTO, SETTINGS, room=1) is None, "there is no room: it stays in the pool"


def test_an_isolated_tenant_moves_to_the_server_that_was_chosen() -> None:
    there = Placement(tier="isolated", endpoint="eu")
    found = target(generation("isolated"), 6000, there, SETTINGS, room=1000)
    assert found == Target("isolated", "eu", 24, "placement")
    assert target(generation("isolated", endpoint="eu"), 6000, there, SETTINGS, room=1000) is None


def test_a_demoted_tenant_has_one_cell() -> None:
    assert target(generation("dedicated"), 900, AUTO, SETTINGS, room=0) == Target("pooled", "", 1, "placement")


def test_growth_and_a_wish_train_anew() -> None:
    live = generation("dedicated")
    assert target(live, 11_999, AUTO, SETTINGS, room=1000) is None
    assert target(live, 12_000, AUTO, SETTINGS, room=1000) == Target("dedicated", "", 48, "growth")
    assert target(live, 6000, AUTO, SETTINGS, room=1000, asked=0) == Target("dedicated", "", 24, "asked")
    assert target(live, 6000, AUTO, SETTINGS, room=1000, asked=7) == Target("dedicated", "", 7, "asked")
    assert target(generation("pooled", divided=False), 10, AUTO, SETTINGS, room=1000, asked=7) is None


def test_drift_trains_anew() -> None:
    live = generation("dedicated")
    cell = live.micros.cell.copy()
    cell[: len(cell) // 3] = NO_CELL
    changed = replace(live, micros=replace(live.micros, cell=cell))
    assert target(changed, 6000, AUTO, SETTINGS, room=1000) == Target("dedicated", "", 24, "drift")
    residual = MADE.routing.residual
    for before, why in ((residual / 1.05, None), (residual / 1.2, "drift"), (None, None)):
        found = target(
            replace(live, header=replace(live.header, trained_residual=before)), 6000, AUTO, SETTINGS, room=1000
        )
        assert (found and found.why) == why


def test_residual_is_the_mean_squared_distance_to_the_means() -> None:
    means = means_of(MADE.routing.sums, MADE.routing.rows)[MADE.division.micro_of]
    expected = float(((MADE.vectors - means) ** 2).sum(axis=1).mean())
    assert MADE.routing.residual == pytest.approx(expected, rel=1e-3)


def test_buckets_are_even_and_names_tell_spaces_apart() -> None:
    tenants = [uuid4() for _ in range(4000)]
    counts = np.bincount([bucket_of(tenant, 16) for tenant in tenants], minlength=16)
    assert counts.min() > 170
    assert counts.max() < 340
    space = first_space(tenants[0], 1, 384, AUTO, SETTINGS)
    assert space.pooled
    assert 0 <= space.bucket < 256
    places = {(s.collection, s.partition(0)) for s in (replace(space, bucket=bucket) for bucket in range(256))}
    assert len(places) == 256
    assert len({collection for collection, _ in places}) == 256 // BUCKETS_A_COLLECTION


@pytest.mark.parametrize(
    "wrong",
    [{"tier": "shared"}, {"endpoint": "eu"}, {"tier": "isolated", "endpoint": "a b"}, {"tier": "pooled", "x": 1}],
)
def test_a_placement_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Placement.model_validate(wrong)
