"""Header blocks: their end, their fields, choices of fields, and the text of values."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail.header import decode_charset, decode_words, header_end, iter_fields, select_fields, unfold

UGLY = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"Subject", b"To", b"x", b"\0", b"\xff", b"=?", b"?=", b"?q?"]
    )
).map(b"".join)


@pytest.mark.parametrize(
    ("block", "end"),
    [
        (b"A: b\r\n\r\nbody", 8),
        (b"A: b\n\nbody", 6),
        (b"A: b\r\n\nbody", 7),
        (b"\r\nbody", 2),
        (b"\nbody", 1),
        (b"", 0),
        (b"A: b", 4),
        (b"A: b\r\n", 6),
        (b"A: b\r\n \r\n\r\nbody", 11),  # a line of white space is a fold, not the end
        (b"A: b\r\r\n\r\nx", 9),
    ],
)
def test_header_end(block: bytes, end: int) -> None:
    assert header_end(block) == end


def test_header_end_over_mmap() -> None:
    with mmap.mmap(-1, 32) as mapped:
        mapped[:12] = b"A: b\r\n\r\nbody"
        assert header_end(mapped) == 8
        assert header_end(memoryview(mapped)[:12].toreadonly()) == 8


def test_fields() -> None:
    block = b"A: 1\r\nbroken\r\n folded: x\r\nB :2\r\n\tx\r\n\r\nbody: no\r\n"
    assert list(iter_fields(block)) == [(b"A", b" 1"), (b"B", b"2\r\n\tx")]


HEADER = b"From: a@b\r\nSubject: one\r\n two\r\nX-To: no\r\nTO : c@d\r\nBroken\r\nto: e@f\r\n\r\n"


@pytest.mark.parametrize(
    ("names", "exclude", "chosen"),
    [
        ({b"subject"}, False, b"Subject: one\r\n two\r\n\r\n"),
        ({b"to"}, False, b"TO : c@d\r\nto: e@f\r\n\r\n"),
        ({b"from", b"subject"}, False, b"From: a@b\r\nSubject: one\r\n two\r\n\r\n"),
        ({b"nothing"}, False, b"\r\n"),
        (set(), False, b"\r\n"),
        ({b"subject", b"to"}, True, b"From: a@b\r\nX-To: no\r\nBroken\r\n\r\n"),
        ({b"x.to"}, False, b"\r\n"),  # a name is no pattern
    ],
)
def test_select_fields(names: set[bytes], exclude: bool, chosen: bytes) -> None:
    assert select_fields(HEADER, frozenset(names), exclude=exclude) == chosen


def test_select_fields_without_an_end() -> None:
    assert select_fields(b"A: b", frozenset({b"a"})) == b"A: b\r\n\r\n"
    assert select_fields(b"A: b\nC: d\n\n", frozenset({b"a"})) == b"A: b\n\r\n"


@given(UGLY, st.sampled_from([b"to", b"subject", b"x"]))
def test_selected_and_left_out_fields_are_all(block: bytes, name: bytes) -> None:
    block = block[: header_end(block)]
    names = frozenset({name})
    taken, left = select_fields(block, names), select_fields(block, names, exclude=True)
    assert taken.endswith(b"\r\n")
    assert len(taken) + len(left) >= len(block)
    assert not any(found.lower() == name for found, _ in iter_fields(left))


@pytest.mark.parametrize(
    ("value", "line"), [(b"a\r\n b", b"a b"), (b"a\n\tb", b"a\tb"), (b"a", b"a"), (b"a\rb", b"a b")]
)
def test_unfold(value: bytes, line: bytes) -> None:
    assert unfold(value) == line


WORDS = [
    # The examples of RFC 2047 section 8.
    (b"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
    (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>", "Keld Jørn Simonsen <keld@dkuug.dk>"),
    (
        b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
        "If you can read this you understand the example.",
    ),
    (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
    (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
    (b"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
    (b"(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
    (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
    # RFC 2231 section 5: a language after the charset.
    (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
    # What senders do: cut inside a character, wrong padding, spaces inside, no such charset, raw 8-bit.
    (b"=?utf-8?B?ww?= =?utf-8?B?qQ==?=", "é"),
    (b"=?utf-8?B?w6k?=", "é"),
    (b"=?utf-8?Q?a b?=", "a b"),
    (b"=?x-unknown?Q?abc?=", "abc"),
    (b"=?gb2312?B?1tA=?=", "中"),
    (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
    (b"caf\xc3\xa9", "café"),
    (b"=?utf-8?q?=zz?=", "=zz"),
    (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
    (b"=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
    (b"=?punycode?q?a-b?=", "a-b"),  # a codec of Python, but no charset
    (b"folded at\r\n\ta tab\r\n  and at spaces\there", "folded at a tab  and at spaces\there"),
    (b"", ""),
]


@pytest.mark.parametrize(("value", "text"), WORDS)
def test_decode_words(value: bytes, text: str) -> None:
    assert decode_words(value) == text


def test_a_megabyte_of_encoded_words() -> None:
    # stdlib email takes over 20 s for this one.
    assert decode_words(b"=?utf-8?q?a=C3=A9?= " * 50_000) == "aé" * 50_000


@given(st.binary(max_size=200) | UGLY)
def test_garbage_never_raises(value: bytes) -> None:
    decode_words(value)
    unfold(value)
    list(iter_fields(value))
    assert 0 <= header_end(value) <= len(value)


def test_half_a_surrogate_pair_is_no_text() -> None:
    # Only UTF-7 can spell one; kept, it could be neither indexed nor stored.
    assert decode_charset(b"a +2AA- b +2D3eAA-", "utf-7") == "a \ufffd b \U0001f600"
