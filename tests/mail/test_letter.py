"""What a reader sees in a message."""

import base64
import email
import email.policy
import re
from datetime import timedelta
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail.letter import CORRESPONDENTS_MAX, TEXT_MAX, Letter, letter_of
from tests import messages
from tests.messages import crlf

PNG = b"\x89PNG\r\n\x1a\n picture"


def letter(text: str) -> Letter:
    return letter_of(crlf(text.encode()))


def multipart(subtype: str, *parts: str, more: str = "") -> str:
    mark = f"={subtype}{len(parts)}{abs(hash(parts)) % 1000}="
    body = "".join(f"--{mark}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/{subtype}; boundary="{mark}"{more}\n\n{body}--{mark}--\n'


PLAIN = "Content-Type: text/plain; charset=utf-8\n\nplain ü"
HTML = "Content-Type: text/html; charset=utf-8\n\n<p>rich ü</p>"
IMAGE = (
    "Content-Type: image/png; name=a.png\nContent-ID: <a@x>\nContent-Transfer-Encoding: base64\n\n"
    + base64.b64encode(PNG).decode()
)
PDF = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=b.pdf\n\n%PDF"
FOOTER = "Content-Type: text/plain\n\nfooter"
INNER = "Content-Type: message/rfc822\n\nSubject: =?utf-8?q?inn=C3=A9r?=\n\ninside"


def outline(found: Letter) -> tuple[str | None, str | None, list[tuple[str, str, bool]]]:
    attached = [(one.name, one.media_type, one.inline) for one in found.attachments]
    return found.text, found.html, attached


CASES = {
    "plain": (PLAIN, "plain ü", None, []),
    "html": (HTML, None, "<p>rich ü</p>", []),
    "no body": ("Content-Type: application/pdf\n\nx", None, None, [("part-1.pdf", "application/pdf", False)]),
    "alternative": (multipart("alternative", PLAIN, HTML), "plain ü", "<p>rich ü</p>", []),
    "alternative, two plain": (multipart("alternative", PLAIN, FOOTER), "plain ü", None, []),
    "alternative with invitation": (
        multipart("alternative", PLAIN, HTML, "Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR"),
        "plain ü",
        "<p>rich ü</p>",
        [("invite.ics", "text/calendar", False)],
    ),
    "alternative with a form for programs": (
        multipart("alternative", PLAIN, "Content-Type: text/x-amp-html\n\n<html amp4email>", HTML),
        "plain ü",
        "<p>rich ü</p>",
        [],
    ),
    "related": (
        multipart("related", HTML.replace("rich", "<img src='cid:a@x'>rich"), IMAGE),
        None,
        "<p><img src='cid:a@x'>rich ü</p>",
        [("a.png", "image/png", True)],
    ),
    "related, not referred to": (
        multipart("related", HTML, IMAGE),
        None,
        "<p>rich ü</p>",
        [("a.png", "image/png", False)],
    ),
    "related with start": (
        multipart("related", IMAGE, HTML.replace("\n\n", "\nContent-ID: <root>\n\n"), more='; start="<root>"'),
        None,
        "<p>rich ü</p>",
        [("a.png", "image/png", False)],
    ),
    "alternative of plain and related, in mixed": (
        multipart("mixed", multipart("alternative", PLAIN, multipart("related", HTML, IMAGE)), PDF),
        "plain ü",
        "<p>rich ü</p>",
        [("a.png", "image/png", False), ("b.pdf", "application/pdf", False)],
    ),
    "text, picture, text": (
        multipart("mixed", PLAIN, IMAGE, FOOTER),
        "plain ü\nfooter",
        None,
        [("a.png", "image/png", False)],
    ),
    "html and a list's footer": (
        multipart("mixed", HTML, FOOTER),
        "rich ü\nfooter",
        '<p>rich ü</p>\n<div style="white-space: pre-wrap">footer</div>',
        [],
    ),
    "html, picture, html": (
        multipart("mixed", HTML, IMAGE, HTML.replace("rich", "more")),
        None,
        '<p>rich ü</p>\n<div><img src="cid:a@x" alt="a.png"></div>\n<p>more ü</p>',
        [("a.png", "image/png", True)],
    ),
    "alternative of plain and html, picture, html": (
        multipart("alternative", PLAIN, multipart("mixed", HTML, IMAGE, HTML)),
        "plain ü",
        '<p>rich ü</p>\n<div><img src="cid:a@x" alt="a.png"></div>\n<p>rich ü</p>',
        [("a.png", "image/png", True)],
    ),
    "signed": (
        multipart("signed", PLAIN, "Content-Type: application/pgp-signature\n\nsig"),
        "plain ü",
        None,
        [("signature.asc", "application/pgp-signature", False)],
    ),
    "encrypted": (
        multipart("encrypted", "Content-Type: application/pgp-encrypted\n\nVersion: 1", PLAIN),
        None,
        None,
        [("version.txt", "application/pgp-encrypted", False), ("part-2.txt", "text/plain", False)],
    ),
    "forwarded": (multipart("mixed", PLAIN, INNER), "plain ü", None, [("innér.eml", "message/rfc822", False)]),
    "digest": (
        multipart("digest", "\nSubject: one\n\n1", "\nSubject: two\n\n2"),
        None,
        None,
        [("one.eml", "message/rfc822", False), ("two.eml", "message/rfc822", False)],
    ),
    "report": (
        multipart(
            "report",
            PLAIN,
            "Content-Type: message/delivery-status\n\nAction: failed",
            "Content-Type: text/rfc822-headers\n\nSubject: x",
        ),
        "plain ü",
        None,
        [("delivery-status.txt", "message/delivery-status", False), ("headers.txt", "text/rfc822-headers", False)],
    ),
    "text that is attached": (
        multipart("mixed", PLAIN, "Content-Type: text/plain; name=notes.txt\n\nnotes"),
        "plain ü",
        None,
        [("notes.txt", "text/plain", False)],
    ),
    "only text, attached": (
        "Content-Type: text/plain\nContent-Disposition: attachment; filename=x.txt\n\nx",
        None,
        None,
        [("x.txt", "text/plain", False)],
    ),
    "winmail.dat": (
        multipart("mixed", PLAIN, "Content-Type: application/ms-tnef\n\nx"),
        "plain ü",
        None,
        [("winmail.dat", "application/ms-tnef", False)],
    ),
    "uuencoded inside text": ("\nbegin 644 a\n#0V%T\n`\nend\n", "begin 644 a\n#0V%T\n`\nend\n", None, []),
    "no parts": ("Content-Type: multipart/mixed; boundary=b\n\nlost", "lost", None, []),
    "blank plain form": (
        multipart("alternative", "Content-Type: text/plain\n\n \n", HTML),
        None,
        "<p>rich ü</p>",
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_body_and_attachments(name: str) -> None:
    written, text, html, attached = CASES[name]
    found = letter("From: a@x.org\nMIME-Version: 1.0\n" + written)
    assert outline(found) == (text and text.replace("\n", "\n"), html, attached)


CHARSETS = [
    ("text/plain; charset=iso-8859-1", "Grüße".encode("latin-1"), "Grüße", None),
    ("text/plain; charset=us-ascii", "Grüße 你好".encode(), "Grüße 你好", None),
    ("text/plain", "Grüße 你好".encode(), "Grüße 你好", None),
    ("text/plain", "Grüße".encode("cp1252"), "Grüße", None),
    ("text/plain; charset=iso-8859-1", "Grüße 你好".encode(), "Grüße 你好", "charset wrong: iso-8859-1, it is utf-8"),
    ("text/plain; charset=x-klingon", "Grüße".encode(), "Grüße", "charset unknown: x-klingon"),
    ("text/plain; charset=utf-8", "Grüße, ".encode() * 3 + b"\xff!", "Grüße, " * 3 + "\ufffd!", "text damaged"),
    ("text/plain; charset=utf-16", "häl 你".encode("utf-16"), "häl 你", None),
    ("text/plain; charset=utf-16", "häl wide".encode("utf-16-le"), "häl wide", None),
    ("text/plain; charset=utf-16", "häl wide".encode("utf-16-be"), "häl wide", None),
    ("text/plain; charset=utf-16", b"not wide at all", "not wide at all", "charset wrong: utf-16"),
    ("text/plain; charset=utf-8", b"\xef\xbb\xbfmarked", "marked", None),
    ("text/plain; charset=gb2312", "中文 镕".encode("gb18030"), "中文 镕", None),
    ("text/plain; charset=iso-2022-jp", "日本語".encode("iso2022_jp"), "日本語", None),
    ("text/plain", "日本語".encode("iso2022_jp"), "日本語", None),
    # As Windows writes it: circled numbers, kana of half width, a variant in a name.
    ("text/plain; charset=iso-2022-jp", b"a\x1b$B-!-jF|\x1b(I1\x1b$B|b\x1b(Bz", "a①㈱日ｱ髙z", None),
    ("text/plain; charset=unicode-1-1-utf-7", b"+T2BZfQ-", "你好", None),
    ("text/plain; charset=zip", b"x", "x", None),
    ("text/html", '<meta charset="iso-8859-2">č'.encode("iso-8859-2"), '<meta charset="iso-8859-2">č', None),
    (
        "text/html; charset=us-ascii",
        b"<META HTTP-EQUIV=x CONTENT='text/html; charset=koi8-r'>" + "ж".encode("koi8-r"),
        "<META HTTP-EQUIV=x CONTENT='text/html; charset=koi8-r'>ж",
        None,
    ),
    ("text/html; charset=utf-8", "<meta charset=latin1>ü".encode(), "<meta charset=latin1>ü", None),
    ("text/html", b"<meta charset=utf-16>" + "ü".encode(), "<meta charset=utf-16>ü", None),
    ("text/plain", b"a\0b\r\nc\rd", "ab\nc\nd", None),
]


@pytest.mark.parametrize(("kind", "raw", "text", "problem"), CHARSETS)
def test_charsets(kind: str, raw: bytes, text: str, problem: str | None) -> None:
    encoded = base64.encodebytes(raw).replace(b"\n", b"\r\n")
    found = letter_of(b"Content-Type: " + kind.encode() + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded)
    assert (found.html if "html" in kind else found.text) == text
    assert found.problems == (() if problem is None else (problem,))


FLOWED = [
    ("a \nb \nc\nd", "a b c\nd", False),
    ("> a \n> b\nc \nd", "> a b\nc d", False),
    ("> a \n>> b", "> a\n>> b".replace("> a", "> a "), False),
    (" From me\n >not quoted", "From me\n>not quoted", False),
    ("text \n-- \nname", "text \n-- \nname", False),
    ("日本 \n語", "日本語", True),
    ("open ", "open ", False),
    ("\n\n", "\n\n", False),
]


@pytest.mark.parametrize(("written", "text", "delsp"), FLOWED)
def test_format_flowed(written: str, text: str, delsp: bool) -> None:
    kind = "Content-Type: text/plain; charset=utf-8; format=flowed" + ("; delsp=yes" if delsp else "")
    assert letter(f"{kind}\n\n{written}").text == text


NAMES = [
    (b'Content-Type: application/pdf; name="a b.pdf"', "a b.pdf"),
    (b"Content-Type: application/pdf; name*=utf-8''%C3%BC.pdf", "ü.pdf"),
    (b"Content-Type: application/pdf; name*0*=utf-8''a%C3; name*1*=%BC; name*2=b.pdf", "aüb.pdf"),
    (b'Content-Type: application/pdf; name="=?utf-8?B?w7w=?=.pdf"', "ü.pdf"),
    ('Content-Type: application/pdf; name="ü.pdf"'.encode("latin-1"), "ü.pdf"),
    ('Content-Type: application/pdf; name="ü.pdf"'.encode(), "ü.pdf"),
    (b'Content-Type: application/pdf; name="a.pdf"\r\nContent-Disposition: attachment; filename=b.pdf', "b.pdf"),
    (b'Content-Type: application/pdf; name="..\\..\\x\0\x07.pdf"', "....x \ufffd.pdf"),
    (b"Content-Type: image/png", "part-1.png"),
    (b"Content-Type: application/x-what", "part-1.bin"),
    (b"Content-Type: text/calendar", "invite.ics"),
    (b"Content-Type: message/rfc822", "message.eml"),
    (b"Content-Type: application/pkcs7-mime", "smime.p7m"),
]


@pytest.mark.parametrize(("head", "name"), NAMES)
def test_names(head: bytes, name: str) -> None:
    (attachment,) = letter_of(head + b"\r\nContent-Disposition: attachment\r\n\r\nx").attachments[:1]
    if b"\0" in head:
        assert not re.search(r"[\x00-\x1f]", attachment.name)
    else:
        assert attachment.name == name


PEOPLE = [
    ("Ann <a@x.org>, b@x.org", [("Ann", "a@x.org"), ("", "b@x.org")]),
    ("=?utf-8?q?J=C3=B6rg?= <j@x.org>", [("Jörg", "j@x.org")]),
    ("=?utf-8?Q?Doe,_J=C3=B6rg?= <j@x.org>", [("Doe, Jörg", "j@x.org")]),
    ('"=?utf-8?B?SsO2cmc=?=" <j@x.org>', [("Jörg", "j@x.org")]),
    ("undisclosed-recipients:;", [("undisclosed-recipients", "")]),
    ("Team: a@x.org, B <b@x.org>;, c@x.org", [("", "a@x.org"), ("B", "b@x.org"), ("", "c@x.org")]),
    ("nobody", [("nobody", "")]),
    ("", []),
    ("a@x.org (Ann Other)", [("Ann Other", "a@x.org")]),
    ("=?utf-8?q?evil=0D=0ABcc:_x?= <a@x.org>", [("evil Bcc: x", "a@x.org")]),
]


@pytest.mark.parametrize(("written", "people"), PEOPLE)
def test_people(written: str, people: list[tuple[str, str]]) -> None:
    assert [tuple(person) for person in letter(f"To: {written}\n\nx").to] == people


def test_the_header() -> None:
    found = letter(
        "Date: Tue, 20 Jan 2026 10:00:00 +0530\nSubject: =?utf-8?q?a=0Ab?=\n\tc\nMessage-ID: <1@x>\n"
        "In-Reply-To: <0@x>\nReferences: <8@x>\n <9@x>\nX-One: =?utf-8?q?=C3=BC?=\nx-one: two\n\nbody"
    )
    assert found.date is not None
    assert found.date.utcoffset() == timedelta(hours=5, minutes=30)
    assert found.subject == "a b c"
    assert (found.message_id, found.in_reply_to, found.references) == ("<1@x>", "<0@x>", ("<8@x>", "<9@x>"))
    assert found.header("X-ONE") == "ü"
    assert found.header("absent") is None
    assert [name for name, _ in found.headers()][-2:] == ["X-One", "x-one"]
    assert letter("Date: yesterday\n\nx").date is None


def test_references_of_the_body() -> None:
    page = (
        "<img src='cid:a%40x'><td background=b.gif style='background:url(http://x/c.gif)'><img src='d.gif'>"
        "<img src=e.gif>"
    )
    parts = [
        f"Content-Type: image/gif\n{field}\n\nGIF"
        for field in (
            "Content-ID: <a@x>",
            "Content-Location: b.gif",
            "Content-Location: http://x/c.gif",
            "X: y",
            "Content-Location: file:///C:\\Temp\\e.gif",
        )
    ]
    found = letter("MIME-Version: 1.0\n" + multipart("related", f"Content-Type: text/html\n\n{page}", *parts))
    assert [one.inline for one in found.attachments] == [True, True, True, False, True]
    assert found.find("CID:a@x") is found.attachments[0]
    assert found.find(" b.gif") is found.attachments[1]
    assert found.find("cid:none") is None


def test_content_is_decoded_leniently() -> None:
    def content(encoding: str, body: bytes) -> bytes:
        head = f"Content-Type: application/x\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        found = letter_of(head.encode() + body)
        return found.content(found.attachments[0])

    assert content("base64", b"YW\r\nJj!") == b"abc"
    assert content("quoted-printable", b"a=3Db=\r\nc=zz") == b"a=bc=zz"
    assert content("x-uuencode", b"begin 644 a\r\n#0V%T\r\n`\r\nend\r\n") == b"Cat"
    assert content("x-unheard-of", b"as it is") == b"as it is"


def test_text_that_is_not_base64_though_it_says_so() -> None:
    found = letter("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nthese are plain words of a letter\n")
    assert found.text == "these are plain words of a letter\n"
    assert found.problems == ("not base64, though it says so",)


def test_long_text_is_cut_at_a_line() -> None:
    found = letter_of(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "é y\r\n".encode() * (TEXT_MAX // 5))
    assert found.text is not None
    assert TEXT_MAX // 2 < len(found.text) <= TEXT_MAX
    assert found.text.endswith("é y\n")
    assert found.problems == ("text cut at 8 MiB",)


MULTI = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
HOSTILE = {
    "encoded words": b"Subject: " + b"=?utf-8?Q?=C3=BC?= " * 50_000 + b"\r\n\r\n",
    "encoded addresses": b"To: " + b"=?utf-8?Q?=C3=BC,?= <a@b>, " * 40_000 + b"\r\n\r\n",
    "open words": b"From: " + b"=?utf-8?Q?" * 100_000 + b"\r\n\r\n",
    "parts": MULTI + b"--b\r\n\r\ntext\r\n" * 12_000,
    "parts of both kinds": MULTI + b"--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n" * 5_000,
    "sources": b"Content-Type: text/html\r\n\r\n" + b'src="' * 400_000,
    "flowed": b"Content-Type: text/plain; format=flowed\r\n\r\n" + b"a \r\n" * 500_000,
    "angles": b"References: " + b"<" * 500_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_ends_soon(name: str) -> None:
    # What takes more than linear time here does not end within the run at all.
    letter_of(HOSTILE[name])


def check(data: bytes) -> Letter:
    found = letter_of(data)
    assert [one.number for one in found.attachments] == list(range(1, len(found.attachments) + 1))
    for text in (found.subject, found.text or "", found.html or "", *(one.name for one in found.attachments)):
        text.encode("utf-8")
        assert "\0" not in text
    assert all(one.name for one in found.attachments)
    for one in found.attachments:
        found.content(one)
    assert len(found.headers()) >= 0
    return found


def test_the_corpus() -> None:
    for _, data in messages.corpus():
        check(data)


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(st.sampled_from([data for _, data in messages.ugly() if len(data) < 5000]), st.data())
def test_damaged_mail(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data)))
    check(data[:at] + draw.draw(st.binary(max_size=5)) + data[at + draw.draw(st.integers(0, 40)) :])


def test_agrees_with_the_standard_library() -> None:
    """On mail that both can read: the same attachments, byte for byte, and the same plain text."""
    compared = 0
    for data in messages.bulk(400, seed=7):
        theirs = email.message_from_bytes(data, policy=email.policy.compat32)
        ours = letter_of(data)
        leaves: list[Message] = [part for part in theirs.walk() if not part.is_multipart()]
        wanted = [part for part in leaves if part.get_content_type() not in ("text/plain", "text/html")]
        assert [one.name for one in ours.attachments] == [part.get_filename() for part in wanted]
        assert [ours.content(one) for one in ours.attachments] == [part.get_payload(decode=True) for part in wanted]
        plain = next(part for part in leaves if part.get_content_type() == "text/plain").get_payload(decode=True)
        assert isinstance(plain, bytes)
        assert ours.text is not None
        assert ours.text.strip() == plain.decode().replace("\r\n", "\n").strip()
        compared += len(wanted)
    assert compared > 20


def test_people_beyond_the_limit_are_told() -> None:
    data = (
        b"To: " + b",\r\n ".join(b"p%d@example.org" % number for number in range(CORRESPONDENTS_MAX + 5)) + b"\r\n\r\n"
    )
    letter = letter_of(data)
    assert len(letter.to) == CORRESPONDENTS_MAX
    assert letter.problems == ("people cut at 10,000 of a field",)
