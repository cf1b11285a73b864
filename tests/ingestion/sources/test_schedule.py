"""Schedules: five fields, a real time zone, and the two nights on which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ingestion.sources.schedule import check_cron, check_timezone, next_time


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    found, moment = [], at(after)
    for _ in range(count):
        following = next_time(cron, zone, moment)
        assert following is not None
        moment = following
        found.append(f"{moment:%m-%d %H:%M}")
    return found


@pytest.mark.parametrize("cron", ["* * * * *", "0 6 * * 1-5", "*/15 8-18 * * mon-fri", " 5  4 1 */3 * ", "0 0 29 2 *"])
def test_five_fields_are_a_schedule(cron: str) -> None:
    assert check_cron(cron)


WRONG = """
* * * *|0 * * * * *|60 * * * *|* 24 * * *|* * 0 * *|* * * 13 *|* * * * 8|a * * * *|@daily|0 0 30 2 *|*/0 * * * *
5-1 * * * *|* * * * * ; rm|0 6 * * MONDAY
"""


@pytest.mark.parametrize("cron", ["", *WRONG.strip().replace("\n", "|").split("|")])
def test_anything_else_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|cron|comes due"):
        check_cron(cron)


@pytest.mark.parametrize(
    "zone",
    ["", "Mars/Olympus", "../etc/passwd", "europe/berlin ", "UTC+2", "/usr/share/zoneinfo/UTC", "localtime", "Factory"],
)
def test_a_zone_that_nobody_knows_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        check_timezone(zone)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_zones_of_the_database_are_known(zone: str) -> None:
    assert check_timezone(zone) == zone


def test_a_time_is_the_zones_own_winter_and_summer() -> None:
    assert times("0 6 * * *", "Europe/Berlin", "2026-03-27T12:00", 3) == ["03-28 05:00", "03-29 04:00", "03-30 04:00"]
    assert times("0 6 * * *", "Asia/Kathmandu", "2026-01-01T12:00", 1) == ["01-02 00:15"]


def test_an_hour_that_is_skipped_runs_right_after() -> None:
    """In Berlin there is no 02:30 on 29 March 2026: what was due then runs at 03:00, which is 01:00 UTC."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]


def test_an_hour_that_comes_twice_runs_once() -> None:
    """02:30 comes twice in Berlin on 25 October 2026, at 00:30 and 01:30 UTC."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]


def test_every_hour_goes_on_through_both_nights() -> None:
    assert times("0 * * * *", "Europe/Berlin", "2026-03-28T23:30", 3) == ["03-29 00:00", "03-29 01:00", "03-29 02:00"]
    assert times("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", 3) == ["10-25 00:00", "10-25 01:00", "10-25 02:00"]


def test_within_the_hour_that_comes_twice_the_next_time_is_the_next_day() -> None:
    """At 01:10 UTC it is 02:10 in Berlin for the second time."""
    assert times("30 2 * * *", "Europe/Berlin", "2025-10-26T01:10", 1) == ["10-27 01:30"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0,30 2-3 * * *", "*/15 2 * * *", "0 * * * *", "45 1 * * *"])
@pytest.mark.parametrize(
    ("zone", "night"),
    [
        ("Europe/Berlin", "2025-10-25T22:00"),
        ("Europe/Berlin", "2026-03-28T23:00"),
        ("Australia/Lord_Howe", "2026-04-04T13:00"),
    ],
)
def test_the_next_time_is_never_past(cron: str, zone: str, night: str) -> None:
    for minute in range(5 * 60):
        after = at(night) + timedelta(minutes=minute)
        following = next_time(cron, zone, after)
        assert following is not None
        assert following > after


def test_a_change_of_half_an_hour() -> None:
    """Lord Howe goes back by half an hour on 5 April 2026 at 02:00: 01:45 comes twice, at 14:45 and 15:15 UTC."""
    assert times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00", 2) == ["04-04 14:45", "04-05 15:15"]


def test_a_zone_that_is_no_more_comes_due_no_more() -> None:
    assert next_time("0 6 * * *", "Mars/Olympus", at("2026-01-01T00:00")) is None
