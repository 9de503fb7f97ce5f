"""What an item of Outlook is besides mail: contact, appointment, meeting, task, note, journal entry, list of people.

Knows the named properties of each kind ([MS-OXOCNTC], [MS-OXOCAL], [MS-OXOTASK], [MS-OXOJRNL]) and gives two things:
the facts, as lines for whoever reads the message, and the same for programs, as a vCard (RFC 6350) or a calendar
(RFC 5545, as [MS-OXCICAL] maps it). No file format, no mail.

A property that is missing or of another type is a fact that is not told; nothing raises.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from mailkeep.export import mapi, vcard
from mailkeep.export.mapi import Item, Value, bytes_of, number_of, text_of
from mailkeep.export.recurrence import Recurrence, Zone, recurrence, zone_lines, zone_of_definition, zone_of_struct
from mailkeep.export.vcard import Line
from mailkeep.mail.compose import Field, Leaf, Part

_PSETID_LOG: Final = UUID("0006200a-0000-0000-c000-000000000046")
_MEMBERS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Extra:
    """What a message of the item has besides its body.

    `facts` are shown above the body, `forms` are one more form of the body (a calendar), `attached` go along (a card).
    """

    subject: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    forms: tuple[Part, ...] = ()
    attached: tuple[Part, ...] = ()
    fields: tuple[Field, ...] = ()


def extra_of(item: Item) -> Extra | None:
    """None for mail. Never raises."""
    message_class = text_of(item.properties, mapi.MESSAGE_CLASS).upper()
    for start, read in _KINDS:
        if message_class == start or message_class.startswith(start + "."):
            return read(_Facts(item, message_class))
    return None


class _Facts:
    """An item's properties, by number alone; those with names by their set and number."""

    def __init__(self, item: Item, message_class: str) -> None:
        self.item = item
        self.message_class = message_class
        self.plain = {tag >> 16: value for tag, value in item.properties.items()}
        self.named: dict[tuple[UUID, int | str], Value] = {(n.guid, n.name): value for n, value in item.named.items()}

    def text(self, number: int) -> str:
        return _text(self.plain.get(number))

    def named_text(self, guid: UUID, number: int) -> str:
        return _text(self.named.get((guid, number)))

    def number(self, guid: UUID, number: int) -> int | None:
        value = self.named.get((guid, number))
        return value if isinstance(value, int) else None

    def bytes(self, guid: UUID, number: int) -> bytes:
        value = self.named.get((guid, number))
        return value if isinstance(value, bytes) else b""

    def time(self, guid: UUID, number: int) -> datetime | None:
        return _time(self.named.get((guid, number)))


def _text(value: Value | None) -> str:
    return mapi.clean(value).strip() if isinstance(value, str) else ""


def _time(value: Value | None) -> datetime | None:
    """A FILETIME that is a date of somebody's life; Outlook has 4501-01-01 for "none"."""
    seconds = mapi.unix_time(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if seconds is None or not -8_000_000_000 < seconds < 79_000_000_000:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _shown(facts: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((label, value) for label, value in facts if value)


def _lines(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


# --- contacts --------------------------------------------------------------------------------------------------------

_PHONES: Final = (
    (0x3A08, "Business phone", "work,voice"), (0x3A1B, "Business phone 2", "work,voice"),
    (0x3A02, "Callback", "voice"), (0x3A57, "Company phone", "work,voice"), (0x3A09, "Home phone", "home,voice"),
    (0x3A2F, "Home phone 2", "home,voice"), (0x3A1C, "Mobile", "cell"), (0x3A1E, "Car phone", "voice"),
    (0x3A1F, "Other phone", "voice"), (0x3A1A, "Primary phone", "voice"), (0x3A21, "Pager", "pager"),
    (0x3A2E, "Assistant's phone", "work,voice"), (0x3A24, "Business fax", "work,fax"), (0x3A25, "Home fax", "home,fax"),
    (0x3A23, "Other fax", "fax"),
)  # fmt: skip
# Post office box, street, city, region, code, country: as ADR has them (RFC 6350 section 6.3.1).
_ADDRESSES: Final = (
    ("Business address", "work", (0x804A, 0x8045, 0x8046, 0x8047, 0x8048, 0x8049)),
    ("Home address", "home", (0x3A5E, 0x3A5D, 0x3A59, 0x3A5C, 0x3A5B, 0x3A5A)),
    ("Other address", "", (0x3A64, 0x3A63, 0x3A5F, 0x3A62, 0x3A61, 0x3A60)),
)
_OLDER_ADDRESS: Final = (0x3A2B, 0x3A29, 0x3A27, 0x3A28, 0x3A2A, 0x3A26)


def _contact(facts: _Facts) -> Extra:
    names = [facts.text(number) for number in (0x3A11, 0x3A06, 0x3A44, 0x3A45, 0x3A05)]
    family, given, middle, prefix, suffix = names
    company = facts.text(0x3A16)
    full = facts.text(0x3001) or " ".join(filter(None, (prefix, given, middle, family, suffix)))
    full = full or facts.named_text(mapi.PSETID_ADDRESS, 0x8005) or company or facts.text(0x0037) or "Contact"
    lines: list[Line] = [("BEGIN", "VCARD"), ("VERSION", "4.0"), ("FN", vcard.text(full))]
    shown = [("Name", full)]
    lines.append(("N", vcard.structured(family, given, middle, prefix, suffix)))
    for label, number, name in (
        ("Nickname", 0x3A4F, "NICKNAME"),
        ("Job title", 0x3A17, "TITLE"),
        ("Profession", 0x3A46, "ROLE"),
    ):
        lines.append((name, vcard.text(facts.text(number))))
        shown.append((label, facts.text(number)))
    lines.append(("ORG", vcard.structured(*([company, facts.text(0x3A18)] if facts.text(0x3A18) else [company]))))
    shown += [("Company", company), ("Department", facts.text(0x3A18)), ("Office", facts.text(0x3A19))]
    _put_ways(facts, lines, shown)
    _put_days(facts, lines, shown)
    lines += _notes(facts)
    lines.append(("END", "VCARD"))
    card = Leaf("text/vcard", vcard.written(lines), f"{full[:60]}.vcf", "attachment", parameters=_UTF8)
    return Extra(subject=full, facts=_shown(shown), attached=(card,))


_UTF8: Final = (("charset", "utf-8"),)


def _put_ways(facts: _Facts, lines: list[Line], shown: list[tuple[str, str]]) -> None:
    """How the person is reached."""
    for number, first in enumerate((0x8083, 0x8093, 0x80A3), start=1):
        address = facts.named_text(mapi.PSETID_ADDRESS, first)
        if "@" not in address:
            address = facts.named_text(mapi.PSETID_ADDRESS, first + 1) or address
        lines.append(("EMAIL", vcard.text(address) if "@" in address else ""))
        shown.append(("E-mail" if number == 1 else f"E-mail {number}", address))
    for tag, label, kinds in _PHONES:
        types = "".join(f";TYPE={kind}" for kind in kinds.split(","))
        lines.append((f"TEL{types}", vcard.text(facts.text(tag))))
        shown.append((label, facts.text(tag)))
    lines.append(("IMPP", _uri(facts.named_text(mapi.PSETID_ADDRESS, 0x8062), "im")))
    shown.append(("Instant messages", facts.named_text(mapi.PSETID_ADDRESS, 0x8062)))
    for label, kind, numbers in _ADDRESSES:
        parts = [facts.named_text(mapi.PSETID_ADDRESS, n) if n >= 0x8000 else facts.text(n) for n in numbers]
        if kind == "work" and not any(parts):
            parts = [facts.text(number) for number in _OLDER_ADDRESS]
        box, street, city, region, code, country = parts
        name = f"ADR;TYPE={kind}" if kind else "ADR"
        lines.append((name, vcard.structured(box, "", street, city, region, code, country)))
        shown.append((label, _lines(box, street, _spaced(code, city), region, country)))
    for label, page in (
        ("Web page", facts.text(0x3A51) or facts.named_text(mapi.PSETID_ADDRESS, 0x802B)),
        ("Personal page", facts.text(0x3A50)),
    ):
        lines.append(("URL", _uri(page, "https")))
        shown.append((label, page))


def _spaced(*texts: str) -> str:
    return " ".join(text for text in texts if text)


def _uri(text: str, scheme: str) -> str:
    """What is no URI yet becomes one; nothing that could end the line is left in it."""
    text = re.sub(r"[\x00-\x20\x7f]+", "", text)
    if not text or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return text
    return f"{scheme}://{text}" if scheme == "https" else f"{scheme}:{text}"


def _put_days(facts: _Facts, lines: list[Line], shown: list[tuple[str, str]]) -> None:
    for label, number, name in (("Birthday", 0x3A42, "BDAY"), ("Anniversary", 0x3A41, "ANNIVERSARY")):
        when = _time(facts.plain.get(number))
        # Midnight of the writer's zone, told in UTC: the nearest midnight is the day.
        day = (when + timedelta(hours=12)).date() if when is not None else None
        lines.append((name, f"{day:%Y%m%d}" if day is not None else ""))
        shown.append((label, day.isoformat() if day is not None else ""))
    for label, number, kind in (("Spouse", 0x3A48, "spouse"), ("Assistant", 0x3A30, ""), ("Manager", 0x3A4E, "")):
        lines.append((f"RELATED;VALUE=text;TYPE={kind}", vcard.text(facts.text(number)) if kind else ""))
        shown.append((label, facts.text(number)))


def _notes(facts: _Facts) -> Iterator[Line]:
    yield "NOTE", vcard.text(facts.text(0x1000))
    value = facts.item.named.get(mapi.CATEGORIES)
    if isinstance(value, list):
        yield "CATEGORIES", ",".join(vcard.text(text) for text in value if isinstance(text, str))


def _people_list(facts: _Facts) -> Extra:
    """A distribution list: its members, as far as it keeps their addresses."""
    name = facts.named_text(mapi.PSETID_ADDRESS, 0x8053) or facts.text(0x3001) or facts.text(0x0037) or "List"
    value = facts.named.get((mapi.PSETID_ADDRESS, 0x8054))
    entries = [entry for entry in value[:_MEMBERS_MAX] if isinstance(entry, bytes)] if isinstance(value, list) else []
    members = [found for entry in entries if (found := mapi.read_one_off(entry)) is not None]
    lines: list[Line] = [("BEGIN", "VCARD"), ("VERSION", "4.0"), ("KIND", "group"), ("FN", vcard.text(name))]
    shown = [("List", name)]
    for title, _, address in members:
        lines.append(("MEMBER", _uri(f"mailto:{address}", "mailto") if "@" in address else ""))
        shown.append(("Member", f"{title} <{address}>" if title and title != address else address))
    lines.append(("END", "VCARD"))
    card = Leaf("text/vcard", vcard.written(lines), f"{name[:60]}.vcf", "attachment", parameters=_UTF8)
    return Extra(subject=name, facts=_shown(shown), attached=(card,))


# --- appointments ----------------------------------------------------------------------------------------------------

_METHODS: Final = (
    ("IPM.SCHEDULE.MEETING.REQUEST", "REQUEST", ""),
    ("IPM.SCHEDULE.MEETING.CANCELED", "CANCEL", ""),
    ("IPM.SCHEDULE.MEETING.RESP.POS", "REPLY", "ACCEPTED"),
    ("IPM.SCHEDULE.MEETING.RESP.NEG", "REPLY", "DECLINED"),
    ("IPM.SCHEDULE.MEETING.RESP.TENT", "REPLY", "TENTATIVE"),
)
_BUSY: Final = {0: "Free", 1: "Tentative", 2: "Busy", 3: "Out of office", 4: "Working elsewhere"}
_ORGANIZER: Final = 2  # of RECIPIENT_FLAGS
_TRACK_STATUS: Final = 0x5FFF0003
_ANSWERS: Final = {2: "TENTATIVE", 3: "ACCEPTED", 4: "DECLINED"}
_ROLES: Final = {1: "REQ-PARTICIPANT", 2: "OPT-PARTICIPANT", 3: "NON-PARTICIPANT"}


def _appointment(facts: _Facts) -> Extra:
    method, answer = "PUBLISH", ""
    for start, name, status in _METHODS:
        if facts.message_class.startswith(start):
            method, answer = name, status
    begins = facts.time(mapi.PSETID_APPOINTMENT, 0x820D) or facts.time(mapi.PSETID_COMMON, 0x8516)
    begins = begins or _time(facts.plain.get(0x0060))
    ends = facts.time(mapi.PSETID_APPOINTMENT, 0x820E) or facts.time(mapi.PSETID_COMMON, 0x8517)
    ends = ends or _time(facts.plain.get(0x0061)) or begins
    zone = zone_of_definition(facts.bytes(mapi.PSETID_APPOINTMENT, 0x825E))
    zone = zone or zone_of_definition(facts.bytes(mapi.PSETID_APPOINTMENT, 0x8260))
    zone = zone or zone_of_struct(facts.bytes(mapi.PSETID_APPOINTMENT, 0x8233))
    all_day = bool(facts.number(mapi.PSETID_APPOINTMENT, 0x8215))
    repeats = recurrence(facts.bytes(mapi.PSETID_APPOINTMENT, 0x8216))
    place = facts.named_text(mapi.PSETID_APPOINTMENT, 0x8208)
    organizer, attendees = _people(facts)
    shown = [
        ("When", _span(begins, ends, all_day=all_day)),
        ("Where", place),
        ("Repeats", facts.named_text(mapi.PSETID_APPOINTMENT, 0x8232) or (repeats.rule if repeats else "")),
        ("Organizer", _named_address(*organizer)),
        ("Attendees", "; ".join(_named_address(name, address) for name, address, _, _ in attendees)),
        ("Shown as", _BUSY.get(facts.number(mapi.PSETID_APPOINTMENT, 0x8205) or 0, "") if method == "PUBLISH" else ""),
    ]
    if repeats is not None and repeats.changed:
        shown.append(("Note", f"{repeats.changed} of its occurrences were changed; those are not in the calendar file"))
    if begins is None or ends is None:
        return Extra(facts=_shown(shown))
    event = _Event(begins, ends, zone, repeats, all_day=all_day)
    lines = [("BEGIN", "VCALENDAR"), ("PRODID", "-//Mailkeep//EN"), ("VERSION", "2.0"), ("METHOD", method)]
    lines += [*_event_lines(facts, event, answer), ("END", "VCALENDAR")]
    parameters = (("method", method), ("component", "VEVENT"), *_UTF8)
    calendar = Leaf("text/calendar", vcard.written(lines), "invite.ics", parameters=parameters)
    return Extra(facts=_shown(shown), forms=(calendar,))


@dataclass(frozen=True, slots=True)
class _Event:
    begins: datetime
    ends: datetime
    zone: Zone | None
    repeats: Recurrence | None
    all_day: bool


def _span(begins: datetime | None, ends: datetime | None, *, all_day: bool) -> str:
    if begins is None or ends is None:
        return ""
    if all_day:
        first, last = (begins + timedelta(hours=12)).date(), (ends - timedelta(hours=12)).date()
        return f"{first.isoformat()}, all day" if last <= first else f"{first.isoformat()} to {last.isoformat()}"
    until = f"{ends:%H:%M}" if ends.date() == begins.date() else f"{ends:%Y-%m-%d %H:%M}"
    return f"{begins:%Y-%m-%d %H:%M} to {until} UTC"


def _named_address(name: str, address: str) -> str:
    return f"{name} <{address}>" if name and address and name != address else name or address


def _people(facts: _Facts) -> tuple[tuple[str, str], list[tuple[str, str, int, int]]]:
    """The organizer, and name, address, type and answer of each attendee."""
    properties = facts.item.properties
    organizer = (
        text_of(properties, mapi.REPRESENTING_NAME),
        text_of(properties, mapi.REPRESENTING_SMTP_ADDRESS)
        or _internet(text_of(properties, mapi.REPRESENTING_ADDRESS)),
    )
    attendees: list[tuple[str, str, int, int]] = []
    for row in facts.item.recipients[:_MEMBERS_MAX]:
        name = text_of(row, mapi.DISPLAY_NAME)
        address = text_of(row, mapi.SMTP_ADDRESS) or _internet(text_of(row, mapi.EMAIL_ADDRESS))
        if number_of(row, mapi.RECIPIENT_FLAGS) & _ORGANIZER:
            organizer = (name, address)
        elif name or address:
            attendees.append((name, address, number_of(row, mapi.RECIPIENT_TYPE) & 0xF, number_of(row, _TRACK_STATUS)))
    return organizer, attendees


def _internet(address: str) -> str:
    return address if "@" in address and not address.startswith("/") else ""


def _event_lines(facts: _Facts, event: _Event, answer: str) -> Iterator[Line]:
    zone_name = re.sub(r"[\x00-\x1f:;,\"]", " ", facts.named_text(mapi.PSETID_APPOINTMENT, 0x8234))[:80] or "Local"
    repeats = event.repeats
    zoned = repeats is not None and event.zone is not None and not event.all_day
    if zoned and event.zone is not None:
        yield from zone_lines(vcard.text(zone_name), event.zone)
    yield "BEGIN", "VEVENT"
    yield "UID", vcard.text(_identity(facts))
    stamp = _time(facts.plain.get(0x3008)) or _time(facts.plain.get(0x3007)) or event.begins
    yield "DTSTAMP", _utc(stamp)
    zone_parameter = f";TZID={vcard.parameter(zone_name)}"
    if event.all_day:
        first, end = (event.begins + timedelta(hours=12)).date(), (event.ends + timedelta(hours=12)).date()
        yield "DTSTART;VALUE=DATE", f"{first:%Y%m%d}"
        yield "DTEND;VALUE=DATE", f"{max(end, first + timedelta(days=1)):%Y%m%d}"
    elif zoned and repeats is not None:
        yield f"DTSTART{zone_parameter}", f"{repeats.start:%Y%m%dT%H%M%S}"
        yield f"DTEND{zone_parameter}", f"{repeats.end:%Y%m%dT%H%M%S}"
    else:
        yield "DTSTART", _utc(event.begins)
        yield "DTEND", _utc(event.ends)
    if repeats is not None:
        yield "RRULE", repeats.rule
        for day in repeats.without:
            if event.all_day:
                yield "EXDATE;VALUE=DATE", f"{day:%Y%m%d}"
            elif zoned:
                yield f"EXDATE{zone_parameter}", f"{day:%Y%m%dT%H%M%S}"
    yield from _described(facts)
    yield from _attendee_lines(facts, answer)
    yield "END", "VEVENT"


def _described(facts: _Facts) -> Iterator[Line]:
    yield "SUMMARY", vcard.text(facts.text(0x0037))
    yield "LOCATION", vcard.text(facts.named_text(mapi.PSETID_APPOINTMENT, 0x8208))
    yield "DESCRIPTION", vcard.text(facts.text(0x1000)[:100_000])
    value = facts.item.named.get(mapi.CATEGORIES)
    if isinstance(value, list):
        yield "CATEGORIES", ",".join(vcard.text(text) for text in value if isinstance(text, str))
    sequence = facts.number(mapi.PSETID_APPOINTMENT, 0x8201)
    yield "SEQUENCE", str(sequence) if sequence is not None and sequence >= 0 else ""
    busy = facts.number(mapi.PSETID_APPOINTMENT, 0x8205)
    yield "TRANSP", "TRANSPARENT" if busy == 0 else "OPAQUE"
    yield "STATUS", "CANCELLED" if (facts.number(mapi.PSETID_APPOINTMENT, 0x8217) or 0) & 4 else ""
    yield (
        "CLASS",
        {1: "PERSONAL", 2: "PRIVATE", 3: "CONFIDENTIAL"}.get(number_of(facts.item.properties, mapi.SENSITIVITY), ""),
    )


def _attendee_lines(facts: _Facts, answer: str) -> Iterator[Line]:
    organizer, attendees = _people(facts)
    if answer:  # who answers is who sent this, and the organizer whom it went to
        for name, address, _, _ in attendees[:1]:
            yield f"ORGANIZER;CN={vcard.parameter(name)}", _uri(f"mailto:{address}", "mailto") if address else ""
        name, address = organizer
        value = _uri(f"mailto:{address}", "mailto") if address else ""
        yield f"ATTENDEE;PARTSTAT={answer};CN={vcard.parameter(name)}", value
        return
    if attendees and organizer[1]:
        yield f"ORGANIZER;CN={vcard.parameter(organizer[0])}", _uri(f"mailto:{organizer[1]}", "mailto")
    for name, address, kind, status in attendees:
        role, said = _ROLES.get(kind, "REQ-PARTICIPANT"), _ANSWERS.get(status, "NEEDS-ACTION")
        value = _uri(f"mailto:{address}", "mailto") if address else ""
        yield f"ATTENDEE;ROLE={role};PARTSTAT={said};CN={vcard.parameter(name or address)}", value


def _utc(when: datetime) -> str:
    return f"{when:%Y%m%dT%H%M%SZ}"


_VCAL: Final = b"vCal-Uid\x01\x00\x00\x00"


def _identity(facts: _Facts) -> str:
    """The UID: of a foreign calendar as it was, of Outlook's the id without its date ([MS-OXCICAL] 2.1.3.1.1.20.26)."""
    identity = facts.bytes(mapi.PSETID_MEETING, 0x23) or facts.bytes(mapi.PSETID_MEETING, 0x3)
    at = identity.find(_VCAL)
    if at >= 0:
        foreign = identity[at + len(_VCAL) :].split(b"\0")[0].decode("utf-8", "replace")
        if foreign:
            return foreign
    if len(identity) >= 20:
        return (identity[:16] + bytes(4) + identity[20:]).hex().upper()
    return bytes_of(facts.item.properties, mapi.SEARCH_KEY).hex().upper() or "mailkeep"


# --- tasks, notes, the journal ---------------------------------------------------------------------------------------

_STATUS: Final = ("Not started", "In progress", "Completed", "Waiting for someone else", "Deferred")
_TODO: Final = ("NEEDS-ACTION", "IN-PROCESS", "COMPLETED", "NEEDS-ACTION", "NEEDS-ACTION")


def _task(facts: _Facts) -> Extra:
    status = facts.number(mapi.PSETID_TASK, 0x8101)
    part = facts.named.get((mapi.PSETID_TASK, 0x8102))
    percent = round(part * 100) if isinstance(part, float) and 0 <= part <= 1 else None
    start, due, done = (_day(facts.time(mapi.PSETID_TASK, number)) for number in (0x8104, 0x8105, 0x810F))
    known = status is not None and 0 <= status < len(_STATUS)
    shown = [
        ("Status", _STATUS[status] if known and status is not None else ""),
        ("Done", f"{percent} %" if percent is not None else ""),
        ("Start", f"{start:%Y-%m-%d}" if start else ""),
        ("Due", f"{due:%Y-%m-%d}" if due else ""),
        ("Completed", f"{done:%Y-%m-%d}" if done else ""),
        ("Owner", facts.named_text(mapi.PSETID_TASK, 0x811F)),
    ]
    stamp = _time(facts.plain.get(0x3008)) or _time(facts.plain.get(0x3007)) or datetime(1970, 1, 1, tzinfo=UTC)
    lines: list[Line] = [("BEGIN", "VCALENDAR"), ("PRODID", "-//Mailkeep//EN"), ("VERSION", "2.0"), ("BEGIN", "VTODO")]
    lines += [
        ("UID", vcard.text(_identity(facts))),
        ("DTSTAMP", _utc(stamp)),
        ("SUMMARY", vcard.text(facts.text(0x0037))),
        ("DESCRIPTION", vcard.text(facts.text(0x1000)[:100_000])),
        ("DTSTART;VALUE=DATE", f"{start:%Y%m%d}" if start else ""),
        ("DUE;VALUE=DATE", f"{due:%Y%m%d}" if due and (not start or due >= start) else ""),
        ("COMPLETED", f"{done:%Y%m%d}T000000Z" if done else ""),
        ("PERCENT-COMPLETE", str(percent) if percent is not None else ""),
        ("STATUS", _TODO[status] if known and status is not None else ""),
        ("END", "VTODO"),
        ("END", "VCALENDAR"),
    ]
    parameters = (("component", "VTODO"), *_UTF8)
    calendar = Leaf("text/calendar", vcard.written(lines), "task.ics", parameters=parameters)
    return Extra(facts=_shown(shown), forms=(calendar,))


def _day(when: datetime | None) -> datetime | None:
    """The day of a midnight, whatever the zone that it was midnight in."""
    return when + timedelta(hours=12) if when is not None else None


def _journal(facts: _Facts) -> Extra:
    begins, ends = facts.time(_PSETID_LOG, 0x8706), facts.time(_PSETID_LOG, 0x8708)
    minutes = facts.number(_PSETID_LOG, 0x8707)
    shown = [
        ("Entry", facts.named_text(_PSETID_LOG, 0x8700) or facts.named_text(_PSETID_LOG, 0x8712)),
        ("When", _span(begins, ends or begins, all_day=False)),
        ("Duration", f"{minutes} minutes" if minutes else ""),
        ("Company", facts.text(0x3A16)),
    ]
    return Extra(facts=_shown(shown))


def _note(facts: _Facts) -> Extra:
    return Extra(subject=(facts.text(0x1000).splitlines() or [""])[0][:100])


_KINDS: Final[tuple[tuple[str, Callable[[_Facts], Extra]], ...]] = (
    ("IPM.CONTACT", _contact),
    ("IPM.DISTLIST", _people_list),
    ("IPM.APPOINTMENT", _appointment),
    ("IPM.SCHEDULE.MEETING", _appointment),
    ("IPM.TASKREQUEST", _task),
    ("IPM.TASK", _task),
    ("IPM.ACTIVITY", _journal),
    ("IPM.STICKYNOTE", _note),
)
