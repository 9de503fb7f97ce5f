"""When remotes are pulled, or synchronised, by themselves: what people write, and what is due. Pure: time is handed in.

    every 15 min · every 2 hours · every day · daily at 03:30 · never · sync every 15 min

The one care: what is due after a refused log-in. A password that was refused is not tried again by itself, however
late, which is how accounts get locked; such a remote waits until somebody gives it a new secret or pulls it.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from mailkeep.errors import UsageError

DAY_S: Final = 86_400
EVERY_MAX_S: Final = 366 * DAY_S
NEVER: Final = 1 << 60  # Unix seconds: not until somebody does something
FAILED_WAIT_MAX_S: Final = 3600  # an "every 1 min" whose server is away is tried once an hour at last

_UNITS: Final = {"min": 60, "hour": 3600, "day": DAY_S, "week": 7 * DAY_S}
_NAMES: Final = {
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "hour"),
    **dict.fromkeys(("d", "day", "days"), "day"),
    **dict.fromkeys(("w", "week", "weeks"), "week"),
}
_EVERY: Final = re.compile(r"every (?:(\d{1,6}) ?)?([a-z]+)")
_DAILY: Final = re.compile(r"(?:daily|every day)(?: at)? (\d{1,2}):(\d\d)")
_HOW: Final = 'say "every 15 min", "every 2 hours", "daily at 03:30" or "never"'


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either each `every_s` seconds, or once a day at `minute` of the local day. `both_ways`: `sync`, not `pull`."""

    every_s: int = 0
    minute: int | None = None
    both_ways: bool = False

    @property
    def command(self) -> str:
        """What is run."""
        return "sync" if self.both_ways else "pull"

    def __str__(self) -> str:
        """As `parse` reads it, in one way only."""
        return f"sync {self.when}" if self.both_ways else self.when

    @property
    def when(self) -> str:
        """Without what is run."""
        if self.minute is not None:
            return f"daily at {self.minute // 60:02}:{self.minute % 60:02}"
        name = next(unit for unit in ("week", "day", "hour", "min") if not self.every_s % _UNITS[unit])
        count = self.every_s // _UNITS[name]
        plural = "" if count == 1 or name == "min" else "s"
        return f"every {count} {name}{plural}"


def parse(text: str) -> Schedule | None:
    """None: never. Raises UsageError that says what can be written."""
    plain = " ".join(text.lower().split())
    both_ways = plain.startswith("sync ")
    plain = plain.removeprefix("sync ")
    if plain in ("never", "none", "off"):
        return None
    if match := _DAILY.fullmatch(plain):
        hour, minute = int(match[1]), int(match[2])
        if hour < 24 and minute < 60:
            return Schedule(minute=hour * 60 + minute, both_ways=both_ways)
    elif (match := _EVERY.fullmatch(plain)) and match[2] in _NAMES:
        every_s = int(match[1] or 1) * _UNITS[_NAMES[match[2]]]
        if 0 < every_s <= EVERY_MAX_S:
            return Schedule(every_s, both_ways=both_ways)
    raise UsageError(f"{text!r} is no schedule; {_HOW}")


def next_run(schedule: Schedule, last: int | None) -> int:
    """When a remote whose last run began at `last` is due. Unix seconds; 0: at once. Days are those of this machine."""
    if schedule.minute is None:
        return 0 if last is None else last + schedule.every_s
    if last is None:
        last = 0
    day = datetime.fromtimestamp(last).replace(second=0, microsecond=0)  # local, so that DST moves nothing
    at = day.replace(hour=schedule.minute // 60, minute=schedule.minute % 60)
    if at <= datetime.fromtimestamp(last):
        at += timedelta(days=1)
    return int(at.timestamp())


def due_at(
    schedule: Schedule, state: dict[str, Any], *, now: int, started: int | None = None, failures: int = 0
) -> int:
    """When to run next, by what the last run left (`states.read_state`) and what this process knows.

    `started`: when this process last began one; `failures`: how many of its runs in a row did not get through. A run
    that says it began later than `now` was one of a clock that was wrong.
    """
    last = state.get("last")
    last = last if isinstance(last, dict) else {}
    if last.get("refused"):
        return NEVER
    told = last.get("started")
    began = max((min(each, now) for each in (told, started) if isinstance(each, int)), default=None)
    due = next_run(schedule, began)
    if began is not None:
        resume = last.get("resume_at")
        if isinstance(resume, int):
            due = max(due, resume)
        if failures and schedule.every_s:
            due = max(due, began + min(schedule.every_s * 2 ** min(failures, 16), FAILED_WAIT_MAX_S))
    return due
