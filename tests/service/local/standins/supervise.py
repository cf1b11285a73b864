"""A supervisor of two stand-ins, each with offspring, to be killed: `supervise.py DATA_DIR`."""

import asyncio
import os
import sys
import time
from pathlib import Path
from signal import Signals

from service.local import processes
from service.local.health import HttpProbe
from service.local.owner import owned
from service.local.ports import free_port
from service.local.spec import ChildSpec
from service.local.state import StackState
from service.local.supervisor import Supervisor


def child(data_dir: Path, name: str, death: Signals) -> ChildSpec:
    port = free_port()
    return ChildSpec(
        name=name,
        argv=(sys.executable, str(Path(__file__).with_name("server.py")), str(port), "--name", name, "--offspring"),
        log=data_dir / "logs" / f"{name}.log",
        probe=HttpProbe("127.0.0.1", port),
        death_signal=death,
    )


async def supervise(data_dir: Path) -> None:
    me = os.getpid()
    blank = StackState(supervisor_pid=me, supervisor_identity=processes.identity(me), since=time.time(), url="http://x")

    def record(children: tuple) -> None:
        blank.model_copy(update={"children": children}).save(data_dir)

    # The second one lives on when the supervisor dies (SIGURG is ignored by default), as a grandchild would.
    stage = (child(data_dir, "mortal", Signals.SIGKILL), child(data_dir, "survivor", Signals.SIGURG))
    await Supervisor([stage], record=record).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


with owned(Path(sys.argv[1])) as folder:
    asyncio.run(supervise(folder))
