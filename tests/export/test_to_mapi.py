"""What of a message goes into which property."""

import base64

import pytest

from mailkeep.export import mapi
from mailkeep.export.imcea import encapsulated
from mailkeep.export.mapi import Item
from mailkeep.export.to_mapi import EMBEDDED_MAX, FLAG_REQUEST, HEADERS_MAX, MACHINE_KEYWORDS, RECIPIENTS_MAX, item_of
from mailkeep.export.writer import Folder, Message
from mailkeep.mail.letter import letter_of
from tests.messages import corpus

ARRIVED = 1_700_000_000


def item(data: bytes | str, *flags: str, uid: int = 1) -> Item:
    raw = data.replace("\n", "\r\n").encode() if isinstance(data, str) else data
    return item_of(Message(1, Folder("INBOX", ("INBOX",)), uid, frozenset(flags), ARRIVED, raw), letter_of(raw))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "prefix", "rest"),
    [
        ("RE: x", "RE: ", "x"),
        ("Re:  FW: x", "Re:  ", "FW: x"),
        ("Antw: x", "", "Antw: x"),
        ("回复: 你好", "回复: ", "你好"),
        ("AW:x", "", "AW:x"),
        ("12: x", "", "12: x"),
        (": x", "", ": x"),
        ("a b: x", "", "a b: x"),
        ("", "", ""),
    ],
)
def test_a_subject_is_split_after_its_prefix(subject: str, prefix: str, rest: str) -> None:
    assert mapi.split_subject(subject) == (prefix, rest)
    put = item(f"Subject: {subject}\n\nx").properties
    assert (put[mapi.SUBJECT_PREFIX], put[mapi.NORMALIZED_SUBJECT]) == mapi.split_subject(str(put[mapi.SUBJECT]))


def test_times_turn_round() -> None:
    for seconds in (0, 1, ARRIVED, -86400, 253_402_300_799, -11_644_473_599):
        assert mapi.unix_time(mapi.filetime(seconds)) == seconds
    assert mapi.filetime(0) == 116_444_736_000_000_000
    assert mapi.unix_time(0) is None and mapi.unix_time(0x0CB34557A3DD4000) is None  # "none" of Outlook: 4501
    assert mapi.filetime(1e30) == mapi.filetime(253_402_300_799) and mapi.filetime(-1e30) > 0


def test_entry_ids_and_lists_of_them_turn_round() -> None:
    ann, bob = ("Änn 🦊", "ann@example.org"), ("", "bob@example.org")
    entries = [mapi.one_off(*ann), mapi.one_off(*bob)]
    assert [mapi.read_one_off(one) for one in mapi.read_entry_list(mapi.entry_list(entries))] == [
        ("Änn 🦊", "SMTP", "ann@example.org"),
        ("", "SMTP", "bob@example.org"),
    ]
    ansi = entries[0][:22] + b"\1\0" + b"Ann\0SMTP\0ann@example.org\0"
    assert mapi.read_one_off(ansi) == ("Ann", "SMTP", "ann@example.org")
    for cut in range(len(entries[0])):
        mapi.read_one_off(entries[0][:cut])
        mapi.read_entry_list(mapi.entry_list(entries)[:cut])
    assert mapi.read_entry_list(b"\xff" * 100) == []


def test_text_is_cut_between_characters() -> None:
    assert mapi.cut("a" * 255) == "a" * 255 and mapi.cut("a" * 300) == "a" * 255
    assert mapi.cut("🦊" * 200) == "🦊" * 127 and mapi.cut("ä" * 255) == "ä" * 255
    assert mapi.clean("a\0b\udce4c\ud83e") == "ab\ufffdc\ufffd"


# --- a message -------------------------------------------------------------------------------------------------------


def test_the_sender_and_whom_it_is_from_are_told_apart() -> None:
    put = item("From: The Boss <boss@example.org>\nSender: Sec <sec@example.org>\n\nx").properties
    assert (put[mapi.REPRESENTING_NAME], put[mapi.REPRESENTING_ADDRESS]) == ("The Boss", "boss@example.org")
    assert (put[mapi.SENDER_NAME], put[mapi.SENDER_SMTP_ADDRESS]) == ("Sec", "sec@example.org")
    assert put[mapi.SENDER_SEARCH_KEY] == b"SMTP:SEC@EXAMPLE.ORG\0"
    assert mapi.read_one_off(bytes(put[mapi.SENDER_ENTRY_ID])) == ("Sec", "SMTP", "sec@example.org")  # type: ignore[arg-type]
    assert mapi.SENDER_NAME not in item("Subject: nobody\n\nx").properties


def test_recipients_have_a_type_and_names_stand_in_one_line() -> None:
    made = item("To: Ann <a@x.org>, b@x.org\nCc: Team: c@x.org;\nBcc: undisclosed:;\nReply-To: R <r@x.org>\n\nx")
    assert [(one[mapi.RECIPIENT_TYPE], one[mapi.DISPLAY_NAME], one[mapi.SMTP_ADDRESS]) for one in made.recipients] == [
        (1, "Ann", "a@x.org"), (1, "b@x.org", "b@x.org"), (2, "c@x.org", "c@x.org"),
    ]  # fmt: skip
    put = made.properties
    assert (put[mapi.DISPLAY_TO], put[mapi.DISPLAY_CC], put[mapi.DISPLAY_BCC]) == (
        "Ann; b@x.org",
        "c@x.org",
        "undisclosed",
    )
    assert put[mapi.REPLY_RECIPIENT_NAMES] == "R"


def test_people_of_an_exchange_server_are_what_they_were() -> None:
    name = "/O=ACME/OU=NA/CN=RECIPIENTS/CN=JDOE"
    address = encapsulated("EX", name)
    made = item(f"From: Jane <{address}>\nTo: {address}, Bob <{encapsulated('FAX', '+49 1')}>\n\nx")
    put = made.properties
    assert (put[mapi.SENDER_NAME], put[mapi.SENDER_ADDRESS_TYPE], put[mapi.SENDER_ADDRESS]) == ("Jane", "EX", name)
    assert mapi.SENDER_SMTP_ADDRESS not in put and put[mapi.SENDER_SEARCH_KEY] == f"EX:{name}\0".encode()
    assert bytes(put[mapi.SENDER_ENTRY_ID]).endswith(name.encode() + b"\0")  # type: ignore[arg-type]
    one, other = made.recipients
    assert (one[mapi.ADDRESS_TYPE], one[mapi.EMAIL_ADDRESS], one.get(mapi.SMTP_ADDRESS)) == ("EX", name, None)
    assert mapi.read_one_off(bytes(other[mapi.ENTRY_ID])) == ("Bob", "FAX", "+49 1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "importance"),
    [
        ("Importance: High", 2), ("X-Priority: 1 (Highest)", 2), ("X-Priority: 5", 0), ("Priority: urgent", 2),
        ("Importance: low\nX-Priority: 1", 0), ("X-Priority: 3", 1), ("X-Other: 1", 1), ("Priority: non-urgent", 0),
    ],
)  # fmt: skip
def test_importance_is_read_from_any_of_its_headers(header: str, importance: int) -> None:
    put = item(f"{header}\nSensitivity: Company-Confidential\n\nx").properties
    assert (put[mapi.IMPORTANCE], put[mapi.PRIORITY], put[mapi.SENSITIVITY]) == (importance, importance - 1, 3)


def test_flags_are_what_outlook_shows_for_them() -> None:
    made = item(
        "\nx", "\\Seen", "\\Answered", "\\Flagged", "\\Draft", "Work", "$label1", "$MDNSent", "NonJunk", "$Junk"
    )
    put = made.properties
    assert put[mapi.MESSAGE_FLAGS] == mapi.FLAG_READ | mapi.FLAG_UNSENT
    assert (put[mapi.FLAG_STATUS], put[mapi.FOLLOWUP_ICON]) == (2, 6)
    assert (put[mapi.ICON_INDEX], put[mapi.LAST_VERB_EXECUTED]) == (mapi.ICON_REPLIED, mapi.VERB_REPLY)
    assert made.named == {
        mapi.CATEGORIES: ["$label1", "Work"],
        MACHINE_KEYWORDS: "$Junk $MDNSent NonJunk",
        FLAG_REQUEST: "Follow up",
    }
    put = item("\nx", "$Forwarded").properties
    assert (put[mapi.ICON_INDEX], put[mapi.LAST_VERB_EXECUTED]) == (mapi.ICON_FORWARDED, mapi.VERB_FORWARD)
    put = item("\nx", "$Forwarded", "\\Answered").properties
    assert (put[mapi.ICON_INDEX], put[mapi.LAST_VERB_EXECUTED]) == (mapi.ICON_REPLIED, mapi.VERB_FORWARD)
    made = item("\nx", "\\Deleted")
    assert made.named == {} and made.properties[mapi.MESSAGE_FLAGS] == 0 and mapi.ICON_INDEX not in made.properties


def test_no_receipt_is_sent_for_an_old_mail() -> None:
    made = item("Disposition-Notification-To: spy@example.org\n\nx")
    assert mapi.READ_RECEIPT_REQUESTED not in made.properties
    assert "spy@example.org" in str(made.properties[mapi.TRANSPORT_MESSAGE_HEADERS])


def test_dates_are_of_the_header_and_of_the_account() -> None:
    put = item("Date: Tue, 20 Jan 2026 12:00:00 +0200\n\nx").properties
    assert mapi.unix_time(int(str(put[mapi.CLIENT_SUBMIT_TIME]))) == 1_768_903_200
    assert put[mapi.DELIVERY_TIME] == put[mapi.CREATION_TIME] == mapi.filetime(ARRIVED)
    assert item("Date: yesterday\n\nx").properties[mapi.CLIENT_SUBMIT_TIME] == mapi.filetime(ARRIVED)


def test_a_conversation_is_the_mails_own_or_that_of_its_topic() -> None:
    index = bytes.fromhex("01dc8a3c5d0a") + bytes(range(16)) + b"12345"
    made = item(f"Subject: Re: a\nThread-Index: {base64.b64encode(index).decode()}\nThread-Topic: A\n\nx").properties
    assert (made[mapi.CONVERSATION_INDEX], made[mapi.CONVERSATION_TOPIC]) == (index, "A")
    one, other = (item(f"Subject: {subject}\n\nx").properties for subject in ("Budget", "RE: budget"))
    assert bytes(one[mapi.CONVERSATION_INDEX])[6:] == bytes(other[mapi.CONVERSATION_INDEX])[6:]  # type: ignore[arg-type]
    for broken in ("x", "====", base64.b64encode(b"\2" * 22).decode(), "A" * 100_000):
        index = bytes(item(f"Thread-Index: {broken}\n\nx").properties[mapi.CONVERSATION_INDEX])  # type: ignore[arg-type]
        assert len(index) == 22 and index[0] == 1


def test_references_are_kept_and_the_oldest_go_first() -> None:
    ids = [f"<{number:020}@example.org>" for number in range(1000)]
    put = item(f"Message-ID: <me@x>\nIn-Reply-To: <a@x>\nReferences: {' '.join(ids)}\n\nx").properties
    assert (put[mapi.INTERNET_MESSAGE_ID], put[mapi.IN_REPLY_TO_ID]) == ("<me@x>", "<a@x>")
    kept = str(put[mapi.INTERNET_REFERENCES]).split()
    assert 900 < len(kept) < 1000 and kept == ids[-len(kept) :]


def test_bodies_are_as_they_are_and_the_page_says_utf_8() -> None:
    page = '<html><head><meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"></head>ä€</html>'
    put = item(f"Content-Type: text/html; charset=utf-8\n\n{page}").properties
    assert put[mapi.HTML] == page.replace("iso-8859-1", "utf-8").encode()
    assert (put[mapi.INTERNET_CODEPAGE], put[mapi.NATIVE_BODY]) == (65001, mapi.NATIVE_HTML)
    assert mapi.BODY not in put
    put = item("Content-Type: text/plain; charset=utf-8\n\na\nä\n").properties
    assert (put[mapi.BODY], put[mapi.NATIVE_BODY]) == ("a\r\nä\r\n", mapi.NATIVE_TEXT)


def test_a_header_block_that_is_too_long_ends_with_a_line() -> None:
    made = item(b"Subject: x\r\n" + b"X-Y: 0123456789\r\n" * 100_000 + b"\r\nx")
    headers = str(made.properties[mapi.TRANSPORT_MESSAGE_HEADERS])
    assert HEADERS_MAX - 20 < len(headers) <= HEADERS_MAX and headers.endswith("9\r\n")


# --- attachments -----------------------------------------------------------------------------------------------------


def with_parts(*parts: str, kind: str = "mixed") -> str:
    return f"Content-Type: multipart/{kind}; boundary=b\n\n" + "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"


def test_what_the_page_shows_is_hidden_from_the_list() -> None:
    picture = "Content-Type: image/png; name={0}.png\nContent-ID: <{0}@x>\nContent-Disposition: inline\n\nx"
    page = 'Content-Type: text/html\n\n<img src="cid:shown@x">'
    shown, other = item(with_parts(page, picture.format("shown"), picture.format("other"), kind="related")).attachments
    assert shown.properties[mapi.ATTACHMENT_HIDDEN] is True and shown.properties[mapi.ATTACH_FLAGS] == 4
    assert shown.properties[mapi.ATTACH_CONTENT_ID] == "shown@x"
    assert mapi.ATTACHMENT_HIDDEN not in other.properties


@pytest.mark.parametrize(
    ("name", "long", "short", "extension"),
    [
        ("report.pdf", "report.pdf", "REPORT.PDF", ".pdf"),
        ("annual report.pdf", "annual report.pdf", "ANNUAL~1.PDF", ".pdf"),
        ("../../etc/passwd", ".._.._etc_passwd", "__ETC_~1", ""),
        ("CON:", "CON_", "CON_", ""),
        ("a" * 300 + ".docx", "a" * 214 + ".docx", "AAAAAA~1.DOC", ".docx"),
        ("图片.png", "图片.png", "FILE~1.PNG", ".png"),
        ("evil\u202egpj.exe", "evil_gpj.exe", "EVIL_GPJ.EXE", ".exe"),
        ("Makefile", "Makefile", "MAKEFILE", ""),
    ],
)
def test_names_of_attachments_can_be_saved(name: str, long: str, short: str, extension: str) -> None:
    word = base64.b64encode(name.encode()).decode()
    part = f'Content-Type: application/x-y\nContent-Disposition: attachment; filename="=?utf-8?B?{word}?="\n\nx'
    put = item(with_parts("\nbody", part)).attachments[0].properties
    assert (put[mapi.ATTACH_LONG_NAME], put[mapi.ATTACH_NAME]) == (long, short)
    assert put[mapi.ATTACH_EXTENSION] == extension


def forwarded(depth: int) -> bytes:
    data = b"Subject: innermost\r\n\r\nx"
    for level in range(depth):
        data = b"Subject: level %d\r\nContent-Type: message/rfc822\r\n\r\n" % level + data
    return data


def test_messages_inside_are_items_down_to_a_depth() -> None:
    made = item(forwarded(30))
    depth = 0
    while made.attachments[0].item is not None:
        assert made.attachments[0].data is None
        assert made.attachments[0].properties[mapi.ATTACH_METHOD] == mapi.EMBEDDED_MESSAGE
        assert made.properties[mapi.MESSAGE_FLAGS] != 0
        made = made.attachments[0].item
        depth += 1
    assert depth == EMBEDDED_MAX - 1
    assert made.attachments[0].data == forwarded(30 - EMBEDDED_MAX)
    assert made.attachments[0].properties[mapi.ATTACH_MIME_TYPE] == "message/rfc822"


def test_encrypted_mail_is_what_outlook_decrypts_and_signed_mail_stays_readable() -> None:
    body = base64.encodebytes(b"secret").decode()
    head = "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m"
    made = item(f"{head}\nContent-Transfer-Encoding: base64\n\n{body}")
    assert made.properties[mapi.MESSAGE_CLASS] == "IPM.Note.SMIME"
    assert [one.data for one in made.attachments] == [b"secret"]
    signature = "Content-Type: application/pkcs7-signature; name=smime.p7s\n\nx"
    made = item(with_parts("Content-Type: text/plain\n\nsigned", signature, kind="signed; protocol=x"))
    assert made.properties[mapi.MESSAGE_CLASS] == "IPM.Note"
    assert str(made.properties[mapi.BODY]).strip() == "signed"
    assert made.attachments[0].properties[mapi.ATTACH_LONG_NAME] == "smime.p7s"


# --- always ----------------------------------------------------------------------------------------------------------


def texts(content: Item) -> list[str]:
    found = [value for put in (content.properties, *content.recipients) for value in put.values()]
    for attached in content.attachments:
        found += attached.properties.values()
        found += texts(attached.item) if attached.item is not None else []
    return [value for value in found if isinstance(value, str)]


def test_no_mail_is_too_ugly() -> None:
    for name, data in corpus():
        made = item(data, "Work")
        for text in texts(made):
            assert "\0" not in text, name
            text.encode("utf-16-le")
        assert len(str(made.properties[mapi.SUBJECT]).encode("utf-16-le")) <= 510
        assert len(made.recipients) <= RECIPIENTS_MAX
        assert made == item(data, "Work"), name


def test_equal_messages_in_an_account_have_different_search_keys() -> None:
    one, other = (item("Message-ID: <a@x>\n\nx", uid=uid).properties[mapi.SEARCH_KEY] for uid in (1, 2))
    assert one != other and isinstance(one, bytes) and len(one) == 16
