"""What is fetched is whole or not there, and is fetched once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from service.servers.cache import Cache
from service.servers.commands import FetchFailed


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    said: list[str] = []
    cache = Cache(tmp_path / "cache", said.append)
    for _ in range(2):
        folder = cache.once("thing-1", "a thing", lambda to: (to / "file").write_text("whole") and None)
    assert (folder / "file").read_text() == "whole"
    assert said == ["fetching a thing"]


def test_what_was_interrupted_does_not_count(tmp_path: Path) -> None:
    cache = Cache(tmp_path, lambda sentence: None)

    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("")
        raise FetchFailed("the line broke")

    with pytest.raises(FetchFailed):
        cache.once("thing-1", "a thing", interrupted)
    assert not cache.has("thing-1")
    folder = cache.once("thing-1", "a thing", lambda to: (to / "file").write_text("whole") and None)
    assert not (folder / "half").exists()
    assert cache.has("thing-1")


def test_of_two_at_the_same_time_one_fetches(tmp_path: Path) -> None:
    made = []

    def slowly(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.2)

    both = [
        threading.Thread(target=Cache(tmp_path, lambda sentence: None).once, args=("thing-1", "", slowly))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(made) == 1
