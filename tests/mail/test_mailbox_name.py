"""Mailbox names on the wire and in patterns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.errors import NotAllowed, ProtocolError
from mailkeep.mail.mailbox_name import check_name, compile_pattern, decode_utf7, encode_utf7

# The second is the example of RFC 3501 section 5.1.3.
UTF7 = [
    ("INBOX", b"INBOX"),
    ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
    ("Entwürfe", b"Entw&APw-rfe"),
    ("a&b", b"a&-b"),
    ("&", b"&-"),
    ("Tom & Jerry & Ö", b"Tom &- Jerry &- &ANY-"),
    ("😀", b"&2D3eAA-"),
    ("x😀é/y", b"x&2D3eAADp-/y"),
    ("مرحبا", b"&BkUGMQYtBigGJw-"),
    ("", b""),
]


@pytest.mark.parametrize(("text", "wire"), UTF7)
def test_utf7_both_ways(text: str, wire: bytes) -> None:
    assert encode_utf7(text) == wire
    assert decode_utf7(wire) == text


# RFC 3501 section 5.1.3: no superfluous shifts, no printable characters in base64, no unfinished runs.
@pytest.mark.parametrize(
    "wire",
    [
        b"&",
        b"&A",
        b"&Jjo",
        b"&U,BTFw-&ZeVnLIqe-",
        b"&AGE-",
        b"Entw\xfcrfe",
        b"&2D0-",
        b"&AP-",
        b"&AAA",
        b"&A P-",
        b"&/w-",
    ],
)
def test_utf7_refuses(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_utf7(wire)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_utf7_round_trip(text: str) -> None:
    wire = encode_utf7(text)
    assert wire.isascii()
    assert decode_utf7(wire) == text


@given(st.binary(max_size=40))
def test_utf7_garbage(wire: bytes) -> None:
    try:
        text = decode_utf7(wire)
    except ProtocolError:
        return
    assert encode_utf7(text) == wire


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("inbox", "INBOX"),
        ("Inbox/Work", "INBOX/Work"),
        ("inboxes", "inboxes"),
        ("Work/inbox", "Work/inbox"),
        ("Entwu\u0308rfe", "Entwürfe"),
        ("a b.c", "a b.c"),
        ("😀/日本", "😀/日本"),
        ("x" * 255, "x" * 255),
    ],
)
def test_names(name: str, kept: str) -> None:
    assert check_name(name) == kept == check_name(kept)


BAD_NAMES = ["", "/", "/a", "a/", "a//b", "a\x00b", "a\nb", "\x7f", "a\x85b", "..", "a/../b", "\ud800"]
TOO_LONG = ["x" * 256, "é" * 128, "/".join(["abcdefghi"] * 101)]


@pytest.mark.parametrize("name", BAD_NAMES + TOO_LONG)
def test_bad_names(name: str) -> None:
    with pytest.raises(NotAllowed):
        check_name(name)


@pytest.mark.parametrize(
    ("reference", "pattern", "name", "found"),
    [
        ("", "*", "a/b", True),
        ("", "%", "a", True),
        ("", "%", "a/b", False),
        ("", "%/%", "a/b", True),
        ("", "a*", "a/b/c", True),
        ("", "a%", "a/b", False),
        ("", "*b", "a/b", True),
        ("", "%b", "a/b", False),
        ("a/", "%", "a/b", True),
        ("a/", "%", "b/b", False),
        ("", "inbox", "INBOX", True),
        ("", "InBoX/%", "INBOX/x", True),
        ("", "in%", "INBOX", True),
        ("", "%ox", "INBOX", True),
        ("", "in%", "INBOX/x", False),
        ("", "work", "Work", False),
        ("", "", "", True),
        ("", "a.b", "axb", False),
        ("", "%%", "a", True),
        ("", "%*%", "a/b", True),
        ("", "*/*", "a", False),
        ("", "日*", "日本", True),
    ],
)
def test_patterns(reference: str, pattern: str, name: str, found: bool) -> None:
    assert compile_pattern(reference, pattern)(name) is found


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=8))
def test_patterns_as_a_regular_expression(pattern: str, name: str) -> None:
    meant = "".join({"*": ".*", "%": "[^/]*"}.get(char, re.escape(char)) for char in pattern)
    assert compile_pattern("", pattern)(name) == bool(re.fullmatch(meant, name))


def test_many_wildcards_do_not_blow_up() -> None:
    # A backtracking matcher never comes back from this one.
    assert not compile_pattern("", "*a" * 200 + "b")("a" * 1000)
    assert not compile_pattern("", "%a" * 200 + "b")("a" * 1000)
