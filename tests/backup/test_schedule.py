"""Schedules: what can be written, and when it is due."""

from datetime import datetime

import pytest

from mailkeep.backup.schedule import DAY_S, Schedule, due_at, next_run, parse
from mailkeep.errors import UsageError

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("every 15 min", "every 15 min"),
        ("Every  15 Minutes", "every 15 min"),
        ("every 15m", "every 15 min"),
        ("every 60 min", "every 1 hour"),
        ("every hour", "every 1 hour"),
        ("every 2h", "every 2 hours"),
        ("every day", "every 1 day"),
        ("every 14 days", "every 2 weeks"),
        ("daily at 03:30", "daily at 03:30"),
        ("daily 3:30", "daily at 03:30"),
        ("every day at 23:59", "daily at 23:59"),
        ("sync every 15 minutes", "sync every 15 min"),
        ("Sync daily at 3:30", "sync daily at 03:30"),
        ("sync never", None),
        ("never", None),
        ("off", None),
    ],
)
def test_what_can_be_written(text: str, canonical: str | None) -> None:
    schedule = parse(text)
    assert (None if schedule is None else str(schedule)) == canonical
    if schedule is not None:
        assert parse(str(schedule)) == schedule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sometimes",
        "every",
        "every 0 min",
        "every 99999 days",
        "every 5 moons",
        "daily at 24:00",
        "daily at 3",
        "sync",
        "synchronise every 1 hour",
    ],
)
def test_what_cannot(text: str) -> None:
    with pytest.raises(UsageError, match="every 15 min"):
        parse(text)


def test_every_so_often() -> None:
    schedule = Schedule(900)
    assert next_run(schedule, None) == 0
    assert next_run(schedule, NOW) == NOW + 900


@pytest.mark.parametrize("month", range(1, 13))
def test_daily_is_at_that_time_of_the_day_here(month: int) -> None:
    schedule = Schedule(minute=3 * 60 + 30)
    for day in (1, 14, 28):
        for hour in (0, 3, 12, 23):
            last = int(datetime(2026, month, day, hour, 15).timestamp())
            due = next_run(schedule, last)
            at = datetime.fromtimestamp(due)
            assert last < due
            assert (at.hour, at.minute) == (3, 30)
            assert at.date() == datetime(2026, month, day).date() or hour >= 3
            # Begun at its time, it is due the next day and not once more.
            assert datetime.fromtimestamp(next_run(schedule, due)).date() > at.date()


def test_never_run_and_daily_is_due_now() -> None:
    assert next_run(Schedule(minute=5), None) < NOW


LATER = NOW + 3600


def test_what_the_last_run_left() -> None:
    schedule = Schedule(900)
    assert due_at(schedule, {}, now=LATER) == 0
    assert due_at(schedule, {"last": {"started": NOW}}, now=LATER) == NOW + 900
    assert due_at(schedule, {"last": {"started": NOW}}, now=LATER, started=NOW + 60) == NOW + 960
    assert due_at(schedule, {"last": {"started": NOW, "refused": True}}, now=LATER) > NOW + 100 * 366 * DAY_S
    assert due_at(schedule, {"last": {"refused": True}}, now=LATER) > NOW + 100 * 366 * DAY_S
    assert due_at(schedule, {"last": {"started": NOW, "resume_at": NOW + 5000}}, now=LATER) == NOW + 5000
    assert due_at(schedule, {"last": "junk"}, now=LATER) == 0


def test_a_run_in_the_future_was_by_a_wrong_clock() -> None:
    assert due_at(Schedule(900), {"last": {"started": LATER * 2}}, now=NOW) == NOW + 900


def test_a_server_that_is_away_is_asked_less_and_less() -> None:
    waits = [due_at(Schedule(60), {}, now=LATER, started=NOW, failures=count) - NOW for count in range(12)]
    assert waits == sorted(waits)
    assert waits[0] == 60
    assert waits[-1] == 3600
    assert due_at(Schedule(7200), {}, now=LATER, started=NOW, failures=5) == NOW + 7200
