"""Commands: one table read in both directions, what else is understood, what is not."""

import time
from datetime import date

import pytest

from mailkeep.errors import ProtocolError
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as c
from mailkeep.wire.imap_command import SAVED, Command, FetchBody, SearchKey, Section
from mailkeep.wire.imap_format import format_command
from mailkeep.wire.imap_parse import parse, parse_append, read_tag
from mailkeep.wire.imap_syntax import CommandRefused


def numbers(text: bytes) -> NumSet:
    return NumSet.parse(text)


def key(name: str, *arguments: object) -> SearchKey:
    return SearchKey(name, arguments)


def day(year: int, month: int, number: int) -> int:
    return date(year, month, number).toordinal()


def body(label: bytes, *path: int, text: str = "", fields: tuple[bytes, ...] = (), **more: object) -> FetchBody:
    return FetchBody(Section(path, text, fields), label=label, **{"peek": False, **more})  # type: ignore[arg-type]


FROM_TO = (b"From", b"to")

# Canonical: format gives exactly this, parse gives it back.
CANONICAL: list[tuple[bytes, Command]] = [
    (b"CAPABILITY", c.Capability()),
    (b"NOOP", c.Noop()),
    (b"LOGOUT", c.Logout()),
    (b"STARTTLS", c.StartTls()),
    (b"NAMESPACE", c.Namespace()),
    (b"IDLE", c.Idle()),
    (b"CHECK", c.Check()),
    (b"CLOSE", c.Close()),
    (b"UNSELECT", c.Unselect()),
    (b"EXPUNGE", c.Expunge()),
    (b"UID EXPUNGE 3,5:*", c.Expunge(numbers(b"3,5:*"))),
    (b"ID NIL", c.Id(None)),
    (b"ID ()", c.Id(())),
    (b'ID ("name" "Thunderbird" "os" NIL)', c.Id((("name", "Thunderbird"), ("os", None)))),
    (b"LOGIN fred secret", c.Login(b"fred", b"secret")),
    (b'LOGIN fred "a \\"b\\\\"', c.Login(b"fred", b'a "b\\')),
    (b'LOGIN "" "NIL"', c.Login(b"", b"NIL")),
    (b"LOGIN fred {3+}\r\na\r\n", c.Login(b"fred", b"a\r\n")),
    (b"LOGIN fred {2+}\r\n\xc3\xa9", c.Login(b"fred", b"\xc3\xa9")),
    (b"AUTHENTICATE PLAIN", c.Authenticate("PLAIN", None)),
    (b"AUTHENTICATE EXTERNAL =", c.Authenticate("EXTERNAL", b"")),
    (b"AUTHENTICATE SCRAM-SHA-256-PLUS AGZyZWQ=", c.Authenticate("SCRAM-SHA-256-PLUS", b"\0fred")),
    (b"ENABLE CONDSTORE UTF8=ACCEPT", c.Enable(("CONDSTORE", "UTF8=ACCEPT"))),
    (b"SELECT INBOX", c.Select("INBOX", False)),
    (b"EXAMINE &U,BTFw-/&ZeVnLIqe-", c.Select("台北/日本語", True)),
    (b"SELECT &2D3eAA- (CONDSTORE)", c.Select("\U0001f600", False, condstore=True)),
    (b"SELECT a (QRESYNC (67890007 2005071519404))", c.Select("a", False, qresync=c.QResync(67890007, 2005071519404))),
    (b"SELECT a (QRESYNC (1 2 41,43:211))", c.Select("a", False, qresync=c.QResync(1, 2, numbers(b"41,43:211")))),
    (
        b"SELECT a (QRESYNC (1 2 1:9 (1:2 3:4)))",
        c.Select("a", False, qresync=c.QResync(1, 2, numbers(b"1:9"), numbers(b"1:2"), numbers(b"3:4"))),
    ),
    (
        b"SELECT a (QRESYNC (1 2 (1:2 3:4)))",
        c.Select("a", False, qresync=c.QResync(1, 2, None, numbers(b"1:2"), numbers(b"3:4"))),
    ),
    (b'CREATE "a b"', c.Create("a b")),
    (b"CREATE Out (USE (\\Sent \\Junk))", c.Create("Out", ("\\Sent", "\\Junk"))),
    (b"DELETE a]", c.Delete("a]")),
    (b"RENAME Tom&-Jerry b", c.Rename("Tom&Jerry", "b")),
    (b"SUBSCRIBE #news.x", c.Subscribe("#news.x")),
    (b'UNSUBSCRIBE ""', c.Unsubscribe("")),
    (b'LIST "" ""', c.List("LIST", "", ("",))),
    (b'LIST "" "*"', c.List("LIST", "", ("*",))),
    (b'LSUB "" "%"', c.List("LSUB", "", ("%",))),
    (b'LIST "" (INBOX "a/%")', c.List("LIST", "", ("INBOX", "a/%"), extended=True)),
    (
        b'LIST (RECURSIVEMATCH SUBSCRIBED) "" ("*") RETURN (CHILDREN SPECIAL-USE STATUS (MESSAGES UNSEEN))',
        c.List(
            *("LIST", "", ("*",), True),
            select=frozenset(("SUBSCRIBED", "RECURSIVEMATCH")),
            returns=frozenset(("CHILDREN", "SPECIAL-USE")),
            status=("MESSAGES", "UNSEEN"),
        ),
    ),
    (b"STATUS INBOX (MESSAGES UIDNEXT SIZE)", c.Status("INBOX", ("MESSAGES", "UIDNEXT", "SIZE"))),
    (b"STATUS INBOX (MAILBOXID APPENDLIMIT)", c.Status("INBOX", ("MAILBOXID", "APPENDLIMIT"))),
    (b"SEARCH ALL", c.Search(False, key("ALL"))),
    (b"UID SEARCH RETURN (ALL COUNT) $", c.Search(True, key("SET", SAVED), frozenset(("ALL", "COUNT")))),
    (b"SEARCH RETURN (SAVE) UNSEEN", c.Search(False, key("UNSEEN"), frozenset(("SAVE",)))),
    (
        b'SEARCH CHARSET UTF-8 NOT FROM "bob" OR 1:3 UID 7,9:* KEYWORD $Forwarded',
        c.Search(
            False,
            key(
                "AND",
                key("NOT", key("FROM", "bob")),
                key("OR", key("SET", numbers(b"1:3")), key("UID", numbers(b"7,9:*"))),
                key("KEYWORD", "$Forwarded"),
            ),
            charset="UTF-8",
        ),
    ),
    (b"SEARCH SUBJECT {9+}\r\n\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", c.Search(False, key("SUBJECT", "日本語"))),
    (b"SEARCH CHARSET ISO-8859-1 BODY {1+}\r\n\xe9", c.Search(False, key("BODY", "é"), charset="ISO-8859-1")),
    (b'SEARCH HEADER "Message-ID" ""', c.Search(False, key("HEADER", "Message-ID", ""))),
    (
        b"SEARCH OR SEEN OR DRAFT (NEW LARGER 5)",
        c.Search(False, key("OR", key("SEEN"), key("DRAFT"), key("AND", key("NEW"), key("LARGER", 5)))),
    ),
    (
        b"SEARCH SINCE 1-Feb-1994 SENTON 29-Feb-2024 SAVEDBEFORE 1-Jan-2000 OLDER 60 MODSEQ 620162338",
        c.Search(
            False,
            key(
                "AND",
                *(key("SINCE", day(1994, 2, 1)), key("SENTON", day(2024, 2, 29)), key("SAVEDBEFORE", day(2000, 1, 1))),
                *(key("OLDER", 60), key("MODSEQ", 620162338)),
            ),
        ),
    ),
    (b"FETCH 1 (FLAGS)", c.Fetch(False, numbers(b"1"), ("FLAGS",))),
    (b"UID FETCH $ (UID MODSEQ) (CHANGEDSINCE 12345)", c.Fetch(True, SAVED, ("UID", "MODSEQ"), 12345)),
    (b"UID FETCH 1:* (UID) (CHANGEDSINCE 0 VANISHED)", c.Fetch(True, numbers(b"1:*"), ("UID",), 0, vanished=True)),
    (
        b"FETCH 1 (BODY BODY[] BODY.PEEK[HEADER] BODY[1.2.MIME] BODY[3.TEXT]<0.100>)",
        c.Fetch(
            False,
            numbers(b"1"),
            (
                *("BODY", body(b"BODY[]"), body(b"BODY[HEADER]", text="HEADER", peek=True)),
                body(b"BODY[1.2.MIME]", 1, 2, text="MIME"),
                body(b"BODY[3.TEXT]<0>", 3, text="TEXT", partial=(0, 100)),
            ),
        ),
    ),
    (
        b"FETCH 1 (BODY.PEEK[HEADER.FIELDS (From to)] BODY[4.HEADER.FIELDS.NOT (From to)]<5.7>)",
        c.Fetch(
            False,
            numbers(b"1"),
            (
                body(b"BODY[HEADER.FIELDS (From to)]", text="HEADER.FIELDS", fields=FROM_TO, peek=True),
                body(
                    b"BODY[4.HEADER.FIELDS.NOT (From to)]<5>",
                    *(4,),
                    text="HEADER.FIELDS.NOT",
                    fields=FROM_TO,
                    partial=(5, 7),
                ),
            ),
        ),
    ),
    (
        b"FETCH 1 (BINARY[1] BINARY.PEEK[2.3]<9.1> BINARY.SIZE[4] RFC822 RFC822.HEADER RFC822.TEXT)",
        c.Fetch(
            False,
            numbers(b"1"),
            (
                body(b"BINARY[1]", 1, kind="BINARY"),
                body(b"BINARY[2.3]<9>", 2, 3, kind="BINARY", peek=True, partial=(9, 1)),
                body(b"BINARY.SIZE[4]", 4, kind="BINARY.SIZE", peek=True),
                body(b"RFC822", kind="RFC822"),
                body(b"RFC822.HEADER", text="HEADER", kind="RFC822.HEADER", peek=True),
                body(b"RFC822.TEXT", text="TEXT", kind="RFC822.TEXT"),
            ),
        ),
    ),
    (b"STORE 1:2 FLAGS ()", c.Store(False, numbers(b"1:2"), "=", False, ())),
    (b"UID STORE $ +FLAGS.SILENT (\\Seen x)", c.Store(True, SAVED, "+", True, ("\\Seen", "x"))),
    (
        b"STORE 1 (UNCHANGEDSINCE 320162338) -FLAGS (\\Deleted)",
        c.Store(False, numbers(b"1"), "-", False, ("\\Deleted",), 320162338),
    ),
    (b"COPY 2:4 Sent", c.Copy(False, numbers(b"2:4"), "Sent")),
    (b"UID COPY * Sent", c.Copy(True, numbers(b"*"), "Sent")),
    (b'MOVE 1 "a b"', c.Move(False, numbers(b"1"), "a b")),
    (b"UID MOVE $ INBOX", c.Move(True, SAVED, "INBOX")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "command"), CANONICAL, ids=[text[:40].decode("latin-1") for text, _ in CANONICAL])
def test_canonical_both_ways(text: bytes, command: Command) -> None:
    assert parse(b"A1 " + text) == (b"A1", command)
    assert format_command(b"A1", command) == b"A1 " + text + b"\r\n"


FAST = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")

# Understood as well: other spellings, and what clients really send.
LENIENT: list[tuple[bytes, Command]] = [
    (b"noop", c.Noop()),
    (b"noop  ", c.Noop()),
    (b"  uId   fetch  1:2  ( flags   UID )  ", c.Fetch(True, numbers(b"1:2"), ("UID", "FLAGS"))),
    (b"fetch 1:* all", c.Fetch(False, numbers(b"1:*"), (*FAST, "ENVELOPE"))),
    (b"fetch 1 fast", c.Fetch(False, numbers(b"1"), FAST)),
    (b"fetch 1 full", c.Fetch(False, numbers(b"1"), (*FAST, "ENVELOPE", "BODY"))),
    (b"fetch 1 (all body[])", c.Fetch(False, numbers(b"1"), (*FAST, "ENVELOPE", body(b"BODY[]")))),
    (b"fetch 1 FLAGS", c.Fetch(False, numbers(b"1"), ("FLAGS",))),
    (b"uid fetch 1 FLAGS", c.Fetch(True, numbers(b"1"), ("UID", "FLAGS"))),
    (b"fetch 1 (FLAGS FLAGS PREVIEW (LAZY) PREVIEW)", c.Fetch(False, numbers(b"1"), ("FLAGS", "PREVIEW"))),
    (b"fetch 1 PREVIEW (LAZY)", c.Fetch(False, numbers(b"1"), ("PREVIEW",))),
    (b"fetch 1 FLAGS (changedsince 5)", c.Fetch(False, numbers(b"1"), ("FLAGS",), 5)),
    (b"uid fetch 1 FLAGS (VANISHED CHANGEDSINCE 5)", c.Fetch(True, numbers(b"1"), ("UID", "FLAGS"), 5, vanished=True)),
    (
        b'fetch 1 body.peek[header.fields ("a b" {1+}\r\nc d)]<0.0>',
        c.Fetch(
            False,
            numbers(b"1"),
            (
                body(
                    b'BODY[HEADER.FIELDS ("a b" c d)]<0>',
                    text="HEADER.FIELDS",
                    fields=(b"a b", b"c", b"d"),
                    peek=True,
                    partial=(0, 0),
                ),
            ),
        ),
    ),
    (b"id nil", c.Id(None)),
    (b'ID ( "a"  nil )', c.Id((("a", None),))),
    (b"select inbox", c.Select("INBOX", False)),
    (b'select "InBox" ( )', c.Select("INBOX", False)),
    (b"select inbox/x", c.Select("inbox/x", False)),
    (b"select {5+}\r\ninbox", c.Select("INBOX", False)),
    (b"select {5}\r\na\\b\"c", c.Select('a\\b"c', False)),
    (b'select "a\\b"', c.Select("ab", False)),
    (b"select \xc3\xa9", c.Select("é", False)),
    (b'select "\xc3\xa9"', c.Select("é", False)),
    (b"select a (qresync (1 0) condstore)", c.Select("a", False, True, c.QResync(1, 0))),
    (b"list {0+}\r\n {1+}\r\n*", c.List("LIST", "", ("*",))),
    (b"LIST a %", c.List("LIST", "a", ("%",))),
    (b"LIST \"\" inbox", c.List("LIST", "", ("INBOX",))),
    (b'LIST "" "a & b*"', c.List("LIST", "", ("a & b*",))),
    (b'LIST "" &U,BTFw-%', c.List("LIST", "", ("台北%",))),
    (b'LIST (SUBSCRIBED)"" %', c.List("LIST", "", ("%",), extended=True, select=frozenset(("SUBSCRIBED",)))),
    (b'LIST () "" *', c.List("LIST", "", ("*",), extended=True)),
    (b'LIST "" * RETURN ()', c.List("LIST", "", ("*",), extended=True)),
    (b'list (special-use) "" *', c.List("LIST", "", ("*",), extended=True, select=frozenset(("SPECIAL-USE",)))),
    (b"status inbox (messages  messages)", c.Status("INBOX", ("MESSAGES",))),
    (b"authenticate plain", c.Authenticate("PLAIN", None)),
    (b"search charset utf-8 unseen", c.Search(False, key("UNSEEN"), charset="UTF-8")),
    (b'search charset "us-ascii" text \xc3\xa9', c.Search(False, key("TEXT", "é"), charset="US-ASCII")),
    (b"search return () unseen", c.Search(False, key("UNSEEN"), frozenset(("ALL",)))),
    (
        b"search return (min max) charset utf-8 1",
        c.Search(False, key("SET", numbers(b"1")), frozenset(("MIN", "MAX")), "UTF-8"),
    ),
    (b"search (unseen)", c.Search(False, key("UNSEEN"))),
    (b"search (unseen seen)  draft", c.Search(False, key("AND", key("AND", key("UNSEEN"), key("SEEN")), key("DRAFT")))),
    (b"search or seen (or draft new)", c.Search(False, key("OR", key("SEEN"), key("DRAFT"), key("NEW")))),
    (b'search on "1-feb-1994"', c.Search(False, key("ON", day(1994, 2, 1)))),
    (b'search modseq "/flags/\\\\draft" all 620162338', c.Search(False, key("MODSEQ", 620162338))),
    (b"search not not deleted", c.Search(False, key("NOT", key("NOT", key("DELETED"))))),
    (b"store 1 flags \\Seen", c.Store(False, numbers(b"1"), "=", False, ("\\Seen",))),
    (b"store 1 +flags.silent \\Seen x ", c.Store(False, numbers(b"1"), "+", True, ("\\Seen", "x"))),
    (b"UID  COPY 1 a", c.Copy(True, numbers(b"1"), "a")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "command"), LENIENT, ids=[text[:40].decode("latin-1") for text, _ in LENIENT])
def test_understood_as_well(text: bytes, command: Command) -> None:
    assert parse(b"A1 " + text) == (b"A1", command)


UTF8: list[tuple[bytes, str]] = [
    (b'SELECT "\xe6\x97\xa5\xe6\x9c\xac"', "日本"),
    (b"SELECT {4+}\r\n\xf0\x9f\x98\x80", "\U0001f600"),
    (b"SELECT a&b", "a&b"),
    (b"SELECT &U,BTFw-", "&U,BTFw-"),
]


@pytest.mark.parametrize(("text", "name"), UTF8)
def test_names_are_utf8_once_enabled(text: bytes, name: str) -> None:
    assert parse(b"a " + text, utf8=True) == (b"a", c.Select(name, False))
    line = format_command(b"a", c.Select(name, False), utf8=True)
    assert parse(line.removesuffix(b"\r\n"), utf8=True) == (b"a", c.Select(name, False))


BAD = [
    *(b"", b"A1", b"A1 ", b" A1 NOOP", b"+ NOOP", b"* NOOP", b"a+b NOOP", b"(a) NOOP", b"\xc3\xa9 NOOP"),
    *(b"A1 NOOP x", b"A1\tNOOP", b"A1 NO\0OP", b"A1 NOOP\0", b"A1 NONSENSE", b"A1 UID", b"A1 UID NOOP"),
    *(b"A1 UID SELECT a", b"DONE", b"A1 LOGIN", b"A1 LOGIN a", b"A1 LOGIN a b c", b'A1 LOGIN "a'),
    *(b'A1 LOGIN "a\\" b', b"A1 LOGIN a {3}\r\nab", b"A1 LOGIN a {2}\r\n\0b", b'A1 LOGIN a "b\0"'),
    *(b"A1 LOGIN a {3}", b"A1 LOGIN a(b c", b'A1 LOGIN a "b\r\nc"', b"A1 LOGIN a {3}\r\nabcd"),
    *(b"A1 AUTHENTICATE", b"A1 AUTHENTICATE PLAIN ====", b"A1 AUTHENTICATE PLAIN a b"),
    *(b"A1 AUTHENTICATE PLAIN a", b"A1 AUTHENTICATE PLA%IN", b"A1 ENABLE", b"A1 ENABLE (x)", b"A1 ID"),
    *(b'A1 ID ("a")', b"A1 ID x", b'A1 ID "x"', b'A1 ID ("a" b)', b"A1 SELECT", b"A1 SELECT a b"),
    *(b"A1 SELECT a (FOO)", b"A1 SELECT a (", b"A1 SELECT a (QRESYNC)", b"A1 SELECT a (QRESYNC (1))"),
    *(b"A1 SELECT a (QRESYNC (0 1))", b"A1 SELECT *", b"A1 SELECT a (QRESYNC (1 1 1:*))"),
    *(b"A1 SELECT a (QRESYNC (1 1 $))", b"A1 SELECT a (QRESYNC (1 1 1 (1 2) 3))"),
    *(b"A1 SELECT a (QRESYNC (1 99999999999999999999))", b"A1 CREATE", b"A1 CREATE a (FOO)"),
    *(b"A1 CREATE a (USE)", b"A1 RENAME a", b"A1 DELETE a b", b"A1 LIST", b'A1 LIST ""', b'A1 LIST "" ()'),
    *(b'A1 LIST "" * RETURN', b'A1 LIST "" * RETURN (FOO)', b'A1 LIST (FOO) "" *'),
    *(b'A1 LIST (RECURSIVEMATCH) "" *', b'A1 LIST "" * x', b'A1 LIST (RECURSIVEMATCH REMOTE) "" *'),
    *(b'A1 LIST "" * RETURN (STATUS)', b'A1 LIST "" * RETURN (STATUS (X))', b'A1 LSUB "" (a b)'),
    *(b'A1 LSUB "" * RETURN ()', b"A1 STATUS a", b"A1 STATUS a ()", b"A1 STATUS a (FOO)"),
    *(b"A1 STATUS a MESSAGES", b"A1 APPEND a", b'A1 APPEND a "x"', b"A1 EXPUNGE 1", b"A1 UID EXPUNGE"),
    *(b"A1 SEARCH", b"A1 SEARCH ", b"A1 SEARCH FOO", b"A1 SEARCH NOT", b"A1 SEARCH OR SEEN", b"A1 SEARCH ()"),
    *(b"A1 SEARCH (SEEN", b"A1 SEARCH SEEN)", b"A1 SEARCH RETURN (FOO) ALL", b"A1 SEARCH RETURN ALL"),
    *(b"A1 SEARCH CHARSET UTF-8", b"A1 SEARCH FROM", b"A1 SEARCH FROM \xff", b"A1 SEARCH ON 31-Feb-2000"),
    *(b"A1 SEARCH ON 1-Foo-2000", b"A1 SEARCH 0", b"A1 SEARCH ON 1-Feb-0000", b'A1 SEARCH ON "1-Feb-2000'),
    *(b"A1 SEARCH LARGER x", b"A1 SEARCH OLDER 0", b"A1 SEARCH UID x", b"A1 SEARCH LARGER 99999999999999999999"),
    *(b'A1 SEARCH MODSEQ "x" foo 1', b"A1 SEARCH HEADER x", b"A1 SEARCH 1:", b"A1 FETCH", b"A1 FETCH 1"),
    *(b"A1 FETCH 1 ", b"A1 FETCH 1 ()", b"A1 UID FETCH 1 ()", b"A1 FETCH 1 (FLAGS", b"A1 FETCH 1 FOO"),
    *(b"A1 FETCH 0 FLAGS", b"A1 FETCH 1,,2 FLAGS", b"A1 FETCH 4294967296 FLAGS", b"A1 FETCH x FLAGS"),
    *(b"A1 FETCH $1 FLAGS", b"A1 FETCH 1 FLAGS UID", b"A1 FETCH 1 BODY[", b"A1 FETCH 1 BODY[0]"),
    *(b"A1 FETCH 1 BODY[1.]", b"A1 FETCH 1 BODY[MIME]", b"A1 FETCH 1 BODY[1HEADER]"),
    *(b"A1 FETCH 1 BODY[.HEADER]", b"A1 FETCH 1 BODY[HEADER.FIELDS]", b"A1 FETCH 1 BODY[FOO]"),
    *(b"A1 FETCH 1 BODY[HEADER.FIELDS ()]", b"A1 FETCH 1 BODY[]<1>", b"A1 FETCH 1 BODY[]<1.2"),
    *(b"A1 FETCH 1 FLAGS[]", b"A1 FETCH 1 BODY[HEADER.FIELDS ({1}\r\n\n)]", b"A1 FETCH 1 BINARY[1.MIME]"),
    *(b"A1 FETCH 1 BINARY.SIZE[1]<0.1>", b"A1 FETCH 1 BODY[" + b".".join([b"1"] * 101) + b"]"),
    *(b"A1 FETCH 1 BODY[9999999999]", b"A1 FETCH 1 BINARY.SIZE.PEEK[1]", b"A1 FETCH 1 FLAGS (FOO 1)"),
    *(b"A1 FETCH 1 FLAGS (VANISHED)", b"A1 FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)"),
    *(b"A1 UID FETCH 1 FLAGS (VANISHED)", b"A1 FETCH 1 FLAGS (CHANGEDSINCE)", b"A1 FETCH 1 PREVIEW (FOO)"),
    *(b"A1 STORE 1", b"A1 STORE 1 FLAGS", b"A1 STORE 1 FLAGS ", b"A1 STORE 1 FOO (x)", b"A1 STORE 1 *FLAGS (x)"),
    *(b"A1 STORE 1 FLAGS (x", b"A1 STORE 1 FLAGS (\xff)", b"A1 STORE 1 (UNCHANGEDSINCE x) FLAGS ()"),
    *(b"A1 STORE 1 (X 1) FLAGS ()", b"A1 STORE 1 FLAGS.LOUD (x)", b"A1 COPY 1", b"A1 COPY a b"),
    *(b"A1 MOVE 1 a b", b"A1 COPY 1:2:3 a"),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_not_understood(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(text)


REFUSED = [
    (b"A1 SELECT &", "CANNOT"),
    (b'A1 CREATE "Tom & Jerry"', "CANNOT"),
    (b"A1 STATUS &AGE- (MESSAGES)", "CANNOT"),  # an "a" has no business in a shifted run
    (b"A1 DELETE \xff", "CANNOT"),
    (b"A1 SEARCH CHARSET KLINGON TEXT x", "BADCHARSET (US-ASCII UTF-8)"),
    (b"A1 SEARCH CHARSET idna TEXT x", "BADCHARSET (US-ASCII UTF-8)"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED)
def test_understood_and_refused(text: bytes, code: str) -> None:
    with pytest.raises(CommandRefused) as caught:
        parse(text)
    assert caught.value.code == code


# 20-Nov-2025 10:00:00 UTC
NOON = 1763632800

APPENDS = [
    (b"APPEND Sent {310+}", c.Append("Sent", (), None, 310)),
    (b"APPEND Sent (\\Seen x) {310+}", c.Append("Sent", ("\\Seen", "x"), None, 310)),
    (b'APPEND INBOX "20-Nov-2025 10:00:00 +0000" ~{0+}', c.Append("INBOX", (), NOON, 0, binary=True)),
    (
        b'APPEND &ZeVnLIqe- (a) "20-Nov-2025 10:00:00 +0000" UTF8 (~{5+}',
        c.Append("日本語", ("a",), NOON, 5, utf8=True, binary=True),
    ),
]


@pytest.mark.parametrize(("text", "append"), APPENDS)
def test_append_both_ways(text: bytes, append: c.Append) -> None:
    assert parse_append((b"a1 " + text,)) == (b"a1", append)
    assert format_command(b"a1", append) == b"a1 " + text + b"\r\n"


LENIENT_APPENDS = [
    ((b"a append inbox () {1}",), c.Append("INBOX", (), None, 1)),
    ((b'a append  inbox  (x)  "20-Nov-2025 12:30:00 +0230"  {1}',), c.Append("INBOX", ("x",), NOON, 1)),
    ((b'a append inbox " 1-jan-1970 00:00:01 -0000" {1}',), c.Append("INBOX", (), 1, 1)),
    ((b'a append inbox "1-Jan-1970 00:00:01 +0100" {1}',), c.Append("INBOX", (), -3599, 1)),
    ((b"a append inbox utf8 ( ~{1}",), c.Append("INBOX", (), None, 1, utf8=True, binary=True)),
    ((b"a append {5}\r\n", b"a (\"{", b" (x) {9}"), c.Append('a ("{', ("x",), None, 9)),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "append"), LENIENT_APPENDS)
def test_append_understood_as_well(parts: tuple[bytes, ...], append: c.Append) -> None:
    assert parse_append(parts) == (b"a", append)


@pytest.mark.parametrize(
    "text", [b"a LOGIN {5}", b"a APPEND {5}", b"a append {5+}", b"a SELECT APPEND {5}", b"APPEND {5}"]
)
def test_another_literal_than_the_message(text: bytes) -> None:
    assert parse_append((text,)) is None


@pytest.mark.parametrize(
    "text",
    [
        *(b"INBOX{5}", b"INBOX (x{5}", b"INBOX (x) y {5}", b'INBOX "32-Nov-2025 10:00:00 +0000" {5}', b"INBOX x {5}"),
        *(b'INBOX "2-Nov-2025 24:00:00 +0000" {5}', b'INBOX "2-Nov-2025" {5}', b"INBOX UTF8 {5}", b"INBOX (\\*x) {5}"),
    ],
)  # fmt: skip
def test_bad_append(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_append((b"a APPEND " + text,))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (b"a1 FOO {", b"a1"),
        (b"a1", b"a1"),
        (b"", None),
        (b" a", None),
        (b"+ x", None),
        (b"a]b x", b"a]b"),
        (b"a\0 x", None),
    ],
)
def test_the_tag_is_read_if_there_is_one(text: bytes, tag: bytes | None) -> None:
    assert read_tag(text) == tag


def test_no_password_is_printed() -> None:
    assert "secret" not in repr(parse(b"a LOGIN fred secret"))
    assert "secret" not in repr(parse(b"a AUTHENTICATE PLAIN AGZyZWQAc2VjcmV0"))


@pytest.mark.parametrize(
    "text",
    [
        b"a SEARCH " + b"(" * 60_000,
        b"a SEARCH " + b"NOT " * 15_000 + b"ALL",
        b"a SEARCH " + b"OR " * 20_000 + b"ALL",
        b"a SEARCH " + b"(NOT " * 12_000 + b"ALL" + b")" * 12_000,
        b"a FETCH 1 " + b"(" * 60_000,
        b"a SELECT x (QRESYNC " + b"(" * 60_000,
        b'a LIST "" ' + b"(" * 60_000,
        b"a STORE 1 FLAGS " + b"(" * 60_000,
        b"a ID " + b"(" * 60_000,
    ],
)
def test_deep_nesting_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(text)


LONG = [
    b"a SEARCH " + b"OR SEEN " * 8000 + b"ALL",
    b"a SEARCH " + b"ALL " * 16_000,
    b"a FETCH 1 (" + b"BODY[1] " * 8000 + b")",
    b"a FETCH 1 BODY[HEADER.FIELDS (" + b"a " * 32_000 + b")]",
    b"a FETCH " + b",".join(b"%d:%d" % (n, n + 1) for n in range(1, 16_000, 3)) + b" FLAGS",
    b"a FETCH " + b"1," * 32_000 + b"1 FLAGS",
    b"a FETCH " + b"*:1," * 16_000 + b"1 FLAGS",
    b"a FETCH " + b"1:" * 32_000 + b" FLAGS",
    b"a FETCH " + b"1," * 32_000 + b" FLAGS",
    b"a FETCH " + b"1" * 64_000 + b" FLAGS",
    b'a LOGIN "' + b"\\a" * 32_000 + b'" x',
    b'a LOGIN "' + b"\\a" * 32_000 + b" x",
    b"a STORE 1 FLAGS (" + b"x " * 32_000 + b")",
    b"a" * 65_000 + b" NOOP",
    b" " * 65_000,
    b"a " + b" " * 65_000 + b"x(",
    b"a NOOP" + b" " * 65_000 + b"x",
    b"a UID" + b" " * 65_000 + b"(",
    b"a FETCH" + b" " * 65_000,
    b"a FETCH 1" + b" " * 65_000 + b"",
    b"a SEARCH" + b" " * 65_000 + b"(",
]


@pytest.mark.parametrize("text", LONG, ids=[text[:24].decode() for text in LONG])
def test_the_longest_line_takes_linear_time(text: bytes) -> None:
    start = time.process_time()
    try:
        parse(text)
    except ProtocolError:
        read_tag(text)
    # About 20 ms at worst on a slow machine; anything quadratic takes seconds.
    assert time.process_time() - start < 0.5
