"""A generation over clustered rows, without a store."""

from __future__ import annotations

from uuid import uuid4

import numpy as np

from shards.calibration import Calibration
from shards.catalog import Header, MicroRows
from shards.generation import Generation
from shards.names import Space
from tests.shards.clustered import Clustered


def generation_of(made: Clustered, curve: Calibration | None = None) -> Generation:
    """Its header, its micro-cells and its routing."""
    tenant_id, routing = uuid4(), made.routing
    micros = MicroRows(np.arange(len(routing.rows)), made.division.cell_of, routing.rows, routing.sums)
    header = Header(
        number=1,
        state="live",
        space=Space(tenant_id, 1, made.vectors.shape[1]),
        micros=len(routing.rows),
        cells=len(routing.cells),
        stamp=1,
        dimension=routing.dimension,
        calibration=curve,
        trained_rows=len(made.vectors),
    )
    return Generation(tenant_id, header, micros, routing)
