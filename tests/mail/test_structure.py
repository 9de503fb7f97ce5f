"""Finished wire bytes of ENVELOPE, BODY and BODYSTRUCTURE; sections; what the store indexes."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail.header import header_end
from mailkeep.mail.mime import Part, scan
from mailkeep.mail.structure import (
    Span,
    decode_transfer,
    find_section,
    parse_day,
    render,
    seven_bit,
    string,
)
from tests import messages
from tests.structure_compare import compare_structures, parse


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


# The message and the answer of RFC 9051 section 8.
EXAMPLE = """Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev2 WG mtg summary and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.edu>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

body
"""
EXAMPLE_ENVELOPE = (
    b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev2 WG mtg summary and minutes" '
    b'(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) '
    b'(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) '
    b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
    b'"<B27397-0100000@cac.washington.edu>")'
)


def test_the_example_of_rfc_9051() -> None:
    rendered = render(crlf(EXAMPLE))
    assert rendered.envelope == EXAMPLE_ENVELOPE
    assert rendered.envelope_utf8 is None
    assert rendered.body == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1)'
    assert rendered.bodystructure == rendered.body[:-1] + b" NIL NIL NIL NIL)"
    assert rendered.size == len(crlf(EXAMPLE))
    assert rendered.header_size == len(crlf(EXAMPLE)) - 6


# The two parts of RFC 9051 section 7.5.2 (BODYSTRUCTURE): text, then a text attachment with an id and a description.
ATTACHMENT = """Content-Type: multipart/mixed; boundary="x y"

--x y

one
--x y
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"
Content-ID: <960723163407.20117h@cac.washington.edu>
Content-Description: Compiler diff
Content-Transfer-Encoding: BASE64
Content-Disposition: attachment; filename="cc.diff"
Content-Language: en, fr
Content-Location: http://a/b
Content-MD5: Q2hlY2s=

dHdv
dHdv
--x y--
"""


def test_attachment() -> None:
    rendered = render(crlf(ATTACHMENT))
    assert rendered.body == (
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'
        b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") "<960723163407.20117h@cac.washington.edu>" '
        b'"Compiler diff" "BASE64" 10 1) "mixed")'
    )
    assert rendered.bodystructure == (
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)'
        b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") "<960723163407.20117h@cac.washington.edu>" '
        b'"Compiler diff" "BASE64" 10 1 "Q2hlY2s=" ("attachment" ("filename" "cc.diff")) ("en" "fr") "http://a/b") '
        b'"mixed" ("boundary" "x y") NIL NIL NIL)'
    )


def test_a_message_inside() -> None:
    rendered = render(crlf("Content-Type: message/rfc822\n\nSubject: in\nFrom: a@b\n\nx\ny\n"))
    who = b'((NIL NIL "a" "b"))'
    envelope = b'(NIL "in" %b %b %b NIL NIL NIL NIL NIL)' % (who, who, who)
    text = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2'
    assert rendered.body == b'("message" "rfc822" NIL NIL NIL "7bit" 32 %b %b) 5)' % (envelope, text)
    extended = b'("message" "rfc822" NIL NIL NIL "7bit" 32 %b %b NIL NIL NIL NIL) 5 NIL NIL NIL NIL)'
    assert rendered.bodystructure == extended % (envelope, text)


def test_a_multipart_without_parts() -> None:
    # The grammar wants at least one part (RFC 9051 section 9, body-type-mpart).
    rendered = render(b"Content-Type: multipart/mixed\r\n\r\nx")
    assert rendered.body == b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")'


def test_missing_sender_and_reply_to_are_from() -> None:
    rendered = render(b"From: a@b\r\nSender: \r\nReply-To: c@d\r\n\r\n")
    a, c = b'((NIL NIL "a" "b"))', b'((NIL NIL "c" "d"))'
    assert rendered.envelope == b"(NIL NIL %b %b %b NIL NIL NIL NIL NIL)" % (a, a, c)


def test_raw_8bit() -> None:
    rendered = render("Subject: Die Frösche  und die Hasen\r\nFrom: Jürgen Öl <jü@bücher.example>\r\n\r\n".encode())
    assert rendered.envelope.isascii()
    assert b'"Die =?utf-8?B?RnLDtnNjaGU=?= und die Hasen"' in rendered.envelope
    assert b'("=?utf-8?B?SsO8cmdlbiDDlmw=?=" NIL "=?utf-8?B?asO8?=" "xn--bcher-kva.example")' in rendered.envelope
    assert rendered.envelope_utf8 is not None
    assert parse(rendered.envelope_utf8)[1] == "Die Frösche und die Hasen".encode()  # type: ignore[index]
    assert rendered.subject == "Die Frösche  und die Hasen"
    latin = render("Subject: Frösche im Teich\r\n\r\n".encode("latin-1"))
    assert latin.subject == "Frösche im Teich"
    assert render("Content-Type: a/b; name=é\r\n\r\n".encode()).bodystructure.isascii()


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (b"", b'""'),
        (b"a b", b'"a b"'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        (b"\xc3\xa9", b"{2}\r\n\xc3\xa9"),
        (b"x" * 5000, b"{5000}\r\n" + b"x" * 5000),
    ],
)
def test_strings(value: bytes, wire: bytes) -> None:
    assert string(value) == wire


@given(st.text(max_size=300))
def test_encoded_words_are_short_and_say_the_same(text: str) -> None:
    from mailkeep.mail.header import decode_words

    value = " ".join(text.replace("=?", "").replace("\0", "").split()).encode("utf-8", "replace")
    wire = seven_bit(value)
    assert wire.isascii()
    assert all(len(word) <= 75 for word in wire.split() if word.startswith(b"=?utf-8?B?"))
    assert decode_words(wire) == value.decode()


DAYS = [
    (b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)", date(1996, 7, 17)),
    (b"1 Jan 70 00:00 GMT", date(1970, 1, 1)),
    (b"1 Jan 49 00:00 GMT", date(2049, 1, 1)),
    (b"Fri, 31 Dec 1999 23:59:59 -1200", date(1999, 12, 31)),
    (b"Tue,  3 Feb\r\n 2015 00:00:00 +0000", date(2015, 2, 3)),
    (b"Tue Feb  3 10:11:12 2015", date(2015, 2, 3)),
    (b"2015-02-03T10:11:12Z", date(2015, 2, 3)),
    (b"3-Feb-2015", date(2015, 2, 3)),
    (b"31 Feb 2015", None),
    (b"1 Foo 2015", None),
    (b"", None),
    (b"yesterday", None),
]


@pytest.mark.parametrize(("value", "day"), DAYS)
def test_sent_day(value: bytes, day: date | None) -> None:
    assert parse_day(value) == (None if day is None else day.toordinal())


def test_thread_refs() -> None:
    rendered = render(b"Message-ID: <c@x>\r\nReferences: <a@x>\r\n\t<b@x>\r\nIn-Reply-To: <b@x> (from me)\r\n\r\n")
    assert rendered.message_id == "c@x"
    assert rendered.thread_refs == ("a@x", "b@x", "c@x")
    assert render(b"\r\n").message_id is None


@pytest.mark.parametrize(
    ("message", "preview"),
    [
        ("Subject: x\n\nHello\n  there\n", "Hello there"),
        ("\nOn Monday A wrote:\n> old\n\nNew\n", "New"),
        ("Content-Type: text/html\n\n<style>x</style><p>Hello &amp; <b>you</b></p>", "Hello & you"),
        ("Content-Transfer-Encoding: base64\nContent-Type: text/plain; charset=utf-8\n\nw6k=\n", "é"),
        ("Content-Type: image/png\n\nx", ""),
        (ATTACHMENT, "one"),
    ],
)
def test_preview(message: str, preview: str) -> None:
    assert render(crlf(message)).preview == preview


# ---- sections

NESTED = crlf(
    "Subject: top\nContent-Type: multipart/mixed; boundary=b\n\n"
    "--b\nContent-Transfer-Encoding: quoted-printable\n\none=20\n"
    "--b\nContent-Type: message/rfc822\n\nSubject: in\n\ntwo\n"
    "--b\nContent-Type: message/rfc822\n\nSubject: deep\nContent-Type: multipart/alternative; boundary=i\n\n"
    "--i\n\nthree\n--i\nContent-Type: image/png\nContent-Transfer-Encoding: x-odd\n\nfour\n--i--\n"
    "--b--\n"
)

SECTIONS = [
    ((), "HEADER", b"Subject: top\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", "7bit"),
    ((1,), "", b"one=20", "quoted-printable"),
    ((1,), "MIME", b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", "7bit"),
    ((1,), "HEADER", None, ""),
    ((1, 1), "", None, ""),
    ((2,), "", b"Subject: in\r\n\r\ntwo", "7bit"),
    ((2,), "HEADER", b"Subject: in\r\n\r\n", "7bit"),
    ((2,), "TEXT", b"two", "7bit"),
    ((2,), "MIME", b"Content-Type: message/rfc822\r\n\r\n", "7bit"),
    ((2, 1), "", b"two", "7bit"),
    ((2, 2), "", None, ""),
    ((2, 1, 1), "", None, ""),
    ((3, 1), "", b"three", "7bit"),
    ((3, 2), "", b"four", "unknown"),
    ((3, 2), "MIME", b"Content-Type: image/png\r\nContent-Transfer-Encoding: x-odd\r\n\r\n", "7bit"),
    ((3, 3), "", None, ""),
    ((4,), "", None, ""),
    ((0,), "", None, ""),
]


@pytest.mark.parametrize(("path", "text", "found", "encoding"), SECTIONS)
def test_sections(path: tuple[int, ...], text: str, found: bytes | None, encoding: str) -> None:
    span = find_section(render(NESTED).sections, path, text)
    if found is None:
        assert span is None
    else:
        assert span is not None
        assert NESTED[span.start : span.start + span.length] == found
        assert span.encoding == encoding


def test_sections_of_a_message_without_parts() -> None:
    data = b"A: b\r\n\r\nbody"
    sections = render(data).sections
    assert find_section(sections, (), "") == Span(0, 12, "7bit")
    assert find_section(sections, (), "TEXT") == find_section(sections, (1,), "") == Span(8, 4, "7bit")
    assert find_section(sections, (2,), "") is None
    assert find_section(sections, (1, 1), "") is None


def leaves(part: Part, path: tuple[int, ...], is_root: bool) -> list[tuple[tuple[int, ...], Part]]:
    """Each part that has a number, and that number, by the text of RFC 9051 section 6.4.5.1."""
    if part.is_multipart:
        numbered = [((*path, number), child) for number, child in enumerate(part.children, 1)]
    elif is_root:
        numbered = [((*path, 1), part)]
    else:
        return []
    found = list(numbered)
    for number, child in numbered:
        if child.is_message:
            found += leaves(child.children[0], number, True)
        elif child is not part:
            found += leaves(child, number, False)
    return found


@pytest.mark.parametrize("name", [name for name, _ in messages.corpus()])
def test_sections_of_the_corpus_are_its_parts(name: str) -> None:
    data = dict(messages.corpus())[name]
    root, sections = scan(data), render(data).sections
    assert find_section(sections, (), "HEADER") == Span(0, header_end(data), "7bit")
    for path, part in leaves(root, (), True):
        span = find_section(sections, path, "")
        assert span is not None
        assert (span.start, span.length) == (part.body, part.end - part.body)


@pytest.mark.parametrize("name", [name for name, _ in messages.corpus()])
def test_corpus_renders_to_the_grammar(name: str) -> None:
    rendered = render(dict(messages.corpus())[name])
    envelope = parse(rendered.envelope)
    assert isinstance(envelope, list) and len(envelope) == 10
    for wire in (rendered.envelope, rendered.body, rendered.bodystructure):
        assert wire.isascii()
        assert not compare_structures(wire, wire)


TRANSFER = [
    ("7bit", b"a=20", b"a=20"),
    ("8BIT", b"\xff", b"\xff"),
    ("binary", b"\0", b"\0"),
    ("base64", b"YW\r\nJj\r\n", b"abc"),
    ("Base64", b"YWJj!=", b"abc"),
    ("base64", b"YWJ", b"ab"),
    ("base64", b"Y", b""),
    ("quoted-printable", b"a=20b=\r\nc=zz", b"a bc=zz"),
    ("x-uuencode", b"abc", None),
]


@pytest.mark.parametrize(("encoding", "data", "plain"), TRANSFER)
def test_decode_transfer(encoding: str, data: bytes, plain: bytes | None) -> None:
    assert decode_transfer(data, encoding) == plain


@given(st.binary(max_size=100))
def test_decoding_garbage_never_raises(data: bytes) -> None:
    for encoding in ("base64", "quoted-printable"):
        assert decode_transfer(data, encoding) is not None
