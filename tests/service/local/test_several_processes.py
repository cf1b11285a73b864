"""A local stack with several API processes and workers: each has a name, a port and a log of its own."""

from __future__ import annotations

from pathlib import Path

from service.local.health import FileProbe
from service.local.plan import plan_stack, wanted_ports
from service.local.spec import ChildSpec
from service.local.state import Installation
from service.settings import ApiSettings, Settings


def programs(data_dir: Path, processes: int, workers: int) -> dict[str, ChildSpec]:
    """Return what a plan starts beside the stores."""
    settings = Settings(api=ApiSettings(processes=processes, drain_delay_s=2))
    settings.ingest.workers = workers
    names = wanted_ports(settings, Installation(), {})
    ports = {name: 20000 + number for number, name in enumerate(names)}
    plan = plan_stack(settings, Installation(ports=ports), data_dir, {}, None)
    return {one.name: one for one in plan.stages[-1] if isinstance(one, ChildSpec)}


def test_each_has_its_own_name_port_and_log(tmp_path: Path) -> None:
    found = programs(tmp_path, 3, 2)
    assert list(found) == ["api", "api-2", "api-3", "worker", "worker-2", "scheduler"]
    for name, child in found.items():
        assert child.env["TESSERA_PROCESS_NAME"] == name
        assert child.log == tmp_path / "logs" / f"{name}.log"
    ports = [found[name].env["TESSERA_API_PORT"] for name in ("api", "api-2", "api-3")]
    assert len(set(ports)) == 3
    assert {found[name].env["TESSERA_API_HOST"] for name in ("api", "api-2")} == {"127.0.0.1"}


def test_only_a_worker_that_is_alone_is_told_so(tmp_path: Path) -> None:
    """Or one that starts would take from the other what it works on."""
    assert programs(tmp_path, 1, 1)["worker"].env["TESSERA_INGEST_SOLE_WORKER"] == "true"
    assert all("TESSERA_INGEST_SOLE_WORKER" not in child.env for child in programs(tmp_path, 1, 2).values())


def test_none_is_killed_before_its_drain_is_over(tmp_path: Path) -> None:
    found, settings = programs(tmp_path, 1, 1), Settings()
    assert found["api"].grace_s > 2 + settings.api.drain_s
    assert found["worker"].grace_s > settings.ingest.drain_s


def test_each_worker_and_the_scheduler_touch_the_file_that_is_looked_at(tmp_path: Path) -> None:
    found = programs(tmp_path, 1, 2)
    files = [found[name].env["TESSERA_PROCESS_ALIVE_FILE"] for name in ("worker", "worker-2", "scheduler")]
    assert len(set(files)) == 3
    assert [found[name].probe for name in ("worker", "worker-2", "scheduler")] == [FileProbe(Path(f)) for f in files]
