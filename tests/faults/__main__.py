"""`make faults`: rounds of `kill -9` on a stack of its own, then each store held still for half a minute.

The same seed is the same plan of kills and of what the writers do, not the same run: when things happen is up to the
machine. `python -m tests.faults --rounds 200 --seed 7`.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from service.local.stores import STORES
from tests.faults.own_stack import own_stack
from tests.faults.rounds import Trial, schedule, trial


async def _run(data_dir: Path, seed: int, rounds: int, look_every: int, still_s: float) -> Trial:
    with own_stack(data_dir) as stack:
        async with trial(stack, seed) as made:
            await made.run(rounds, look_every=look_every)
            if still_s:
                await made.hold_still(STORES, still_s)
            return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the plan; a new one when it is not given")
    parser.add_argument("--look-every", type=int, default=10, help="rounds between two looks at everything")
    parser.add_argument("--still", type=float, default=30.0, help="seconds that each store is stopped for in the end")
    chosen = parser.parse_args()
    seed = secrets.randbelow(10**6) if chosen.seed is None else chosen.seed
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="tessera-faults-"))
    try:
        made = asyncio.run(_run(folder / "data", seed, chosen.rounds, chosen.look_every, chosen.still))
    except AssertionError:
        print(f"The stores are kept as they were: TESSERA_DATA_DIR={folder / 'data'} .venv/bin/tessera up")
        raise
    shutil.rmtree(folder)
    kills = Counter(name for one in schedule(seed, chosen.rounds) for name in one.victims)
    documents = len(made.history.changes)
    outcomes = Counter(
        f"{change.kind} {change.outcome}" for changes in made.history.changes.values() for change in changes
    )
    print(f"seed {seed}: {chosen.rounds} rounds in {time.monotonic() - began:.0f} s, nothing violated")
    print(f"killed: {dict(kills)}; {documents} documents: {dict(outcomes)}; {len(made.history.sights)} reads")
    print(f"answers: {dict(made.history.answers.most_common())}")


if __name__ == "__main__":
    main()
