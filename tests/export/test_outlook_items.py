"""Contacts, appointments, tasks: facts for people, vCards and calendars for programs, kinds for filters."""

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.export import mapi, vcard
from mailkeep.export.from_mapi import message_of
from mailkeep.export.mapi import Item, Named, Value
from mailkeep.export.recurrence import Zone, recurrence, zone_lines, zone_of_definition, zone_of_struct
from mailkeep.mail.letter import Letter, letter_of
from mailkeep.mail.selection import Known, Selection

UNTYPED = 0x1F  # the type does not matter to who reads by name


def item(message_class: str, properties: dict[int, Value], named: dict[tuple[UUID, int], Value]) -> Item:
    made = Item({mapi.MESSAGE_CLASS: message_class, **properties})
    made.named = {Named(guid, number, UNTYPED): value for (guid, number), value in named.items()}
    return made


def ticks(text: str) -> int:
    return mapi.filetime(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def text(number: int) -> int:
    return mapi.tag(number, mapi.STRING)


def lines_of(letter: Letter, media_type: str) -> list[str]:
    """The lines of its calendar or card, unfolded; every line has at most 75 octets and ends in CRLF."""
    (found,) = [a for a in letter.attachments if a.media_type == media_type]
    raw = letter.content(found)
    assert raw.endswith(b"\r\n") and b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 75
    return raw.decode().replace("\r\n ", "").rstrip("\r\n").split("\r\n")


def kinds(made: Item) -> set[str]:
    """What `--kind` would take it for."""
    data = message_of(made).data
    names = ("mail", "event", "contact", "note", "task")
    return {kind for kind in names if Selection(kinds=frozenset((kind,))).decide(Known(data=data))}


def test_a_contact() -> None:
    address = mapi.PSETID_ADDRESS
    made = item(
        "IPM.Contact",
        {
            text(0x3001): "Dr. Jörg Müller", text(0x3A06): "Jörg", text(0x3A11): "Müller", text(0x3A45): "Dr.",
            text(0x3A16): "Müller; Söhne, GmbH", text(0x3A18): "Sales", text(0x3A17): "Head", text(0x3A08): "+49 1",
            text(0x3A1C): "+49 2", text(0x3A51): "www.example.org", mapi.BODY: "met in\r\nKöln",
            mapi.tag(0x3A42, mapi.TIME): ticks("1970-05-16 22:00:00"),
        },
        {(address, 0x8083): "joerg@example.org", (address, 0x8093): "/o=EX/cn=j", (address, 0x8094): "j@example.net",
         (address, 0x8045): "Hauptstr. 1", (address, 0x8046): "Köln", (address, 0x8048): "50667"},
    )  # fmt: skip
    letter = letter_of(message_of(made).data)
    assert letter.subject == "Dr. Jörg Müller"
    assert letter.text is not None
    assert "Mobile: +49 2\n" in letter.text and "Business address: Hauptstr. 1, 50667 Köln\n" in letter.text
    assert letter.text.endswith("met in\nKöln")
    lines = lines_of(letter, "text/vcard")
    assert lines[:3] == ["BEGIN:VCARD", "VERSION:4.0", "FN:Dr. Jörg Müller"]
    assert lines[-1] == "END:VCARD"
    for line in (
        "N:Müller;Jörg;;Dr.;",
        "ORG:Müller\\; Söhne\\, GmbH;Sales",
        "EMAIL:joerg@example.org",
        "EMAIL:j@example.net",
        "TEL;TYPE=cell:+49 2",
        "ADR;TYPE=work:;;Hauptstr. 1;Köln;;50667;",
        "URL:https://www.example.org",
        "BDAY:19700517",
        "NOTE:met in\\nKöln",
    ):
        assert line in lines
    assert kinds(made) == {"contact"}


def test_a_list_of_people() -> None:
    members: Value = [mapi.one_off("Anna", "anna@example.org"), b"no entry", mapi.one_off("Bela", "bela@example.org")]
    made = item("IPM.DistList", {text(0x3001): "Friends"}, {(mapi.PSETID_ADDRESS, 0x8054): members})
    letter = letter_of(message_of(made).data)
    assert letter.text == "List: Friends\nMember: Anna <anna@example.org>\nMember: Bela <bela@example.org>\n\n"
    assert "MEMBER:mailto:anna@example.org" in lines_of(letter, "text/vcard")
    assert kinds(made) == {"contact"}


def pattern(frequency: int, kind: int, period: int, specific: bytes, *, end: int = 0x2023, count: int = 0,
            deleted: tuple[int, ...] = ()) -> bytes:  # fmt: skip
    """A recurrence from 2024-01-31 on, 10:00 to 11:30, local time ([MS-OXOCAL] section 2.2.1.44.1)."""
    day = int((datetime(2024, 1, 31) - datetime(1601, 1, 1)).total_seconds() // 60)
    blob = struct.pack("<HHHHHIII", 0x3004, 0x3004, frequency, kind, 0, 0, period, 0) + specific
    blob += struct.pack("<IIII", end, count, 1, len(deleted))
    blob += b"".join(struct.pack("<I", day + 1440 * n) for n in deleted) + struct.pack("<I", 0)
    return blob + struct.pack("<IIIIII", day, 0x5AE980DF, 0x3006, 0x3008, 600, 690)


@pytest.mark.parametrize(
    ("blob", "rule"),
    [
        (pattern(0x200A, 0, 2880, b"", end=0x2022, count=5), "FREQ=DAILY;INTERVAL=2;COUNT=5"),
        (pattern(0x200B, 1, 1, struct.pack("<I", 0b0100010)), "FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,FR;WKST=MO"),
        (pattern(0x200C, 2, 3, struct.pack("<I", 15)), "FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=15"),
        (pattern(0x200C, 2, 1, struct.pack("<I", 31)), "FREQ=MONTHLY;INTERVAL=1;BYMONTHDAY=-1"),
        (pattern(0x200C, 3, 1, struct.pack("<II", 0b10, 5)), "FREQ=MONTHLY;INTERVAL=1;BYDAY=MO;BYSETPOS=-1"),
        (pattern(0x200D, 2, 12, struct.pack("<I", 9)), "FREQ=YEARLY;INTERVAL=1;BYMONTH=1;BYMONTHDAY=9"),
    ],
)
def test_recurrences(blob: bytes, rule: str) -> None:
    found = recurrence(blob)
    assert found is not None
    assert (found.rule, found.start, found.end) == (rule, datetime(2024, 1, 31, 10), datetime(2024, 1, 31, 11, 30))


def test_recurrences_that_are_none() -> None:
    whole = pattern(0x200B, 1, 1, struct.pack("<I", 2))
    assert recurrence(pattern(0x200C, 0xA, 1, b"")) is None  # Hijri
    assert all(recurrence(whole[:size]) is None for size in range(len(whole)))


@given(st.binary(max_size=200))
def test_garbage_is_no_recurrence_and_no_zone(blob: bytes) -> None:
    recurrence(blob)
    for found in (zone_of_struct(blob), zone_of_definition(blob)):
        assert found is None or vcard.written(zone_lines("x", found))


BERLIN = struct.pack("<iiiH8HH8H", -60, 0, -60, 0, 0, 10, 0, 5, 3, 0, 0, 0, 0, 0, 3, 0, 5, 2, 0, 0, 0)


def appointment(message_class: str = "IPM.Appointment", **more: Value) -> Item:
    place = mapi.PSETID_APPOINTMENT
    named: dict[tuple[UUID, int], Value] = {
        (place, 0x820D): ticks("2024-01-31 09:00:00"), (place, 0x820E): ticks("2024-01-31 10:30:00"),
        (place, 0x8208): "Room 1", (place, 0x8205): 2, (place, 0x8233): BERLIN, (place, 0x8234): "Berlin: (Europe)",
        (mapi.PSETID_MEETING, 0x23): bytes(range(56)),
    }  # fmt: skip
    named |= {(place, int(key[1:], 16)): value for key, value in more.items()}
    made = item(message_class, {mapi.SUBJECT: "Meeting", mapi.BODY: "Agenda; first, second"}, named)
    made.properties[mapi.REPRESENTING_NAME] = "Anna"
    made.properties[mapi.REPRESENTING_SMTP_ADDRESS] = "anna@example.org"
    made.recipients = [
        {mapi.RECIPIENT_TYPE: kind, mapi.DISPLAY_NAME: name, mapi.SMTP_ADDRESS: f"{name.lower()}@example.org",
         0x5FFF0003: status, mapi.RECIPIENT_FLAGS: flags}
        for kind, name, status, flags in ((1, "Anna", 0, 2), (1, "Bela", 3, 0), (2, "Carl", 4, 0), (3, "Room1", 0, 0))
    ]  # fmt: skip
    return made


def test_an_appointment_that_repeats() -> None:
    blob = pattern(0x200B, 1, 1, struct.pack("<I", 0b1000), end=0x2022, count=9, deleted=(7, 14))
    made = appointment(x8216=blob, x8232="every Wednesday")
    letter = letter_of(message_of(made).data)
    assert letter.text is not None
    assert letter.text.startswith("When: 2024-01-31 09:00 to 10:30 UTC\nWhere: Room 1\nRepeats: every Wednesday\n")
    lines = lines_of(letter, "text/calendar")
    for line in (
        "METHOD:PUBLISH", "TZID:Berlin  (Europe)", "TZOFFSETTO:+0200", "SUMMARY:Meeting", "LOCATION:Room 1",
        "RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10", 'DTSTART;TZID="Berlin  (Europe)":20240131T100000',
        'DTEND;TZID="Berlin  (Europe)":20240131T113000', "RRULE:FREQ=WEEKLY;INTERVAL=1;BYDAY=WE;WKST=MO;COUNT=9",
        'EXDATE;TZID="Berlin  (Europe)":20240207T100000', "DESCRIPTION:Agenda\\; first\\, second",
        'ORGANIZER;CN="Anna":mailto:anna@example.org',
        'ATTENDEE;ROLE=REQ-PARTICIPANT;PARTSTAT=ACCEPTED;CN="Bela":mailto:bela@example.org',
        'ATTENDEE;ROLE=OPT-PARTICIPANT;PARTSTAT=DECLINED;CN="Carl":mailto:carl@example.org',
    ):  # fmt: skip
        assert line in lines
    assert kinds(made) == {"event"}


def test_a_day_is_a_day_wherever_it_is() -> None:
    for hours in (-11, -8, 0, 1, 9, 12):
        midnight = datetime(2024, 7, 4, tzinfo=UTC) - timedelta(hours=hours)
        start, end = (mapi.filetime((midnight + timedelta(days=n)).timestamp()) for n in (0, 1))
        letter = letter_of(message_of(appointment(x820D=start, x820E=end, x8215=True)).data)
        lines = lines_of(letter, "text/calendar")
        if hours < 12:
            assert "DTSTART;VALUE=DATE:20240704" in lines and "DTEND;VALUE=DATE:20240705" in lines
            assert (letter.text or "").startswith("When: 2024-07-04, all day\n")


@pytest.mark.parametrize(
    ("message_class", "method", "line"),
    [
        ("IPM.Schedule.Meeting.Request", "REQUEST", 'ORGANIZER;CN="Anna":mailto:anna@example.org'),
        ("IPM.Schedule.Meeting.Canceled", "CANCEL", 'ORGANIZER;CN="Anna":mailto:anna@example.org'),
        ("IPM.Schedule.Meeting.Resp.Pos", "REPLY", 'ATTENDEE;PARTSTAT=ACCEPTED;CN="Anna":mailto:anna@example.org'),
        ("IPM.Schedule.Meeting.Resp.Neg", "REPLY", 'ATTENDEE;PARTSTAT=DECLINED;CN="Anna":mailto:anna@example.org'),
    ],
)
def test_meetings_are_mail_with_a_calendar(message_class: str, method: str, line: str) -> None:
    made = appointment(message_class)
    letter = letter_of(message_of(made).data)
    lines = lines_of(letter, "text/calendar")
    assert f"METHOD:{method}" in lines and line in lines
    assert kinds(made) == {"mail"}


def test_a_task() -> None:
    task = mapi.PSETID_TASK
    made = item(
        "IPM.Task",
        {mapi.SUBJECT: "Taxes", mapi.BODY: "all of them"},
        {(task, 0x8101): 1, (task, 0x8102): 0.25, (task, 0x8105): ticks("2024-05-31 00:00:00"), (task, 0x811F): "Anna"},
    )
    letter = letter_of(message_of(made).data)
    assert letter.text == "Status: In progress\nDone: 25 %\nDue: 2024-05-31\nOwner: Anna\n\nall of them"
    lines = lines_of(letter, "text/calendar")
    for line in ("BEGIN:VTODO", "DUE;VALUE=DATE:20240531", "PERCENT-COMPLETE:25", "STATUS:IN-PROCESS", "SUMMARY:Taxes"):
        assert line in lines
    assert kinds(made) == {"task"}


def test_a_note_and_a_journal_entry() -> None:
    note = item("IPM.StickyNote", {mapi.BODY: "Buy milk\r\nand bread"}, {})
    letter = letter_of(message_of(note).data)
    assert (letter.subject, letter.text) == ("Buy milk", "Buy milk\nand bread")
    assert kinds(note) == {"note"}
    log = UUID("0006200a-0000-0000-c000-000000000046")
    entry = item(
        "IPM.Activity",
        {mapi.SUBJECT: "Call"},
        {(log, 0x8700): "Phone call", (log, 0x8706): ticks("2024-01-02 03:04:00"), (log, 0x8707): 15},
    )
    shown = letter_of(message_of(entry).data).text
    assert shown == "Entry: Phone call\nWhen: 2024-01-02 03:04 to 03:04 UTC\nDuration: 15 minutes\n\n"


def test_facts_stand_above_an_html_body_too() -> None:
    made = appointment()
    made.properties[mapi.HTML] = "<html><BODY class=x><p>Grüße</p></BODY></html>".encode("cp1252")
    made.properties[mapi.INTERNET_CODEPAGE] = 1252
    made.named[Named(mapi.PSETID_APPOINTMENT, 0x8208, UNTYPED)] = "<Köln>"
    html = letter_of(message_of(made).data).html
    assert html is not None
    assert html.startswith("<html><BODY class=x><table><tr><th")
    assert "<td>&lt;K&#246;ln&gt;</td>" in html and html.endswith("<p>Grüße</p></BODY></html>")


def test_nothing_ends_its_line() -> None:
    evil = "x\r\nEND:VCARD\r\nBEGIN:VCARD\nFN:evil\x0b"
    for number in (0x3001, 0x3A08, 0x3A51):
        made = item("IPM.Contact", {text(number): evil}, {(mapi.PSETID_ADDRESS, 0x8062): evil})
        lines = lines_of(letter_of(message_of(made).data), "text/vcard")
        assert [line for line in lines if line.startswith(("BEGIN", "END"))] == ["BEGIN:VCARD", "END:VCARD"]
    made = appointment(x8208=evil, x8234=evil)
    made.recipients[1][mapi.DISPLAY_NAME] = evil + '"'
    lines = lines_of(letter_of(message_of(made).data), "text/calendar")
    assert sum(line.startswith("BEGIN:") for line in lines) == 2


def test_zones() -> None:
    zone = zone_of_struct(BERLIN)
    assert zone is not None
    assert (zone.standard, zone.daylight) == (60, 120)
    none = zone_of_struct(struct.pack("<iiiH8HH8H", -540, 0, 0, *[0] * 18))
    assert none == Zone(540, 540, None, None)
    assert zone_of_struct(b"") is None
