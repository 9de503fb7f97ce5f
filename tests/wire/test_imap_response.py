"""What the server says: tokens, lines, and that what it writes can be read back."""

import calendar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_response as r
from mailkeep.wire.imap_syntax import Cursor, decode_mailbox

TOKENS: list[tuple[bytes, bytes]] = [
    (r.quoted(b""), b'""'),
    (r.quoted(b"a b"), b'"a b"'),
    (r.quoted('a "b\\'), b'"a \\"b\\\\"'),
    (r.quoted(b"a\r\nb"), b"{4}\r\na\r\nb"),
    (r.quoted("é"), b"{2}\r\n\xc3\xa9"),
    (r.quoted("é", utf8=True), b'"\xc3\xa9"'),
    (r.quoted(b"\xe9", utf8=True), b"{1}\r\n\xe9"),
    (r.quoted(b"a\nb", utf8=True), b"{3}\r\na\nb"),
    (r.quoted(b"a\0b"), b"~{3}\r\na\0b"),
    (r.quoted(b"x" * 5000), b"{5000}\r\n" + b"x" * 5000),
    (r.nstring(None), b"NIL"),
    (r.nstring(b"NIL"), b'"NIL"'),
    (r.nstring(""), b'""'),
    (r.astring(b"INBOX"), b"INBOX"),
    (r.astring(b"nil"), b'"nil"'),
    (r.astring(b""), b'""'),
    (r.astring(b"a b"), b'"a b"'),
    (r.astring(b"a%"), b'"a%"'),
    (r.astring(b"a]{"), b'"a]{"'),
    (r.mailbox("日本語"), b"&ZeVnLIqe-"),
    (r.mailbox("日本語", utf8=True), '"日本語"'.encode()),
    (r.mailbox("a & b"), b'"a &- b"'),
    (r.mailbox("a & b", utf8=True), b'"a & b"'),
    (r.flags_list([]), b"()"),
    (r.flags_list(["\\Seen", "$x"]), b"(\\Seen $x)"),
    (r.date_time(0), b'"01-Jan-1970 00:00:00 +0000"'),
    (r.date_time(-1), b'"31-Dec-1969 23:59:59 +0000"'),
    (r.date_time(1768903200), b'"20-Jan-2026 10:00:00 +0000"'),
    (r.literal(b"x"), b"{1}\r\nx"),
]

LINES: list[tuple[bytes, bytes]] = [
    (r.tagged(b"a", "OK", "Done"), b"a OK Done\r\n"),
    (r.tagged(b"a", "NO", "No", code="NONEXISTENT"), b"a NO [NONEXISTENT] No\r\n"),
    (r.tagged(b"a", "NO", ""), b"a NO -\r\n"),
    (r.tagged(b"a", "NO", "two\r\nlines é [x"), b"a NO two lines ? [x\r\n"),
    (r.tagged(b"a", "NO", "[ALERT] x"), b"a NO ALERT] x\r\n"),
    (r.untagged("BYE", "x"), b"* BYE x\r\n"),
    (r.continuation(), b"+ \r\n"),
    (r.continuation(b"idling"), b"+ idling\r\n"),
    (
        r.tagged(b"a", "OK", "x", code=r.copyuid(7, [(5, 9), (1, 10), (2, 12)])),
        b"a OK [COPYUID 7 5,1:2 9:10,12] x\r\n",
    ),
    (r.tagged(b"a", "OK", "x", code=r.appenduid(7, [9])), b"a OK [APPENDUID 7 9] x\r\n"),
    (r.tagged(b"a", "OK", "x", code=r.modified([7, 9])), b"a OK [MODIFIED 7,9] x\r\n"),
    (r.capability(["IMAP4rev1", "IDLE"]), b"* CAPABILITY IMAP4rev1 IDLE\r\n"),
    (r.enabled([]), b"* ENABLED\r\n"),
    (r.id_line({"name": "Mailkeep", "version": None}), b'* ID ("name" "Mailkeep" "version" NIL)\r\n'),
    (r.id_line({}), b"* ID NIL\r\n"),
    (r.namespace(), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
    (r.expunge(3), b"* 3 EXPUNGE\r\n"),
    (r.vanished([1, 2, 3, 9]), b"* VANISHED 1:3,9\r\n"),
    (r.vanished(NumSet.of([1, 2]), earlier=True), b"* VANISHED (EARLIER) 1:2\r\n"),
    (r.vanished([]), b""),
    (r.permanentflags(["\\Seen", "\\*"]), b"* OK [PERMANENTFLAGS (\\Seen \\*)] Flags that stay\r\n"),
    (
        r.list_line(["\\HasChildren"], "a", childinfo=["SUBSCRIBED"]),
        b'* LIST (\\HasChildren) "/" a ("CHILDINFO" ("SUBSCRIBED"))\r\n',
    ),
    (
        r.list_line([], "b", childinfo=["SUBSCRIBED"], oldname="é"),
        b'* LIST () "/" b ("CHILDINFO" ("SUBSCRIBED") "OLDNAME" (&AOk-))\r\n',
    ),
    (r.list_line([], "a", kind="LSUB"), b'* LSUB () "/" a\r\n'),
    (r.status_line("a b", {"MESSAGES": 2, "SIZE": 9}), b'* STATUS "a b" (MESSAGES 2 SIZE 9)\r\n'),
    (r.status_line("a", {"MAILBOXID": "(F1)"}), b"* STATUS a (MAILBOXID (F1))\r\n"),
    (r.search_line([]), b"* SEARCH\r\n"),
    (r.search_line([], modseq=5), b"* SEARCH\r\n"),
    (r.search_line([2, 84], modseq=5), b"* SEARCH 2 84 (MODSEQ 5)\r\n"),
    (r.esearch(b"a", uid=True), b'* ESEARCH (TAG "a") UID\r\n'),
    (r.esearch(None, uid=False, count=0), b"* ESEARCH COUNT 0\r\n"),
    (
        r.esearch(b'a]"', uid=False, smallest=2, largest=9, found=b"2,9", count=2, modseq=7),
        b'* ESEARCH (TAG "a]\\"") MIN 2 MAX 9 ALL 2,9 COUNT 2 MODSEQ 7\r\n',
    ),
    (r.fetch_line(3, [b"UID 9", b"FLAGS ()"]), b"* 3 FETCH (UID 9 FLAGS ())\r\n"),
]


@pytest.mark.parametrize(("made", "expected"), TOKENS + LINES)
def test_formats(made: bytes, expected: bytes) -> None:
    assert made == expected


@given(st.binary(max_size=60), st.booleans())
@example(b"x" * 4097, False)
def test_strings_are_read_back(value: bytes, utf8: bool) -> None:
    for text, read in ((r.quoted(value, utf8), Cursor.string), (r.astring(value, utf8), Cursor.astring)):
        cursor = Cursor(text)
        assert read(cursor) == value
        assert cursor.at_end()
    if not utf8 and not r.quoted(value).startswith((b"{", b"~")):
        assert r.quoted(value).isascii()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40), st.booleans())
def test_names_are_read_back(name: str, utf8: bool) -> None:
    cursor = Cursor(r.mailbox(name, utf8), utf8=utf8)
    raw = cursor.astring()
    assert cursor.at_end()
    assert decode_mailbox(raw, utf8) == ("INBOX" if name.upper() == "INBOX" else name)


@given(st.integers(-62135596800, 253402300799))
def test_dates_are_read_back(seconds: int) -> None:
    assert Cursor(r.date_time(seconds)).date_time() == seconds


@given(st.integers(-(2**70), 2**70))
def test_impossible_dates_do_not_raise(seconds: int) -> None:
    assert len(r.date_time(seconds)) == 28


def test_date_agrees_with_the_calendar() -> None:
    for year in (1970, 1999, 2000, 2024, 2100):
        seconds = calendar.timegm((year, 2, 28, 23, 59, 59))
        assert r.date_time(seconds) == b'"28-Feb-%d 23:59:59 +0000"' % year
