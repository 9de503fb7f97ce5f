"""Address lists as ENVELOPE shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.mail.address import ADDRESSES_MAX, parse_addresses

END = (None, None, None, None)

ADDRESSES: list[tuple[bytes, list[tuple[bytes | None, bytes | None, bytes | None, bytes | None]]]] = [
    (b"", []),
    (b"  ", []),
    (b"a@b.c", [(None, None, b"a", b"b.c")]),
    (b"<a@b>", [(None, None, b"a", b"b")]),
    (b"Ann Lee <a@b>, c@d", [(b"Ann Lee", None, b"a", b"b"), (None, None, b"c", b"d")]),
    (b'"Lee, Ann" <a@b>', [(b"Lee, Ann", None, b"a", b"b")]),
    (b'"a \\"b\\"" <a@b>', [(b'a "b"', None, b"a", b"b")]),
    (b"a@b (Ann (x) Lee)", [(b"Ann (x) Lee", None, b"a", b"b")]),
    (b"J. R. <a@b>", [(b"J. R.", None, b"a", b"b")]),
    (b"A\r\n\tB <a@b>,\r\n c@d", [(b"A B", None, b"a", b"b"), (None, None, b"c", b"d")]),
    (b'"a b"@c', [(None, None, b"a b", b"c")]),
    (b"a . b @ c . d", [(None, None, b"a.b", b"c.d")]),
    (b"a@[10.0.0.1]", [(None, None, b"a", b"[10.0.0.1]")]),
    (b"<@r1,@r2:a@b>", [(None, b"@r1,@r2", b"a", b"b")]),
    # RFC 5322 appendix A.1.3 and A.5
    (
        b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
        [
            (None, None, b"A Group", None),
            (b"Ed Jones", None, b"c", b"a.test"),
            (None, None, b"joe", b"where.test"),
            (b"John", None, b"jdoe", b"one.test"),
            END,
        ],
    ),
    (b"Undisclosed recipients:;", [(None, None, b"Undisclosed recipients", None), END]),
    (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [(b"Pete", None, b"pete", b"silly.test")]),
    # what is broken says so
    (b"<>", [(None, None, b"MISSING_MAILBOX", b"MISSING_DOMAIN")]),
    (b"postmaster", [(None, None, b"postmaster", b"MISSING_DOMAIN")]),
    (b"No Address", [(b"No Address", None, b"MISSING_MAILBOX", b"MISSING_DOMAIN")]),
    (b"A <x y@z>", [(b"A", None, b"x", b"SYNTAX_ERROR")]),
    (b"A <@r a@b>", [(b"A", b"INVALID_ROUTE", b"a", b"b")]),
    (b"J\xc3\xbc <j\xc3\xbc@b>", [(b"J\xc3\xbc", None, b"j\xc3\xbc", b"b")]),
]


@pytest.mark.parametrize(("value", "found"), ADDRESSES)
def test_addresses(value: bytes, found: list[tuple[bytes | None, ...]]) -> None:
    assert [tuple(address) for address in parse_addresses(value)] == found


def test_there_is_a_limit() -> None:
    assert len(parse_addresses(b"a@b," * (2 * ADDRESSES_MAX))) == ADDRESSES_MAX
    assert len(parse_addresses(b"a b <c@d>, x," * ADDRESSES_MAX)) <= ADDRESSES_MAX + 1


PIECES = [
    b"a",
    b"@",
    b"b.c",
    b"<",
    b">",
    b",",
    b";",
    b":",
    b'"',
    b"(",
    b")",
    b"\\",
    b" ",
    b"\r\n ",
    b".",
    b"[",
    b"]",
    b"\0",
    b"\xff",
]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
def test_garbage_never_raises(value: bytes) -> None:
    for _, route, mailbox, host in parse_addresses(value):
        assert mailbox is not None or host is None
        assert route != b""
