from __future__ import annotations

from service.local.logs import rotate, tail


def test_a_small_log_stays(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("short")
    rotate(log, max_bytes=10)
    assert log.read_text() == "short"


def test_a_large_log_moves_aside_and_only_so_many_are_kept(tmp_path):
    log = tmp_path / "x.log"
    for number in range(5):
        log.write_text(f"{number}" * 11)
        rotate(log, max_bytes=10, keep=2)
    kept = {path.name: path.read_text()[0] for path in tmp_path.iterdir()}
    assert kept == {"x.log.1": "4", "x.log.2": "3"}


def test_the_tail_is_the_last_lines_whatever_the_bytes(tmp_path):
    log = tmp_path / "x.log"
    assert tail(log) == []
    log.write_bytes(b"\xff\n" * 50_000 + b"one\ntwo\n")
    assert tail(log, 2) == ["one", "two"]
