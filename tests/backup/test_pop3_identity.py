"""Which message of a maildrop is which: tables, and a model of a server that does as it likes with its UIDLs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.backup.pop3_identity import (
    Row,
    content_digest,
    content_key,
    header_of,
    header_print,
    is_short,
    match,
    origin,
    read_row,
    trusted,
    uidl_key,
)
from mailkeep.backup.pop3_remote import Drop
from mailkeep.store.remote_rows import State, pop_origin_of


def drop(uidls: dict[int, bytes] | None, sizes: dict[int, int] | None = None) -> Drop:
    numbers = sorted({*(uidls or {}), *(sizes or {})})
    return Drop(numbers, sizes if sizes is not None else dict.fromkeys(numbers, 100), uidls)


def test_rows_come_back() -> None:
    rows = [
        Row(1, uidl_key(b"abc"), 100, 5),
        Row(2, uidl_key(b'with space \xff "quoted"'), 0, 5, short=True, header="h", content="c"),
        Row(3, content_key("ab" * 16, 2), 1, 2, State.REFUSED, 77, tries=3, reason="said: a\tb\r\nc"),
    ]
    for row in rows:
        back = read_row(row.number, row.state, row.gone, row.detail())
        assert back is not None
        row.reason = row.reason.replace("\t", " ").replace("\r\n", "  ")
        assert back == row
        assert "\n" not in row.detail()


@pytest.mark.parametrize("detail", [None, "", "text", "\t", "\t[]", '\t["k"]', '\t["k","x",1,1,1,"",""]', "\t{}"])
def test_a_row_that_cannot_be_read_is_none(detail: str | None) -> None:
    assert read_row(1, State.KEPT, None, detail) is None


def test_origins_of_both_kinds_never_meet() -> None:
    assert origin(1, uidl_key(b"x\xff")) == pop_origin_of(1, b"x\xff")
    assert origin(1, "cx.0") != origin(1, uidl_key(b"cx.0"))
    assert origin(1, "cx.0") != origin(2, "cx.0")


@pytest.mark.parametrize(
    ("uidls", "believed"),
    [
        (None, set()),
        ({}, set()),
        ({1: b"a", 2: b"b"}, {1, 2}),
        ({1: b"a", 2: b"a", 3: b"b"}, {3}),
        ({1: b"1", 2: b"2"}, set()),
        ({1: b"0001"}, set()),
        ({1: b"2", 2: b"1"}, {1, 2}),
    ],
)
def test_which_uidls_are_believed(uidls: dict[int, bytes] | None, believed: set[int]) -> None:
    assert set(trusted(drop(uidls))) == believed


def test_known_fresh_unsure_and_gone() -> None:
    rows = [
        Row(1, uidl_key(b"a"), 100),
        Row(2, uidl_key(b"b"), 200),
        Row(3, uidl_key(b"c"), 100, gone=5),
        Row(4, uidl_key(b"d"), 100),
    ]
    found = match(drop({1: b"a", 2: b"b", 3: b"c", 4: b"e"}, {1: 100, 2: 201, 3: 100, 4: 1, 5: 9}), rows)
    assert {number: row.number for number, row in found.known.items()} == {1: 1, 3: 3}
    assert found.fresh == [4]
    assert found.unsure == [2, 5]
    assert set(found.open) == {2, 4}


def test_each_row_is_met_once() -> None:
    rows = [Row(n, uidl_key(b"old%d" % n), 100, header="h", content="c") for n in (1, 2)]
    found = match(drop({7: b"x", 8: b"y", 9: b"z"}), rows)
    assert found.candidates({7: 100, 8: 100, 9: 100}) == [7, 8, 9]
    assert found.candidates({7: 1, 8: 100, 9: 1}) == [8]
    met = [found.meet_header(7, "h"), found.meet_content(8, "c"), found.meet_content(9, "c"), found.meet_header(9, "h")]
    assert [row and row.number for row in met] == [1, 2, None, None]
    assert found.open == {}


def test_a_message_that_is_not_here_is_told_by_its_uidl_only() -> None:
    found = match(drop({7: b"x"}), [Row(1, uidl_key(b"old"), 100, state=State.FAILED, header="h", content="c")])
    assert found.meet_header(7, "h") is None
    assert found.meet_content(7, "c") is None


HEAD = b"Received: by x; now\r\nSubject: x\r\n"


def test_what_servers_change_as_mail_is_read_makes_no_other_message() -> None:
    body = b"\r\nStatus: in the body\r\n"
    one = HEAD + body
    two = HEAD + b"Status: RO\r\nX-UIDL: abc\r\nX-Keywords: a\r\n b\r\n" + body
    assert content_digest(one, sha256(one).digest()) == content_digest(two, sha256(two).digest())
    assert header_print(HEAD + b"\r\n", 5) == header_print(HEAD + b"Status: O\r\n", 5)
    assert header_print(HEAD, 5) != header_print(HEAD, 6)
    other = one.replace(b"in the body", b"in The body")
    assert content_digest(one, sha256(one).digest()) != content_digest(other, sha256(other).digest())


@given(st.lists(st.sampled_from([b"A: b\r\n", b"\r\n", b"\n", b"x", b"Status: R\r\n"]), max_size=12).map(b"".join))
def test_headers_of_anything(data: bytes) -> None:
    header = header_of(data)
    assert data.startswith(header)
    assert len(content_digest(data, sha256(data).digest())) == 32


@pytest.mark.parametrize(
    ("received", "announced", "short"),
    [(100, 100, False), (100, 0, False), (100, 50, False), (100, 300, False), (100, 400, True),
     (99_000, 100_000, False), (97_000, 100_000, True)],
)  # fmt: skip
def test_short(received: int, announced: int, short: bool) -> None:
    assert is_short(received, announced) is short
