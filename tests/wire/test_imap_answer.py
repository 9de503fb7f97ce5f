"""What servers say, as classes: a table of answers, what our own formatters write, and garbage."""

import contextlib
from array import array
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailkeep.errors import ProtocolError
from mailkeep.mail.numset import NumSet, encode
from mailkeep.wire import imap_answer as a
from mailkeep.wire import imap_response as r
from mailkeep.wire.imap_answer import Code, Fetched, Found, Listed, MailboxStatus, Status, Unknown
from mailkeep.wire.imap_answer_fetch import unix_time
from mailkeep.wire.imap_answer_parse import decode_name, parse_answer
from mailkeep.wire.imap_client import ImapClient
from mailkeep.wire.imap_command import RawName
from tests.wire.answering import every_way


def numbers(text: str) -> NumSet:
    return NumSet.parse(text.encode())


def ok(name: str, value: object = None, text: str = "x") -> Status:
    return Status(None, "OK", Code(name, value), text)


def listed(name: str, raw: bytes, *attributes: str, separator: str | None = "/") -> Listed:
    return Listed(frozenset(attributes), separator, name, raw)


NONE = frozenset[str]()
SEEN = frozenset(["\\Seen"])
STATUS = [
    (b"a1 OK done\r\n", Status(b"a1", "OK", None, "done")),
    (b"a1 OK\r\n", Status(b"a1", "OK", None, "")),
    (b"a1 no  [AUTHENTICATIONFAILED]\r\n", Status(b"a1", "NO", Code("AUTHENTICATIONFAILED"), "")),
    (b"a1 BAD [] what\r\n", Status(b"a1", "BAD", None, "[] what")),
    (b"* PREAUTH hi\r\n", Status(None, "PREAUTH", None, "hi")),
    (b"* BYE\r\n", Status(None, "BYE", None, "")),
    (b"*OK hi\r\n", Status(None, "OK", None, "hi")),
    (b"* OK see {5}\r\n", Status(None, "OK", None, "see {5}")),
    (b"a1 NO too many {3}\r\n", Status(b"a1", "NO", None, "too many {3}")),
    (b"* OK [UIDVALIDITY 3857529045] x\r\n", ok("UIDVALIDITY", 3857529045)),
    (b"* OK [uidnext 1]x\r\n", ok("UIDNEXT", 1)),
    (b"* OK [UIDNEXT -1] x\r\n", ok("UIDNEXT", "-1")),
    (b"* OK [UIDNEXT] x\r\n", ok("UIDNEXT")),
    (b"* OK [HIGHESTMODSEQ 9223372036854775807] x\r\n", ok("HIGHESTMODSEQ", 9223372036854775807)),
    (b"* OK [NOMODSEQ] x\r\n", ok("NOMODSEQ")),
    (b"* OK [CLOSED] x\r\n", ok("CLOSED")),
    (b"* OK [PERMANENTFLAGS ()] x\r\n", ok("PERMANENTFLAGS", NONE)),
    (
        b"* OK [PERMANENTFLAGS (\\seen \\* [x] $Y)] x\r\n",
        ok("PERMANENTFLAGS", frozenset(["\\Seen", "\\*", "[x]", "$Y"])),
    ),
    (b"* OK [PERMANENTFLAGS (\\Seen)\r\n", ok("PERMANENTFLAGS", SEEN, "")),
    (b"* OK [CAPABILITY imap4rev1 IDLE] x\r\n", ok("CAPABILITY", frozenset(["IMAP4REV1", "IDLE"]))),
    (b"* OK [APPENDUID 7 3955] x\r\n", ok("APPENDUID", (7, numbers("3955")))),
    (b"* OK [APPENDUID 7] x\r\n", ok("APPENDUID", "7")),
    (b"* OK [COPYUID 7 304,319:320 3956:3958] x\r\n", ok("COPYUID", (7, (304, 319, 320), (3956, 3957, 3958)))),
    (b"* OK [COPYUID 7 9,3 1:2] x\r\n", ok("COPYUID", (7, (9, 3), (1, 2)))),
    (b"* OK [COPYUID 7 1:4000000000 1:4000000000] x\r\n", ok("COPYUID", "7 1:4000000000 1:4000000000")),
    (b"a OK [MODIFIED 7,9] x\r\n", Status(b"a", "OK", Code("MODIFIED", numbers("7,9")), "x")),
    (b"* OK [MODIFIED *] x\r\n", ok("MODIFIED", "*")),
    (b"* NO [BADCHARSET (UTF-8 {3})] x\r\n", Status(None, "NO", Code("BADCHARSET", "(UTF-8 {3})"), "x")),
    (b'* NO [X "a]b" c] x\r\n', Status(None, "NO", Code("X", '"a]b" c'), "x")),
    (b'* NO [X "a] x\r\n', Status(None, "NO", Code("X", '"a'), "x")),
    (b"* NO [ALERT\r\n", Status(None, "NO", Code("ALERT"), "")),
    (b"+ idling\r\n", a.Continue(b"idling")),
    (b"+\r\n", a.Continue(b"")),
    (b"+ \r\n", a.Continue(b"")),
]
MAILBOX = [
    (b'* LIST (\\HasNoChildren \\SENT) "/" Sent\r\n', listed("Sent", b"Sent", "\\hasnochildren", "\\sent")),
    (b'* LIST () "." "a b"\r\n', listed("a b", b"a b", separator=".")),
    (b"* LIST () NIL inbox\r\n", listed("INBOX", b"inbox", separator=None)),
    (b'* list () "" "x"\r\n', listed("x", b"x", separator=None)),
    (b'* LIST (\\Noselect) "/" ""\r\n', listed("", b"", "\\noselect")),
    (b'* LIST (\\Noselect) "/" \r\n', listed("", b"", "\\noselect")),
    (b'* LIST () "\\\\" "a\\\\b"\r\n', listed("a\\b", b"a\\b", separator="\\")),
    (b'* LIST () "\\" "a\\b"\r\n', listed("a\\b", b"a\\b", separator="\\")),
    (b"* LIST () \\ Public Folders\\x\r\n", listed("Public Folders\\x", b"Public Folders\\x", separator="\\")),
    (b'* LIST () {1}\r\n/ {3}\r\na"b\r\n', listed('a"b', b'a"b')),
    (b'* LIST () "/" "say "hi" now"\r\n', listed('say "hi" now', b'say "hi" now')),
    (b'* LIST () "/" INBOX/My Mail  \r\n', listed("INBOX/My Mail", b"INBOX/My Mail")),
    (b'* LIST () "/" Mail (old)\r\n', listed("Mail (old)", b"Mail (old)")),
    (b'* LIST () "/" x{3}\r\n', listed("x{3}", b"x{3}")),
    (b'* LIST () "/" "&U,BTFw-"\r\n', listed("台北", b"&U,BTFw-")),
    (b'* LIST () "/" Entw&APw-rfe\r\n', listed("Entwürfe", b"Entw&APw-rfe")),
    (b'* LIST () "/" "a & b"\r\n', listed("a & b", b"a & b")),
    (b'* LIST () "/" "&AGE-"\r\n', listed("a", b"&AGE-")),  # what could be written plainly
    (b'* LIST () "/" "&AOk-&AOk-"\r\n', listed("éé", b"&AOk-&AOk-")),  # two runs where one would do
    (b'* LIST () "/" "&Jjo!"\r\n', listed("&Jjo!", b"&Jjo!")),
    (b'* LIST () "/" "\xc3\xa9"\r\n', listed("é", b"\xc3\xa9")),
    (b'* LIST () "/" "\xe9"\r\n', listed("\\xe9", b"\xe9")),
    (
        b'* LIST (\\Subscribed) "/" "foo" ("CHILDINFO" ("SUBSCRIBED") "OLDNAME" ("b&AOk-"))\r\n',
        Listed(frozenset(["\\subscribed"]), "/", "foo", b"foo", "LIST", "bé", frozenset(["SUBSCRIBED"])),
    ),
    (
        b'* LIST () "/" foo (CHILDINFO (SUBSCRIBED))\r\n',
        Listed(NONE, "/", "foo", b"foo", "LIST", None, frozenset(["SUBSCRIBED"])),
    ),
    (b'* LSUB () "/" a\r\n', Listed(NONE, "/", "a", b"a", "LSUB")),
    (b'* XLIST (\\Inbox) "/" "Inbox"\r\n', Listed(frozenset(["\\inbox"]), "/", "INBOX", b"Inbox", "XLIST")),
    (b"* STATUS a (MESSAGES 2 uidnext 3)\r\n", MailboxStatus("a", b"a", {"MESSAGES": 2, "UIDNEXT": 3})),
    (b'* STATUS "a b" ()\r\n', MailboxStatus("a b", b"a b", {})),
    (b"* STATUS a b (MESSAGES 2 ) \r\n", MailboxStatus("a b", b"a b", {"MESSAGES": 2})),
    (b"* STATUS {1}\r\na (SIZE 1)\r\n", MailboxStatus("a", b"a", {"SIZE": 1})),
    (
        b"* STATUS a (MAILBOXID (F1) APPENDLIMIT NIL UNSEEN -1)\r\n",
        MailboxStatus("a", b"a", {"MAILBOXID": "F1", "UNSEEN": "-1"}),
    ),
    (b"* STATUS a (b) (MESSAGES 1)\r\n", MailboxStatus("a (b)", b"a (b)", {"MESSAGES": 1})),
    (b"* FLAGS (\\answered $Junk NonJunk)\r\n", a.Flags(frozenset(["\\Answered", "$Junk", "NonJunk"]))),
    (b"* FLAGS NIL\r\n", a.Flags(NONE)),
    (b"* 172 EXISTS\r\n", a.Exists(172)),
    (b"* 0 exists \r\n", a.Exists(0)),
    (b"* 1 RECENT\r\n", a.Recent(1)),
    (b"* 44 EXPUNGE\r\n", a.Expunged(44)),
    (b"* VANISHED 405,407\r\n", a.Vanished(numbers("405,407"))),
    (b"* VANISHED (EARLIER) 300:310\r\n", a.Vanished(numbers("300:310"), True)),
    (b"* SEARCH\r\n", Found(array("I"))),
    (b"* SEARCH 2 84 882 \r\n", Found(array("I", [2, 84, 882]))),
    (b"* SEARCH 5 4 (MODSEQ 917162500)\r\n", Found(array("I", [5, 4]), 917162500)),
    (b"* SEARCH 5 4294967296 99999999999999999999999\r\n", Found(array("I", [5]))),
    (b'* ESEARCH (TAG "A2") UID\r\n', Found(None, uid=True, tag=b"A2", extended=True)),
    (
        b'* ESEARCH (TAG "A2") UID MIN 2 MAX 9 ALL 2,9 COUNT 2 MODSEQ 7\r\n',
        Found(numbers("2,9"), 7, 2, 9, 2, True, b"A2", True),
    ),
    (b"* ESEARCH (TAG 5) COUNT 0\r\n", Found(None, count=0, tag=b"5", extended=True)),
    (b"* ESEARCH ALL 1:5\r\n", Found(numbers("1:5"), extended=True)),
    (b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n", a.Capability(frozenset(["IMAP4REV1", "AUTH=PLAIN"]))),
    (b"* CAPABILITY IMAP4rev1 X{5}\r\n", a.Capability(frozenset(["IMAP4REV1", "X{5}"]))),
    (b"* ENABLED CONDSTORE QRESYNC\r\n", a.Enabled(frozenset(["CONDSTORE", "QRESYNC"]))),
    (b"* ENABLED\r\n", a.Enabled(NONE)),
    (b"* ID NIL\r\n", a.Id({})),
    (b'* ID ("name" "Dovecot" "Version" NIL)\r\n', a.Id({"name": "Dovecot", "version": None})),
    (b'* ID ("name" "x" "os" "y\r\n', a.Id({"name": "x"})),
    (b'* NAMESPACE (("" "/")) NIL NIL\r\n', a.Namespace((a.NamespaceEntry("", "/"),))),
    (
        b'* NAMESPACE (("INBOX." ".")) (("~" "/")("#u" NIL)) (("&AOk-/" "\\\\" "X-P" ("a")))\r\n',
        a.Namespace(
            (a.NamespaceEntry("INBOX.", "."),),
            (a.NamespaceEntry("~", "/"), a.NamespaceEntry("#u", None)),
            (a.NamespaceEntry("é/", "\\"),),
        ),
    ),
    (b"* NAMESPACE NIL\r\n", a.Namespace(())),
    (b'* QUOTA "" (STORAGE 10 512 MESSAGE 3 9)\r\n', a.Quota("", {"STORAGE": (10, 512), "MESSAGE": (3, 9)})),
    (b"* QUOTA root ()\r\n", a.Quota("root", {})),
    (b'* QUOTAROOT INBOX "" x\r\n', a.QuotaRoot("INBOX", ("", "x"))),
    (b"* XFOO bar\r\n", Unknown(b"* XFOO bar")),
    (b"* 5 XBAR\r\n", Unknown(b"* 5 XBAR")),
    (b"* LIST foo\r\n", Unknown(b"* LIST foo", "LIST without attributes")),
    (b"* VANISHED 1:*\r\n", Unknown(b"* VANISHED 1:*", "* is not allowed here")),
    (b"* SEARCH 1,2\r\n", Unknown(b"* SEARCH 1,2", "Bad SEARCH")),
]
DATE = int(datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC).timestamp())
ENVELOPE = b'("d" "s" (("a" NIL "b" {1}\r\nc)) NIL NIL NIL NIL NIL NIL "<\\"x\\\\y>")'
FETCH = [
    (b"* 1 FETCH (FLAGS (\\Seen))\r\n", Fetched(1, flags=SEEN)),
    (b"* 1 FETCH (UID 7 FLAGS ())\r\n", Fetched(1, 7, NONE)),
    (b"* 1 FETCH (FLAGS (\\SEEN) UID 7 MODSEQ (9))\r\n", Fetched(1, 7, SEEN, 9)),
    (b"* 1 fetch (uid 7 flags (\\seen x))\r\n", Fetched(1, 7, frozenset(["\\Seen", "x"]))),
    (b'* 1 FETCH (FLAGS (\\Seen "a" NIL \xc3\xa9))\r\n', Fetched(1, flags=frozenset(["\\Seen", "a", "NIL", "é"]))),
    (b"* 1 FETCH (FLAGS NIL UID 7)\r\n", Fetched(1, 7, NONE)),
    (b"* 1 FETCH (UID 0 FLAGS ())\r\n", Fetched(1, None, NONE)),
    (b"* 1 FETCH (UID 4294967296 FLAGS ())\r\n", Fetched(1, None, NONE)),
    (b"* 1 FETCH (  UID  7  RFC822.SIZE  44827 ) \r\n", Fetched(1, 7, size=44827)),
    (b"* 1 FETCH (RFC822.SIZE -1 UID 7)\r\n", Fetched(1, 7)),
    (b"* 1 FETCH (RFC822.SIZE NIL UID 7)\r\n", Fetched(1, 7)),
    (b'* 1 FETCH (INTERNALDATE "17-Jul-1996 02:44:25 -0700")\r\n', Fetched(1, internaldate=DATE)),
    (b'* 1 FETCH (INTERNALDATE "nonsense" UID 7)\r\n', Fetched(1, 7)),
    (b"* 1 FETCH (INTERNALDATE NIL UID 7)\r\n", Fetched(1, 7)),
    (b"* 1 FETCH (UID 7 MODSEQ 12)\r\n", Fetched(1, 7, modseq=12)),
    (b"* 1 FETCH (UID 7 MODSEQ (9223372036854775807))\r\n", Fetched(1, 7, modseq=9223372036854775807)),
    (b"* 1 FETCH (UID 7 MODSEQ (99999999999999999999))\r\n", Fetched(1, 7)),
    (b"* 1 FETCH (UID 7\r\n", Fetched(1, 7)),
    (b"* 1 FETCH ()\r\n", Fetched(1)),
    (b"* 9 UIDFETCH (FLAGS ())\r\n", Fetched(0, 9, NONE)),
    (b"* 1 FETCH (UID 7 BODY[] {5}\r\na\r\n)b)\r\n", Fetched(1, 7, sections={b"BODY[]": b"a\r\n)b"})),
    (b"* 1 FETCH (BODY[] {0}\r\n UID 7)\r\n", Fetched(1, 7, sections={b"BODY[]": b""})),
    (b"* 1 FETCH (BODY[] NIL UID 7)\r\n", Fetched(1, 7, sections={b"BODY[]": None})),
    (b'* 1 FETCH (BODY[] "" UID 7)\r\n', Fetched(1, 7, sections={b"BODY[]": b""})),
    (b'* 1 FETCH (BODY[] "a\\"b")\r\n', Fetched(1, sections={b"BODY[]": b'a"b'})),
    (b"* 1 FETCH (BODY[] )\r\n", Fetched(1, sections={b"BODY[]": None})),
    (b"* 1 FETCH (RFC822 {1}\r\nx)\r\n", Fetched(1, sections={b"RFC822": b"x"})),
    (b"* 1 FETCH (RFC822.HEADER {1}\r\nx)\r\n", Fetched(1, sections={b"RFC822.HEADER": b"x"})),
    (b"* 1 FETCH (Body.Peek[Header] {1}\r\nx)\r\n", Fetched(1, sections={b"BODY[HEADER]": b"x"})),
    (b"* 1 FETCH (BODY[]<0> {1}\r\nx)\r\n", Fetched(1, sections={b"BODY[]<0>": b"x"})),
    (b"* 1 FETCH (BODY[]{1}\r\nx)\r\n", Fetched(1, sections={b"BODY[]": b"x"})),
    (b"* 1 FETCH (BODY[1.2.MIME] ~{2}\r\n\0x)\r\n", Fetched(1, sections={b"BODY[1.2.MIME]": b"\0x"})),
    (
        b'* 1 FETCH (BODY[HEADER.FIELDS ("Date"  from)] {1}\r\nx)\r\n',
        Fetched(1, sections={b"BODY[HEADER.FIELDS (DATE FROM)]": b"x"}),
    ),
    (
        b"* 1 FETCH (UID 7 BODY[HEADER] {1}\r\nx BODY[TEXT] {1}\r\ny)\r\n",
        Fetched(1, 7, sections={b"BODY[HEADER]": b"x", b"BODY[TEXT]": b"y"}),
    ),
    (b"* 1 FETCH (BINARY.SIZE[1.2] 10)\r\n", Fetched(1, values={"BINARY.SIZE[1.2]": 10})),
    (
        b"* 1 FETCH (ENVELOPE " + ENVELOPE + b" UID 7)\r\n",
        Fetched(
            1,
            7,
            values={
                "ENVELOPE": (b"d", b"s", ((b"a", None, b"b", b"c"),), None, None, None, None, None, None, b'<"x\\y>')
            },
        ),
    ),
    (
        b'* 1 FETCH (BODYSTRUCTURE ("TEXT" "PLAIN" NIL NIL NIL "7BIT" 1152 23))\r\n',
        Fetched(1, values={"BODYSTRUCTURE": (b"TEXT", b"PLAIN", None, None, None, b"7BIT", 1152, 23)}),
    ),
    (
        b"* 1 FETCH (X-GM-MSGID 12278455344230334865 X-GM-THRID 5 "
        b'X-GM-LABELS ("\\\\Inbox" \\Sent 2020 "a b" Entw&APw-rfe))\r\n',
        Fetched(
            1,
            values={
                "X-GM-MSGID": 12278455344230334865,
                "X-GM-THRID": 5,
                "X-GM-LABELS": ("\\Inbox", "\\Sent", "2020", "a b", "Entwürfe"),
            },
        ),
    ),
    (
        b'* 1 FETCH (EMAILID (M1) THREADID NIL PREVIEW "x" SAVEDATE NIL X-NEW (1 (2)))\r\n',
        Fetched(1, values={"EMAILID": "M1", "THREADID": None, "PREVIEW": "x", "SAVEDATE": None, "X-NEW": (1, (2,))}),
    ),
    (b"* 1 FETCH (UID 7 !!)\r\n", Unknown(b"* 1 FETCH (UID 7 !!)", "Bad FETCH item")),
    (b"* 1 FETCH (ENVELOPE (\r\n", Unknown(b"* 1 FETCH (ENVELOPE (", "Value ends too early")),
    (b"* 1 FETCH (X " + b"(" * 300 + b"\r\n", Unknown(b"* 1 FETCH (X " + b"(" * 300, "Nested too deeply")),
]


@pytest.mark.parametrize(("said", "answer"), STATUS + MAILBOX + FETCH)
def test_answers(said: bytes, answer: object) -> None:
    assert every_way(said) == [answer]


def test_all_of_them_in_one_stream() -> None:
    table = STATUS + MAILBOX + FETCH
    assert every_way(b"".join(said for said, _ in table)) == [answer for _, answer in table]
    # Lines that end in LF alone, and empty ones between.
    plain = [(said, answer) for said, answer in table if b"{" not in said]
    assert every_way(b"".join(said[:-2] + b"\n\r\n" for said, _ in plain)) == [answer for _, answer in plain]


def test_names_go_back_as_they_came() -> None:
    for raw in (b"&AGE-", b"&AOk-&AOk-", b"&Jjo!", b"\xe9", b"\xc3\xa9", b"a & b"):
        name = decode_name(raw)
        assert isinstance(name, RawName)
        assert name.raw == raw
    for raw in (b"a", b"&AOk-", b"INBOX", b"inbox", b"&-", b"a b"):
        assert not isinstance(decode_name(raw), RawName)
    assert not isinstance(decode_name("é".encode(), utf8=True), RawName)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"17-Jul-1996 09:44:25 +0000", DATE),
        (b" 1-Jan-1970 00:00:00 +0000", 0),
        (b"1-jan-1970 0:00 GMT", 0),
        (b"Thu, 1 Jan 1970 00:00:01 +0000", 1),
        (b"01-January-1970 00:00:00 -0130", 5400),
        (b"01-Jan-1970 00:00:00 +01:00", -3600),
        (b"30-Feb-1970 00:00:00 +0000", None),
        (b"00-Jan-0000 00:00:00 +0000", None),
        (b"01-Jan-1970 25:00:00 +0000", None),
        (b"01-Jan-1970 00:60:00 +0000", None),
        (b"01-Xyz-1970 00:00:00 +0000", None),
        (b"", None),
    ],
)
def test_dates(text: bytes, seconds: int | None) -> None:
    assert unix_time(text) == seconds


# --- round trips: what our own formatters write ---

_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(
    lambda name: "INBOX" if name.upper() == "INBOX" else name
)
_ATOMS = st.text("abcXYZ019$_-.=&+;", min_size=1, max_size=12)
_FLAGS = st.frozensets(st.one_of(st.sampled_from(["\\Seen", "\\Answered", "\\Deleted"]), _ATOMS), max_size=5)
_NUMBER = st.integers(1, (1 << 32) - 1)
_MODSEQ = st.integers(0, (1 << 63) - 1)
_WORDS = st.frozensets(_ATOMS.map(str.upper), max_size=4)
_LINES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@given(_NAMES, st.booleans(), st.sampled_from(["/", ".", "\\", None]), st.one_of(st.none(), _NAMES), st.data())
@settings(max_examples=200, deadline=None)
def test_lists_are_read_back(
    name: str, utf8: bool, separator: str | None, old: str | None, data: st.DataObject
) -> None:
    attributes = data.draw(st.frozensets(st.sampled_from(["\\Sent", "\\HasChildren", "\\NoSelect"])))
    children = data.draw(st.sampled_from([(), ("SUBSCRIBED",)]))
    mark = b"NIL" if separator is None else r.quoted(separator)
    line = r.list_line(attributes, name, utf8=utf8, separator=mark, childinfo=children, oldname=old)
    (answer,) = every_way(line, utf8=utf8)
    assert isinstance(answer, Listed)
    assert (answer.name, answer.separator, answer.oldname) == (name, separator, old)
    assert answer.attributes == frozenset(attribute.lower() for attribute in attributes)
    assert answer.childinfo == frozenset(children)
    assert not isinstance(answer.name, RawName)


@given(st.lists(_NUMBER, max_size=30, unique=True), st.data())
@settings(deadline=None)
def test_answers_are_read_back(found: list[int], data: st.DataObject) -> None:
    name, utf8 = data.draw(_NAMES), data.draw(st.booleans())
    items = data.draw(st.dictionaries(st.sampled_from(["MESSAGES", "UIDNEXT", "SIZE"]), _MODSEQ))
    (answer,) = every_way(r.status_line(name, items, utf8=utf8), utf8=utf8)
    assert answer == MailboxStatus(name, answer.raw, items)  # type: ignore[union-attr]
    flags, words, modseq = data.draw(_FLAGS), data.draw(_WORDS), data.draw(_MODSEQ)
    rising = sorted(found)
    cases = [
        (r.flags(flags), a.Flags(flags)),
        (r.permanentflags(flags), Status(None, "OK", Code("PERMANENTFLAGS", flags), "Flags that stay")),
        (r.capability(words), a.Capability(words)),
        (r.enabled(words), a.Enabled(words)),
        (r.search_line(found, modseq=modseq), Found(array("I", found), modseq if found else None)),
        (
            r.esearch(b'a]"', uid=True, smallest=3, found=encode(rising), count=len(found)),
            Found(NumSet.of(found), None, 3, None, len(found), True, b'a]"', True),
        ),
        (r.vanished(rising, earlier=True), a.Vanished(NumSet.of(found), True)),
        (r.untagged("OK", "x", code=r.appenduid(5, rising)), ok("APPENDUID", (5, NumSet.of(found)))),
        (r.untagged("OK", "x", code=r.modified(rising)), ok("MODIFIED", NumSet.of(found))),
        (
            r.untagged("OK", "x", code=r.copyuid(5, list(zip(found, found, strict=True)))),
            ok("COPYUID", (5, tuple(found), tuple(found))),
        ),
    ]
    for line, expected in cases:
        if line and (found or not any(word in line for word in (b"UID ", b"MODIFIED"))):
            assert every_way(line) == [expected]


@given(st.sampled_from(["OK", "NO", "BAD"]), st.sampled_from([None, "ALERT", "X-Y.Z_1"]), _LINES)
def test_status_is_read_back(kind: str, code: str | None, text: str) -> None:
    line = r.tagged(b"A1", kind, text, code=code)
    said = text.strip() or "-" if code is not None else text.strip().lstrip("[") or "-"
    assert every_way(line) == [Status(b"A1", kind, Code(code.upper()) if code else None, said.strip())]  # type: ignore[arg-type]


@given(
    flags=_FLAGS,
    body=st.binary(max_size=60),
    uid=_NUMBER,
    modseq=_MODSEQ,
    size=st.integers(0, 1 << 40),
    internaldate=st.integers(-(10**9), 10**11),
)
@settings(deadline=None)
def test_fetches_are_read_back(
    flags: frozenset[str], body: bytes, *, uid: int, modseq: int, size: int, internaldate: int
) -> None:
    parts = [
        b"UID %d" % uid,
        b"FLAGS " + r.flags_list(flags),
        b"MODSEQ (%d)" % modseq,
        b"INTERNALDATE " + r.date_time(internaldate),
        b"RFC822.SIZE %d" % size,
        b"BODY[] " + r.literal(body),
        b"BODY[TEXT] " + r.nstring(body or None),
    ]
    sections = {b"BODY[]": body, b"BODY[TEXT]": body or None}
    expected = Fetched(3, uid, flags, modseq, internaldate, size, sections)
    assert every_way(r.fetch_line(3, parts)) == [expected]
    assert every_way(r.fetch_line(3, parts[::-1])) == [expected]


# --- garbage ---

_BITS = (
    b'* |1 |FETCH (|UID |FLAGS (|)|(|BODY[|] |{3}\r\n|{99999999999}\r\n|~{1}\r\n|\r\n|\n|"|\\|NIL|LIST |STATUS |'
    b"SEARCH |ESEARCH |OK [|COPYUID 1 1:9 2|] |VANISHED |ID |NAMESPACE |QUOTA |(EARLIER) |1:9|,|*|\0STREAMED|\0|\xff|"
    b"&AO|-|/|+ |a1 NO x|INTERNALDATE |RFC822.SIZE |MODSEQ |ENVELOPE |X-GM-LABELS |<0>|{0}\r\n"
).split(b"|")


@given(st.lists(st.one_of(st.sampled_from(_BITS), st.binary(max_size=4)), max_size=40).map(b"".join), st.booleans())
@settings(max_examples=500, deadline=None)
def test_garbage_raises_protocol_errors_only(data: bytes, starred: bool) -> None:
    every_way(b"* " + data if starred else data, inline_max=20, tail=False)
    with contextlib.suppress(ProtocolError):
        parse_answer(data)


@pytest.mark.parametrize(
    "line",
    [
        b"* 1 FETCH (" + b"X[ " * 100_000 + b")\r\n",
        b"* 1 FETCH (" + b'X["' * 100_000 + b")\r\n",
        b"* 1 FETCH (X (" + b'"\\" ' * 50_000 + b"))\r\n",
        b"* 1 FETCH (" + b'X "\\" ' * 50_000 + b")\r\n",
        b"* ID (" + b'"\\" ' * 50_000 + b"))\r\n",
        b'* LIST () "/" x' + b" ((" * 2600 + b"x\r\n",
        b'* LIST () "/" x' + b" (a (" * 1600 + b"x\r\n",
    ],
    ids=lambda line: line[:16].decode(),
)
def test_beginnings_without_an_end_take_time_by_their_length(line: bytes) -> None:
    """Minutes to hours if each were looked for up to the end of the line."""
    client = ImapClient()
    client.receive(line)
    assert client.next_event() is not None
