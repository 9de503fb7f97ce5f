"""What is composed is read back as it was given, by ourselves and by the standard library, and keeps the rules."""

import email
import email.policy
import email.utils
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail import compose
from mailkeep.mail.compose import Leaf, Multi
from mailkeep.mail.header import decode_words, iter_fields
from mailkeep.mail.letter import letter_of

# Text as people and programs give it; halves of surrogate pairs and control characters cannot be kept, see below.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=300)
WORDS = st.one_of(
    TEXT,
    st.text("abc =?_é日😀", max_size=200),
    st.lists(
        st.sampled_from(["word", "Grüße", "=?utf-8?q?x?=", "日本語" * 30, "x" * 990, "", "a" * 2000]), max_size=8
    ).map(" ".join),
)
NAMES = st.one_of(WORDS.map(lambda text: text[:400]), st.sampled_from(['Doe, "J"', "a\\b", "A. B. Name", "x (y) <z>"]))
LOCALS = st.one_of(
    st.from_regex(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,40}", fullmatch=True), st.sampled_from(['a b"c', "a..b", "."])
)


def check_form(data: bytes) -> None:
    """Lines end in CRLF and are no longer than any reader takes; the header is ASCII."""
    head = data.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", head)
    assert max(map(len, data.split(b"\r\n"))) <= compose.LINE_MAX
    assert all(line.strip() for line in head.split(b"\r\n"))


def python_reads(data: bytes) -> email.message.EmailMessage:
    """The message as the standard library reads it, which finds nothing wrong with its form."""
    found = email.message_from_bytes(data, policy=email.policy.default)
    for part in found.walk():
        assert not part.defects
    return found


@given(WORDS)
def test_any_subject_comes_back(text: str) -> None:
    data = compose.message([("Subject", text)], Leaf("text/plain", "body"))
    check_form(data)
    ((_, value), *_) = iter_fields(data)
    assert decode_words(value) == text.strip(" ")
    assert max(map(len, data.split(b"\r\n"))) <= 78 or max(map(len, text.split(" "))) > 60
    python_reads(data)


@given(st.lists(st.tuples(NAMES, LOCALS), min_size=1, max_size=8))
def test_any_name_and_address_come_back(people: list[tuple[str, str]]) -> None:
    given_ = [(name.strip(" "), f"{local}@example.org") for name, local in people]
    data = compose.message([("To", compose.address_list(given_, 4))], Leaf("text/plain", "body"))
    check_form(data)
    found = [(who.name, who.address) for who in letter_of(data).to]
    # White space is shown as one space, and a name that only repeats the address not at all.
    expected = [(" ".join(name.split()), address) for name, address in given_]
    assert [(" ".join(name.split()), address) for name, address in found] == [
        ("" if name == address else name, address) for name, address in expected
    ]
    assert not python_reads(data).defects


def test_who_has_no_address_is_a_group() -> None:
    value = compose.address_list([("Somebody Else", ""), ("", ""), ("X", "x@example.org")])
    assert value == b"Somebody Else:;, X <x@example.org>"
    assert compose.address_list([("", "Größe"), ("X", 'ä b"@example.org')]) == b"=?utf-8?b?R3LDtsOfZQ==?=:;, X:;"
    (first, second) = letter_of(b"To: " + value + b"\r\n\r\n").to
    assert (first.name, first.address) == ("Somebody Else", "")
    assert second.address == "x@example.org"


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("a@example.org", "a@example.org"),
        ("a b@example.org", '"a b"@example.org'),
        ('"a b"@example.org', '"a b"@example.org'),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@b>, <evil@example.org", '"a@b>, <evil"@example.org'),
        ("a@exa mple.org", '"a@exa mple.org"'),
        ("root", "root"),
    ],
)
def test_an_address_is_never_two(address: str, written: str) -> None:
    assert compose.address_spec(address) == written


def test_nothing_ends_its_field() -> None:
    evil = "x\r\nBcc: evil@example.org\r\n\r\nbody\x00"
    leaf = Leaf("text/plain", "y", evil, "attachment", evil, evil)
    data = compose.message([("Subject", evil), ("To", compose.address_list([(evil, evil)]))], leaf)
    head = data.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert b"Bcc" not in names
    assert letter_of(data).bcc == ()
    check_form(data)


@given(st.text(max_size=2000), st.booleans())
def test_any_text_comes_back(text: str, html: bool) -> None:
    leaf = Leaf("text/html" if html else "text/plain", text)
    data = compose.message([("Subject", "x")], leaf)
    check_form(data)
    (part,) = [python_reads(data)]
    found = part.get_payload(decode=True).decode(part.get_content_charset())
    assert found == re.sub(r"\r\n?|\n", "\r\n", text)


@given(st.binary(max_size=3000), st.sampled_from(["text/html", "application/pdf", "image/png", "text/x-odd"]))
def test_any_bytes_come_back(raw: bytes, media_type: str) -> None:
    leaf = Leaf(media_type, raw, "file.bin", "attachment")
    data = compose.message([("Subject", "x")], compose.mixed(Leaf("text/plain", "see below"), [leaf]))
    check_form(data)
    letter = letter_of(data)
    assert [letter.content(found) for found in letter.attachments] == [raw]
    _, part = python_reads(data).iter_parts()
    assert part.get_payload(decode=True) == raw


@given(TEXT.map(str.strip).filter(bool))
def test_any_file_name_comes_back(name: str) -> None:
    leaf = Leaf("application/pdf", b"x", name, "attachment")
    data = compose.message([("Subject", "x")], compose.mixed(Leaf("text/plain", "y"), [leaf]))
    check_form(data)
    assert [found.name for found in letter_of(data).attachments] == [name]
    _, part = python_reads(data).iter_parts()
    assert part.get_filename() in (name, email.utils.unquote(name))  # which it takes off once too often


def test_parts_are_nested_as_mail_programs_do() -> None:
    picture = Leaf("image/png", b"\x89PNG", "a.png", "inline", "pic@x")
    inner = compose.message([("Subject", "inner")], Leaf("text/plain", "in"))
    body = Multi(
        "alternative",
        (
            Leaf("text/plain", "plain"),
            Multi("related", (Leaf("text/html", '<img src="cid:pic@x">'), picture), (("type", "text/html"),)),
        ),
    )
    data = compose.message(
        [("Subject", "x")], compose.mixed(body, [Leaf("message/rfc822", inner, disposition="attachment")])
    )
    letter = letter_of(data)
    assert (letter.text, letter.html) == ("plain", '<img src="cid:pic@x">')
    assert [(a.media_type, a.inline, a.message) for a in letter.attachments] == [
        ("image/png", True, False),
        ("message/rfc822", False, True),
    ]
    assert letter.content(letter.attachments[1]) == inner
    types = [part.get_content_type() for part in python_reads(data).walk()]
    assert types == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
        "message/rfc822", "text/plain",
    ]  # fmt: skip


def test_a_message_inside_is_kept_to_the_byte_and_said_to_be_as_wide_as_it_is() -> None:
    for inner, encoding in ((b"a: b\r\n\r\nc", None), (b"a: b\r\n\r\n\xe4\r\n", "8bit"), (b"a: b\n\n\0", "binary")):
        data = compose.message([], compose.mixed(Leaf("text/plain", "x"), [Leaf("message/rfc822", inner)]))
        letter = letter_of(data)
        assert [letter.content(found) for found in letter.attachments] == [inner]
        assert email.message_from_bytes(data)["Content-Transfer-Encoding"] == encoding


def test_the_same_gives_the_same_bytes_and_no_boundary_occurs_in_a_part() -> None:
    inner = compose.message([], Multi("mixed", (Leaf("text/plain", "x"), Leaf("text/plain", "y"))))
    whole = Multi("mixed", (Leaf("text/plain", "x"), Leaf("message/rfc822", inner)))
    data = compose.message([], whole)
    assert data == compose.message([], whole)
    boundaries = re.findall(rb'boundary="([^"]+)"', data)
    assert len(set(boundaries)) == len(boundaries) == 2


def test_dates() -> None:
    assert compose.date_time(0) == "Thu, 1 Jan 1970 00:00:00 +0000"
    assert compose.date_time(1_000_000_000, -330) == "Sat, 8 Sep 2001 20:16:40 -0530"
    assert compose.date_time(-11_644_473_599) == "Mon, 1 Jan 1601 00:00:01 +0000"


def test_parts_have_an_end() -> None:
    part: compose.Part = Leaf("text/plain", "x")
    for _ in range(200):
        part = Multi("mixed", (part,))
    with pytest.raises(ValueError, match="nested"):
        compose.message([], part)


def test_a_look_at_lines_takes_linear_time() -> None:
    line = b"y" * 990 + b"\r\n"
    data = line * (8 << 10)
    inside = data
    # A search that looks at each byte as often as its line is long would take a minute.
    for _ in range(20):
        inside = compose.message((), Leaf("message/rfc822", inside))
    assert inside.endswith(data)
    assert b"Transfer-Encoding" not in inside


@pytest.mark.parametrize(
    ("raw", "seven"),
    [
        (b"y" * 995 + b"\r\n", True),
        (b"y" * 996 + b"\r\n", False),
        (b"a\r\n" + b"y" * 997, False),
        (b"a\r\n" + b"y" * 996, True),
        (b"a\r\nb\n", False),
        (b"a\rb\r\n", False),
        (b"\n\r", False),
    ],
)
def test_what_goes_as_it_is_has_lines_that_everybody_takes(raw: bytes, seven: bool) -> None:
    written = compose.message((), Leaf("text/plain", raw))
    assert (b"Content-Transfer-Encoding" not in written) is seven
