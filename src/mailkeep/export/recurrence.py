"""How an appointment repeats, and in which time zone: Outlook's structures as rules of iCalendar.

Knows RecurrencePattern and what follows it ([MS-OXOCAL] section 2.2.1.44) and both forms of a zone (2.2.1.39 and
2.2.1.41).
The pattern counts in local time, minutes since 1601, and so do its rules: that is why a zone goes along. What is in
none of the calendars that iCalendar knows (Hijri) or is damaged is no rule.
"""

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_START: Final = datetime(1601, 1, 1)  # of a local time without a zone
_MINUTES_MAX: Final = 2_200_000_000  # the year 5783
_DAILY, _WEEKLY, _MONTHLY, _YEARLY = 0x200A, 0x200B, 0x200C, 0x200D
_BY_DAY, _BY_WEEK, _BY_MONTH, _BY_NTH, _MONTH_END = 0, 1, 2, 3, 4
_FINITE: Final = (0x2021, 0x2022)
_DAYS: Final = ("SU", "MO", "TU", "WE", "TH", "FR", "SA")
_INSTANCES_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Local times of the first occurrence, the rule, and local times at which there is none."""

    start: datetime
    end: datetime
    rule: str
    without: tuple[datetime, ...]
    changed: int  # occurrences that are unlike the rule


def recurrence(blob: bytes) -> Recurrence | None:
    """None when it is no pattern, or none that iCalendar can tell."""
    try:
        return _read(blob)
    except (struct.error, ValueError, OverflowError, IndexError):
        return None


def _read(blob: bytes) -> Recurrence | None:
    _, _, frequency, kind, _, _, period, _ = struct.unpack_from("<HHHHHIII", blob)
    at = 22
    day = nth = 0
    if kind in (_BY_WEEK, _BY_MONTH, _MONTH_END):
        (day,) = struct.unpack_from("<I", blob, at)
        at += 4
    elif kind == _BY_NTH:
        day, nth = struct.unpack_from("<II", blob, at)
        at += 8
    elif kind != _BY_DAY:
        return None
    end_kind, count, first_day, deleted = struct.unpack_from("<IIII", blob, at)
    at += 16
    if deleted > _INSTANCES_MAX:
        return None
    without = struct.unpack_from(f"<{deleted}I", blob, at)
    at += 4 * deleted
    (changed,) = struct.unpack_from("<I", blob, at)
    at += 4 + 4 * changed
    first, _, _, _, start, end = struct.unpack_from("<IIIIII", blob, at)
    begins = _local(first + start)
    rule = _rule(frequency, kind, period, (day, nth), begins)
    if rule is None:
        return None
    if first_day < 7 and kind == _BY_WEEK:
        rule += f";WKST={_DAYS[first_day]}"
    if end_kind in _FINITE:
        rule += f";COUNT={count}"
    return Recurrence(begins, _local(first + end), rule, tuple(_local(day + start) for day in without), changed)


def _local(minutes: int) -> datetime:
    if minutes > _MINUTES_MAX:
        raise ValueError("no date")
    return _START + timedelta(minutes=minutes)


def _rule(frequency: int, kind: int, period: int, which: tuple[int, int], begins: datetime) -> str | None:
    day, nth = which
    days = ",".join(name for number, name in enumerate(_DAYS) if day >> number & 1)
    if kind == _BY_DAY:
        return f"FREQ=DAILY;INTERVAL={max(1, period // 1440)}"
    if kind == _BY_WEEK:
        return f"FREQ=WEEKLY;INTERVAL={max(1, period)};BYDAY={days}" if days else None
    if frequency == _YEARLY:
        head = f"FREQ=YEARLY;INTERVAL={max(1, period // 12)};BYMONTH={begins.month}"
    elif frequency == _MONTHLY:
        head = f"FREQ=MONTHLY;INTERVAL={max(1, period)}"
    else:
        return None
    if kind == _BY_NTH:
        return f"{head};BYDAY={days};BYSETPOS={-1 if nth >= 5 else nth}" if days and nth else None
    # The 31st is the last day of a month that has no 31st.
    return f"{head};BYMONTHDAY={-1 if kind == _MONTH_END or day >= 31 else day}"


# --- zones -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """When a zone's offset changes, each year: the nth (5: the last) such day of the month (0: Sunday), local time."""

    month: int
    weekday: int
    nth: int
    hour: int
    minute: int


@dataclass(frozen=True, slots=True)
class Zone:
    """Minutes east of Greenwich, in standard and in daylight time, and when one becomes the other (None: never)."""

    standard: int
    daylight: int
    to_standard: Change | None
    to_daylight: Change | None


def zone_of_struct(blob: bytes) -> Zone | None:
    """PidLidTimeZoneStruct."""
    if len(blob) < 48:
        return None
    bias, standard, daylight = struct.unpack_from("<iii", blob)
    return _zone(bias, (standard, daylight), _change(blob[14:30]), _change(blob[32:48]))


def zone_of_definition(blob: bytes) -> Zone | None:
    """PidLidAppointmentTimeZoneDefinition…: the rule in effect, else the last."""
    try:
        (name,) = struct.unpack_from("<H", blob, 6)
        at = 8 + 2 * name
        (count,) = struct.unpack_from("<H", blob, at)
        at += 2
        rules = [blob[at + 66 * number : at + 66 * (number + 1)] for number in range(min(count, 1024))]
        rules = [rule for rule in rules if len(rule) == 66]
        rule = next((rule for rule in rules if rule[4] & 2), rules[-1] if rules else None)
        if rule is None:
            return None
        bias, standard, daylight = struct.unpack_from("<iii", rule, 22)
    except struct.error:
        return None
    return _zone(bias, (standard, daylight), _change(rule[34:50]), _change(rule[50:66]))


def _zone(bias: int, more: tuple[int, int], to_standard: Change | None, to_daylight: Change | None) -> Zone | None:
    standard, daylight = -(bias + more[0]), -(bias + more[1])
    if max(abs(standard), abs(daylight)) > 16 * 60:
        return None
    if to_standard is None or to_daylight is None:
        return Zone(standard, standard, None, None)
    return Zone(standard, daylight, to_standard, to_daylight)


def _change(raw: bytes) -> Change | None:
    year, month, weekday, day, hour, minute, _, _ = struct.unpack("<8H", raw)
    good = year == 0 and 1 <= month <= 12 and weekday < 7 and 1 <= day <= 5 and hour < 24 and minute < 60
    return Change(month, weekday, day, hour, minute) if good else None


def zone_lines(name: str, zone: Zone) -> list[tuple[str, str]]:
    """The zone as VTIMEZONE (RFC 5545 section 3.6.5)."""
    lines = [("BEGIN", "VTIMEZONE"), ("TZID", name)]
    parts = [("STANDARD", zone.daylight, zone.standard, zone.to_standard)]
    if zone.to_daylight is not None:
        parts.append(("DAYLIGHT", zone.standard, zone.daylight, zone.to_daylight))
    for kind, before, after, change in parts:
        lines += [("BEGIN", kind), ("TZOFFSETFROM", _offset(before)), ("TZOFFSETTO", _offset(after))]
        if change is None:
            lines.append(("DTSTART", "16010101T000000"))
        else:
            lines.append(("DTSTART", f"1601{change.month:02}01T{change.hour:02}{change.minute:02}00"))
            nth = -1 if change.nth == 5 else change.nth
            lines.append(("RRULE", f"FREQ=YEARLY;BYDAY={nth}{_DAYS[change.weekday]};BYMONTH={change.month}"))
        lines.append(("END", kind))
    return [*lines, ("END", "VTIMEZONE")]


def _offset(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
