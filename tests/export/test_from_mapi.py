"""Items of Outlook become mail: header, people, bodies, attachments, flags and dates, whatever the item holds."""

import email
import email.policy
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.export import mapi
from mailkeep.export.from_mapi import DEPTH_MAX, message_of
from mailkeep.export.imcea import decapsulated, encapsulated
from mailkeep.export.mapi import Attached, Item, Named, Value
from mailkeep.export.to_mapi import item_of
from mailkeep.export.writer import Folder, Message
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.letter import Letter, letter_of
from tests.messages import corpus

SENT = mapi.filetime(1_700_000_000)
CAME = mapi.filetime(1_700_000_100)


def note(**more: Value) -> Item:
    """A mail of Outlook's that never had a header, with more properties by their names in `mapi`."""
    item = Item()
    item.properties = {
        mapi.MESSAGE_CLASS: "IPM.Note",
        mapi.SUBJECT: "Grüße",
        mapi.REPRESENTING_NAME: "Anna",
        mapi.REPRESENTING_ADDRESS_TYPE: "SMTP",
        mapi.REPRESENTING_ADDRESS: "anna@example.org",
        mapi.BODY: "Hello\r\nworld",
        mapi.CLIENT_SUBMIT_TIME: SENT,
        mapi.DELIVERY_TIME: CAME,
        mapi.INTERNET_MESSAGE_ID: "<1@example.org>",
    }
    for name, value in more.items():
        item.properties[getattr(mapi, name)] = value
    return item


def person(kind: int, name: str, address: str, address_type: str = "SMTP", **more: Value) -> dict[int, Value]:
    row: dict[int, Value] = {mapi.RECIPIENT_TYPE: kind, mapi.DISPLAY_NAME: name}
    row |= {mapi.ADDRESS_TYPE: address_type, mapi.EMAIL_ADDRESS: address}
    return row | {getattr(mapi, key): value for key, value in more.items()}


def shown(item: Item) -> Letter:
    composed = message_of(item)
    found = email.message_from_bytes(composed.data, policy=email.policy.default)
    assert all(not part.defects for part in found.walk())
    assert composed == message_of(item)
    return letter_of(composed.data)


def test_mail_without_a_header_gets_one_of_its_properties() -> None:
    item = note(IMPORTANCE=2, SENSITIVITY=2, IN_REPLY_TO_ID="<0@example.org>", INTERNET_REFERENCES="<0@example.org>")
    item.recipients = [
        person(1, "Bela", "bela@example.org"),
        person(2, "'carl@example.org'", "carl@example.org"),
        person(3, "Dora", "dora@example.org"),
        person(0, "The sender itself", "anna@example.org"),
    ]
    letter = shown(item)
    assert letter.subject == "Grüße"
    assert [(p.name, p.address) for p in letter.from_] == [("Anna", "anna@example.org")]
    assert [(p.name, p.address) for p in letter.to] == [("Bela", "bela@example.org")]
    assert [(p.name, p.address) for p in letter.cc] == [("", "carl@example.org")]
    assert [(p.name, p.address) for p in letter.bcc] == [("Dora", "dora@example.org")]
    assert letter.sender == ()
    assert letter.date is not None and letter.date.timestamp() == 1_700_000_000
    assert letter.message_id == "<1@example.org>"
    assert letter.in_reply_to == "<0@example.org>"
    assert letter.references == ("<0@example.org>",)
    assert (letter.header("Importance"), letter.header("X-Priority")) == ("high", "1")
    assert letter.header("Sensitivity") == "Private"
    assert letter.text == "Hello\nworld"
    assert message_of(item).internaldate == 1_700_000_100


def test_the_header_that_came_is_kept_and_bcc_added() -> None:
    header = (
        "Microsoft Mail Internet Headers Version 2.0\r\nReceived: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"
        "From: Anna <anna@example.org>\r\nTo: Jürgen <j@example.org>,\r\n b@example.org\r\nSubject: As it was\r\n"
        "X-Odd: ä\r\nContent-Type: text/html\r\n\tcharset=x\r\nMIME-Version: 1.0\r\n"
        "Date: Tue, 2 Jan 2024 03:04:05 +0900\r\n"
        "\r\n--part\r\nContent-Type: text/plain\r\n"
    )
    item = note(TRANSPORT_MESSAGE_HEADERS=header, HTML=b"<p>x</p>")
    item.recipients = [person(1, "Other", "other@example.org"), person(3, "Dora", "dora@example.org")]
    data = message_of(item).data
    letter = shown(item)
    assert data.startswith(
        b"Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\nFrom: Anna <anna@example.org>"
    )
    assert data.partition(b"\r\n\r\n")[0].isascii()
    assert letter.subject == "As it was"
    assert [(p.name, p.address) for p in letter.to] == [("Jürgen", "j@example.org"), ("", "b@example.org")]
    assert [(p.name, p.address) for p in letter.bcc] == [("Dora", "dora@example.org")]
    assert letter.date is not None and letter.date.isoformat() == "2024-01-02T03:04:05+09:00"
    assert letter.header("X-Odd") == "ä"
    # It came as HTML only: the text is Outlook's own.
    assert (letter.text, letter.html) == (None, "<p>x</p>")


@pytest.mark.parametrize(
    "header", ["", "no header at all", "X-Only: this\r\nMIME-Version: 1.0", "\0\0\0", ":\r\n: x\r\n"]
)
def test_a_header_that_is_none_is_not_used(header: str) -> None:
    letter = shown(note(TRANSPORT_MESSAGE_HEADERS=header))
    assert letter.subject == "Grüße"
    assert letter.from_[0].address == "anna@example.org"


@pytest.mark.parametrize("said", ["X-Priority: 5 (Lowest)", "Importance: low", "Priority: non-urgent"])
def test_a_header_that_rates_the_mail_is_not_given_another_rating(said: str) -> None:
    item = note()
    item.properties[mapi.TRANSPORT_MESSAGE_HEADERS] = f"From: a@example.org\r\nSubject: x\r\n{said}\r\n"
    item.properties[mapi.IMPORTANCE] = 0
    letter = shown(item)
    rated = [f"{name}: {value}" for name, value in letter.headers() if "rio" in name or "Imp" in name]
    assert rated == [said]


def test_what_no_header_can_hold_is_encoded() -> None:
    header = "From: a@example.org\r\nSubject: " + "x" * 3000 + "\r\nX-Nul: a\0b\x01c\r\n"
    data = message_of(note(TRANSPORT_MESSAGE_HEADERS=header)).data
    assert max(map(len, data.split(b"\r\n"))) < 1000
    assert b"\0" not in data and b"\x01" not in data
    assert letter_of(data).subject == "x" * 3000


def test_people_of_exchange() -> None:
    legacy = "/O=ENRON/OU=NA/CN=RECIPIENTS/CN=J_DOE"
    item = note(REPRESENTING_ADDRESS_TYPE="EX", REPRESENTING_ADDRESS=legacy, REPRESENTING_NAME="Doe, John")
    item.properties[mapi.SENDER_NAME] = "Secretary"
    item.properties[mapi.SENDER_ADDRESS] = "/O=ENRON/CN=SEC"
    item.properties[mapi.SENDER_SMTP_ADDRESS] = "sec@example.org"
    item.recipients = [
        person(1, "By Address", legacy, "EX", SMTP_ADDRESS="by@example.org"),
        person(1, "mail@example.org", legacy, "EX"),
        person(1, "Fax", "+49 89 1", "FAX"),
        person(1, "Only a Name", "", ""),
        person(1, "One Off", "", "", ENTRY_ID=mapi.one_off("One Off", "one@example.org")),
    ]
    letter = shown(item)
    ((name, address),) = letter.from_
    assert name == "Doe, John"
    assert decapsulated(address) == ("EX", legacy)
    assert [(p.name, p.address) for p in letter.sender] == [("Secretary", "sec@example.org")]
    assert [(p.name, p.address) for p in letter.to] == [
        ("By Address", "by@example.org"),
        ("", "mail@example.org"),
        ("Fax", encapsulated("FAX", "+49 89 1")),
        ("Only a Name", ""),
        ("One Off", "one@example.org"),
    ]


@given(st.text(min_size=1, max_size=80).filter(lambda text: text.isprintable()))
def test_an_encapsulated_address_comes_back(address: str) -> None:
    assert decapsulated(encapsulated("EX", address)) == ("EX", address)
    assert decapsulated("a@example.org") is None


def test_without_rows_the_shown_names_are_the_recipients() -> None:
    item = note(DISPLAY_TO="Bela; 'carl@example.org'", DISPLAY_CC="Dora")
    letter = shown(item)
    assert [(p.name, p.address) for p in letter.to] == [("Bela", ""), ("", "carl@example.org")]
    assert [(p.name, p.address) for p in letter.cc] == [("Dora", "")]


@pytest.mark.parametrize(
    ("properties", "flags"),
    [
        ({"MESSAGE_FLAGS": 0}, set()),
        ({"MESSAGE_FLAGS": 1}, {SEEN}),
        ({"MESSAGE_FLAGS": 8}, {DRAFT}),
        ({"MESSAGE_FLAGS": 1, "FLAG_STATUS": 2}, {SEEN, FLAGGED}),
        ({"FLAG_STATUS": 1}, set()),
        ({"LAST_VERB_EXECUTED": 102}, {ANSWERED}),
        ({"LAST_VERB_EXECUTED": 103}, {ANSWERED}),
        ({"LAST_VERB_EXECUTED": 104}, {"$Forwarded"}),
        ({"LAST_VERB_EXECUTED": 104, "ICON_INDEX": 0x105}, {ANSWERED, "$Forwarded"}),
        ({"MESSAGE_STATUS": 8}, {DELETED}),
        ({"MESSAGE_FLAGS": 8, "MESSAGE_CLASS": "IPM.Contact"}, set()),
    ],
)
def test_flags(properties: dict[str, Value], flags: set[str]) -> None:
    assert message_of(note(**properties)).flags == flags


def test_categories_are_keywords_and_keep_their_spelling() -> None:
    item = note()
    item.named[mapi.CATEGORIES] = ["Work", "Wichtige Kunden", "Work"]
    assert message_of(item).flags == {"Work", "Wichtige_Kunden"}
    assert letter_of(message_of(item).data).header("Keywords") == "Work, Wichtige Kunden"
    item.named[mapi.CATEGORIES] = ["Work"]
    assert letter_of(message_of(item).data).header("Keywords") is None


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_html_stays_the_bytes_that_it_was() -> None:
    raw = "<meta charset=windows-1252><p>Grüße".encode("cp1252")
    letter = shown(note(HTML=raw, INTERNET_CODEPAGE=1252))
    assert letter.html == "<meta charset=windows-1252><p>Grüße"
    assert letter.text == "Hello\nworld"
    (part,) = [p for p in email.message_from_bytes(letter.data).walk() if p.get_content_type() == "text/html"]
    assert part.get_payload(decode=True) == raw


@pytest.mark.parametrize(
    ("raw", "codepage"),
    [
        ("Grüße 日本".encode(), 65001),
        ("Grüße 日本".encode(), 1252 + 90000),
        ("日本".encode("shift_jis"), 932),
        ("日本".encode("iso2022_jp"), 50220),
        ("Привет".encode("koi8-r"), 20866),
        ("Grüße 日本".encode("utf-16-le"), 1200),
        ("<p>Grüße 日本".encode(), 1200),
        ("日本 Grüße".encode("gb18030"), 54936),
        ("Grüße".encode("utf-7"), 65000),
    ],
)
def test_html_in_any_codepage_is_read_as_it_is(raw: bytes, codepage: int) -> None:
    html = shown(note(HTML=raw, INTERNET_CODEPAGE=codepage)).html
    assert html is not None
    assert any(word in html for word in ("日本", "Привет", "Grüße"))


def test_only_the_form_that_the_sender_wrote_is_kept() -> None:
    plain = note(HTML=b"<p>made of it</p>", NATIVE_BODY=1)
    assert shown(plain).html is None
    both = note(HTML=b"<p>x</p>", NATIVE_BODY=3)
    assert (shown(both).text, shown(both).html) == ("Hello\nworld", "<p>x</p>")
    empty = note(BODY="")
    assert (shown(empty).text, shown(empty).html) == ("", None)


def rich(document: bytes) -> bytes:
    return struct.pack("<II4sI", len(document) + 12, len(document), b"MELA", 0) + document


def test_rich_text() -> None:
    html = rb"{\rtf1\ansi\fromhtml1 {\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Gr\'fc\'dfe\htmlrtf }\htmlrtf0}"
    letter = shown(note(RTF_COMPRESSED=rich(html)))
    assert (letter.text, letter.html) == ("Hello\nworld", "<p>Grüße")
    item = note(RTF_COMPRESSED=rich(rb"{\rtf1\ansi Some \b bold\b0  text}"))
    del item.properties[mapi.BODY]
    letter = shown(item)
    assert letter.text == "Some bold text"
    (attached,) = letter.attachments
    assert attached.media_type == "application/rtf"
    assert letter.content(attached) == rb"{\rtf1\ansi Some \b bold\b0  text}"
    broken = message_of(note(RTF_COMPRESSED=b"no such thing at all"))
    assert letter_of(broken.data).text == "Hello\nworld"
    assert "rich text" in broken.problems[0]


# --- attachments -----------------------------------------------------------------------------------------------------


def attached(name: str, data: bytes | None = b"x", **more: Value) -> Attached:
    properties: dict[int, Value] = {mapi.ATTACH_LONG_NAME: name, mapi.ATTACH_METHOD: 1}
    return Attached(properties | {getattr(mapi, key): value for key, value in more.items()}, data)


def test_attachments_are_kept_to_the_byte() -> None:
    item = note(HTML=b'<img src="cid:A@x"><img src="pic.png">')
    item.attachments = [
        attached("Übersicht.pdf", bytes(range(256)) * 9, ATTACH_MIME_TYPE="application/pdf"),
        attached("a.png", b"\x89PNG", ATTACH_CONTENT_ID="<a@x>", ATTACH_MIME_TYPE="image/png"),
        attached("pic.png", b"\x89PNG2", ATTACH_LOCATION="pic.png"),
        attached("evil.bin", b"y", ATTACH_MIME_TYPE="multipart/mixed; boundary=x"),
        attached("notes.txt", "Grüße\nx\r\ny\r".encode()),
        attached("", b""),
    ]
    letter = shown(item)
    found = {a.name: (a.media_type, a.inline, letter.content(a)) for a in letter.attachments}
    assert found["Übersicht.pdf"] == ("application/pdf", False, bytes(range(256)) * 9)
    assert found["a.png"] == ("image/png", True, b"\x89PNG")
    assert found["pic.png"] == ("image/png", True, b"\x89PNG2")
    assert found["evil.bin"] == ("application/octet-stream", False, b"y")
    assert found["notes.txt"] == ("text/plain", False, "Grüße\nx\r\ny\r".encode())
    assert len(found) == 6


def test_what_is_not_in_the_file_is_told() -> None:
    item = note()
    item.attachments = [attached("a.doc", None, ATTACH_METHOD=2), attached("b.doc", None)]
    item.attachments[0].properties[0x370D001F] = "\\\\server\\share\\a.doc"
    composed = message_of(item)
    letter = letter_of(composed.data)
    texts = [letter.content(a).decode() for a in letter.attachments]
    assert "\\\\server\\share\\a.doc" in texts[0]
    assert "could not be read" in texts[1]
    assert composed.problems == ("the attachment b.doc could not be read",)


def test_messages_in_messages_have_an_end() -> None:
    item = note()
    for depth in range(DEPTH_MAX + 5):
        item = wrap(item, depth)
    composed = message_of(item)
    assert composed.data.count(b"Content-Type: message/rfc822") == DEPTH_MAX
    assert "nested" in composed.problems[0]
    letter = letter_of(composed.data)
    assert letter.attachments[0].message
    assert letter_of(letter.content(letter.attachments[0])).subject == f"level {DEPTH_MAX + 3}"


def wrap(item: Item, depth: int) -> Item:
    outer = note(SUBJECT=f"level {depth}")
    outer.attachments = [Attached(item=item)]
    return outer


def test_signed_and_encrypted_mail_is_what_was_sent() -> None:
    entity = (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n\tboundary="b"\r\n\r\n'
        b"--b\r\n\r\nsigned text\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nxx\r\n--b--\r\n"
    )
    item = note(MESSAGE_CLASS="IPM.Note.SMIME.MultipartSigned")
    item.attachments = [attached("smime.p7m", entity, ATTACH_MIME_TYPE="multipart/signed")]
    data = message_of(item).data
    assert data.endswith(b"MIME-Version: 1.0\r\n" + entity)
    assert letter_of(data).text == "signed text"
    item = note(MESSAGE_CLASS="IPM.Note.SMIME")
    item.attachments = [
        attached("smime.p7m", b"CMS" * 99, ATTACH_MIME_TYPE="application/pkcs7-mime; smime-type=enveloped-data")
    ]
    found = email.message_from_bytes(message_of(item).data)
    assert found.get_content_type() == "application/pkcs7-mime"
    assert found.get_param("smime-type") == "enveloped-data"
    assert found.get_payload(decode=True) == b"CMS" * 99


# --- whatever comes --------------------------------------------------------------------------------------------------

TAGS = sorted(
    {value for name, value in vars(mapi).items() if name.isupper() and isinstance(value, int) and value > 0xFFFF}
)
VALUES = st.one_of(
    st.integers(-(2**63), 2**64), st.floats(), st.booleans(), st.text(max_size=60), st.binary(max_size=60),
    st.lists(st.text(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4), st.uuids(),
)  # fmt: skip
PROPERTIES = st.dictionaries(st.sampled_from(TAGS), VALUES, max_size=12)
CLASSES = st.sampled_from(
    [
        "IPM.Note", "IPM.Contact", "IPM.DistList", "IPM.Appointment", "IPM.Schedule.Meeting.Resp.Pos", "IPM.Task",
        "IPM.StickyNote", "IPM.Activity", "IPM.Note.SMIME", "IPM.Note.SMIME.MultipartSigned", "REPORT.IPM.Note.NDR", "",
    ]
)  # fmt: skip
NAMED = st.builds(
    Named,
    st.sampled_from([mapi.PSETID_ADDRESS, mapi.PSETID_APPOINTMENT, mapi.PSETID_TASK, mapi.PSETID_MEETING]),
    st.sampled_from(
        [0x8005, 0x8054, 0x820D, 0x820E, 0x8216, 0x8215, 0x8233, 0x825E, 0x8102, 0x8104, 0x8105, 0x23, 0x8083]
    ),
    st.just(0x1F),
)


@given(CLASSES, PROPERTIES, st.dictionaries(NAMED, VALUES, max_size=8), st.lists(PROPERTIES, max_size=3))
def test_any_item_becomes_a_message(
    message_class: str, properties: dict[int, Value], named: dict[Named, Value], rows: list[dict[int, Value]]
) -> None:
    item = Item({**properties, mapi.MESSAGE_CLASS: message_class}, named, rows)
    item.attachments = [Attached(dict(row), b"data") for row in rows]
    composed = message_of(item)
    assert composed == message_of(item)
    assert composed.data.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"").isascii() or "@" in str(properties)
    letter_of(composed.data)


def test_the_corpus_comes_back() -> None:
    """From mail to an item and back: what its reader sees is the same."""
    other: dict[str, list[str]] = {}
    for name, data in corpus():
        letter = letter_of(data)
        if not {field.lower() for field, _ in letter.headers()} & {"from", "to", "subject", "date", "received"}:
            continue  # without a header that is one, the item's own times and names make one
        item = item_of(Message(1, Folder("INBOX", ("INBOX",)), 1, frozenset({SEEN, "Work"}), 10**9, data), letter)
        composed = message_of(item)
        assert composed.flags == {SEEN, "Work"}
        assert composed.internaldate == 10**9
        for part, (before, after) in _differences(letter, letter_of(composed.data)).items():
            other.setdefault(part, []).append(f"{name}: {before!r} {after!r}")
    # One begins with a byte order mark, so that its From is none; the item knows it all the same.
    assert len(other.pop("from_", [])) <= 1
    assert not other


def _differences(one: Letter, other: Letter) -> dict[str, tuple[object, object]]:
    names = ("date", "from_", "to", "cc", "bcc", "message_id", "in_reply_to", "references")
    pairs: dict[str, tuple[object, object]] = {name: (getattr(one, name), getattr(other, name)) for name in names}
    pairs["subject"] = one.subject.split(), other.subject.split()
    pairs["text"] = (one.text or "").strip(), (other.text or "").strip()
    pairs["attachments"] = len(one.attachments), len(other.attachments)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
