"""When a source is read again: five fields of cron in a time zone, as Debian's cron understands them.

At a change of the clocks (cronsim follows Debian's cron): a job at a fixed time that the change skips runs right after
it, one whose time comes twice runs once, and one with `*` in minute or hour keeps its pace in real time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

FIELDS = 5


def check_cron(cron: str) -> str:
    """Return the expression with single spaces.

    Raises:
        ValueError: it is not one, has a field for seconds, or never comes due.
    """
    fields = cron.split()
    if len(fields) != FIELDS:
        raise ValueError(f"must have five fields (minute, hour, day, month, day of week), not {len(fields)}")
    clean = " ".join(fields).upper()
    try:
        next(CronSim(clean, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"is not a cron expression: {error}") from error
    except StopIteration as error:
        raise ValueError("never comes due") from error
    return clean


def check_timezone(name: str) -> str:
    """Return the name of a time zone; raise `ValueError` unless it is one of the IANA database."""
    if name not in _zones():
        raise ValueError("is not a time zone of the IANA database, such as Europe/Berlin")
    return name


@cache
def _zones() -> frozenset[str]:
    """Return the zones of the database, read once: it is a folder of some hundred files. `localtime` is whatever this
    machine has, `Factory` a machine that was not set up."""
    return frozenset(available_timezones() - {"localtime", "Factory"})


def next_time(cron: str, timezone: str, after: datetime) -> datetime | None:
    """Return when a checked schedule comes due next, later than a moment, in UTC.

    None when it does not: the zone database may have changed since it was checked.
    """
    try:
        # CronSim counts on from the time of the wall, which may be past already where the clocks repeat an hour.
        found = (one.astimezone(UTC) for one in CronSim(cron, after.astimezone(ZoneInfo(timezone))))
        return next(moment for moment in found if moment > after)
    except (CronSimError, StopIteration, ZoneInfoNotFoundError):
        return None
