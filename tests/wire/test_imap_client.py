"""A connection to another server: what goes out when, streaming, limits, and staying in step."""

import random
from pathlib import Path

import pytest

from mailkeep.errors import PeerLimitError, ProtocolError
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_answer, imap_client, imap_command
from mailkeep.wire import imap_command as c
from mailkeep.wire.imap_answer import STREAMED, BodyChunk, BodyStart, Code, Continue, Exists, Fetched, Status
from mailkeep.wire.imap_client import ImapClient, ToSend
from mailkeep.wire.imap_command import FetchBody, RawName, Section
from mailkeep.wire.imap_fetch_items import label
from mailkeep.wire.imap_format import format_command
from tests.wire.answering import answers, every_way
from tests.wire.feeding import pieces

GO = b"+ go\r\n"


def said(client: ImapClient, data: bytes) -> list[object]:
    client.receive(data)
    seen: list[object] = []
    while (event := client.next_event()) is not None:
        seen.append(event)
    return seen


# --- commands out ---

WRITTEN: list[tuple[c.ClientCommand, bytes]] = [
    (c.Compress(), b"COMPRESS DEFLATE"),
    (c.Unselect(), b"UNSELECT"),
    (c.Id((("name", "mailkeep"),)), b'ID ("name" "mailkeep")'),
    (c.Enable(("QRESYNC", "UTF8=ACCEPT")), b"ENABLE QRESYNC UTF8=ACCEPT"),
    (c.GetQuotaRoot("INBOX"), b"GETQUOTAROOT INBOX"),
    (c.List("XLIST", "", ("*",)), b'XLIST "" "*"'),
    (
        c.List("LIST", "", ("*",), True, returns=frozenset(["SUBSCRIBED", "SPECIAL-USE"]), status=("SIZE", "UIDNEXT")),
        b'LIST "" ("*") RETURN (SPECIAL-USE SUBSCRIBED STATUS (SIZE UIDNEXT))',
    ),
    (
        c.Select("a b", True, qresync=c.QResync(7, 9, NumSet.parse(b"1:5"))),
        b'EXAMINE "a b" (QRESYNC (7 9 1:5))',
    ),
    (
        c.Fetch(True, NumSet.parse(b"1:*"), ("UID", "FLAGS", "X-GM-MSGID", "X-GM-THRID", "X-GM-LABELS"), 5, True),
        b"UID FETCH 1:* (UID FLAGS X-GM-MSGID X-GM-THRID X-GM-LABELS) (CHANGEDSINCE 5 VANISHED)",
    ),
    (
        c.Fetch(True, NumSet.parse(b"7"), ("UID", FetchBody(Section(), True, label=label("BODY", Section(), None)))),
        b"UID FETCH 7 (UID BODY.PEEK[])",
    ),
    (c.Move(True, NumSet.parse(b"7"), "x"), b"UID MOVE 7 x"),
    (c.Notify(), b"NOTIFY NONE"),
    (
        c.Notify(
            (
                c.NotifyGroup("SELECTED", ("MessageNew", "MessageExpunge"), fetch=("UID", "FLAGS")),
                c.NotifyGroup("SUBTREE", ("MailboxName",), ("a b", "é")),
                c.NotifyGroup("PERSONAL", ()),
            ),
            status=True,
        ),
        b'NOTIFY SET STATUS (SELECTED (MessageNew (UID FLAGS) MessageExpunge)) (SUBTREE ("a b" &AOk-) (MailboxName))'
        b" (PERSONAL NONE)",
    ),
    (
        c.StoreLabels(True, NumSet.parse(b"7"), "+", True, ("\\Inbox", "a b", "Entwürfe")),
        b'UID STORE 7 +X-GM-LABELS.SILENT (\\Inbox "a b" Entw&APw-rfe)',
    ),
    (c.Select(RawName.of("éé", b"&AOk-&AOk-"), False), b"SELECT &AOk-&AOk-"),
    (c.Delete(RawName.of("x", b"&Jjo!")), b"DELETE &Jjo!"),
    (c.Delete(RawName.of("x", b"\xe9")), b"DELETE {1+}\r\n\xe9"),
    (c.Rename("a", RawName.of("x", b"")), b'RENAME a ""'),
]


@pytest.mark.parametrize(("command", "line"), WRITTEN)
def test_commands_of_a_client(command: c.ClientCommand, line: bytes) -> None:
    assert format_command(b"A1", command) == b"A1 " + line + b"\r\n"
    client = ImapClient()
    client.literal_plus = True
    assert client.send(command) == b"A1 " + line + b"\r\n"
    assert client.tag == b"A1"


def login(client: ImapClient) -> bytes:
    return client.send(c.Login("é".encode(), "ü{1+}\r\n".encode()))


def test_a_literal_waits() -> None:
    client = ImapClient()
    assert login(client) == b"A1 LOGIN {2}\r\n"
    assert client.send(c.Noop()) == b""  # behind it
    assert client.tag == b"A2"
    assert said(client, GO) == [ToSend("é {8}\r\n".encode())]
    assert said(client, b"* OK still here\r\n") == [Status(None, "OK", None, "still here")]
    assert said(client, GO) == [ToSend("ü{1+}\r\n\r\nA2 NOOP\r\n".encode())]
    assert client.send(c.Noop()) == b"A3 NOOP\r\n"
    assert said(client, GO) == [Continue(b"go")]


def test_a_literal_is_refused() -> None:
    client = ImapClient()
    login(client)
    client.send(c.Noop(), b"x")
    assert said(client, b"A1 NO no\r\n") == [Status(b"A1", "NO", None, "no"), ToSend(b"x NOOP\r\n")]
    assert client.send(c.Noop()) == b"A2 NOOP\r\n"


def test_literals_that_do_not_wait() -> None:
    client = ImapClient()
    client.literal_plus = True
    assert login(client) == "A1 LOGIN {2+}\r\né {8+}\r\nü{1+}\r\n\r\n".encode()
    client = ImapClient()
    client.literal_minus = True
    assert client.send(c.Login(b"x", b"\xff" * 4096)).startswith(b"A1 LOGIN x {4096+}\r\n")
    assert client.send(c.Login(b"x", b"\xff" * 4097)) == b"A2 LOGIN x {4097}\r\n"


def test_append_waits_for_the_server() -> None:
    client = ImapClient()
    assert client.start_append("a", 3, flags=("\\Seen",), internaldate=0) == (
        b'A1 APPEND a (\\Seen) "01-Jan-1970 00:00:00 +0000" {3}\r\n'
    )
    assert client.append_waits
    assert client.send(c.Noop()) == b""
    assert said(client, GO) == [Continue(b"go")]
    assert client.send(c.Noop()) == b""
    assert client.end_append() == b"\r\nA2 NOOP\r\nA3 NOOP\r\n"
    answer = Status(b"A1", "OK", Code("APPENDUID", (1, NumSet.of([5]))), "")
    assert said(client, b"A1 OK [APPENDUID 1 5]\r\n") == [answer]


def test_append_is_refused_unseen() -> None:
    client = ImapClient()
    client.start_append("a", 3)
    client.send(c.Noop())
    assert client.appending
    assert said(client, b"A1 NO [TRYCREATE] no\r\n") == [
        Status(b"A1", "NO", Code("TRYCREATE"), "no"),
        ToSend(b"A2 NOOP\r\n"),
    ]
    assert not client.appending


def test_append_that_need_not_wait() -> None:
    client = ImapClient()
    client.literal_plus = client.utf8 = True
    assert client.start_append("é", 3, utf8=True) == 'A1 APPEND "é" UTF8 (~{3+}\r\n'.encode()
    assert not client.append_waits
    # A refusal under way changes nothing: the message goes on.
    assert said(client, b"A1 NO full\r\n") == [Status(b"A1", "NO", None, "full")]
    assert client.appending
    assert client.end_append() == b")\r\n"


def test_append_behind_a_literal_that_waits() -> None:
    client = ImapClient()
    client.literal_minus = True
    client.send(c.Login(b"x", b"\xff" * 5000))
    assert client.start_append("a", 3) == b""
    assert client.append_waits
    assert said(client, GO) == [ToSend(b"\xff" * 5000 + b"\r\nA2 APPEND a {3}\r\n")]
    assert said(client, GO) == [Continue(b"go")]
    assert client.end_append() == b"\r\n"
    # … and when that one is refused
    client.send(c.Login(b"x", b"\xff" * 5000))
    client.start_append("a", 3)
    assert said(client, b"A3 BAD\r\n")[1] == ToSend(b"A4 APPEND a {3}\r\n")
    # a name that needs a literal itself
    client = ImapClient()
    assert client.start_append(RawName.of("x", b"\xe9"), 3) == b"A1 APPEND {1}\r\n"
    assert said(client, GO) == [ToSend(b"\xe9 {3}\r\n")]
    assert said(client, GO) == [Continue(b"go")]


# --- answers in ---

BODY = bytes(range(256)) * 20


def test_large_bodies_are_streamed() -> None:
    before = Fetched(1, 7, sections={b"BODY[HEADER]": b"x"})
    data = b"* 1 FETCH (UID 7 BODY[HEADER] {1}\r\nx BODY[] {%d}\r\n%b FLAGS () RFC822 {%d}\r\n%b)\r\n* 9 EXISTS\r\n"
    data %= len(BODY), BODY, len(BODY), BODY
    whole = {b"BODY[HEADER]": b"x", b"BODY[]": STREAMED, b"RFC822": STREAMED}
    assert every_way(data, inline_max=1000) == [
        BodyStart(b"BODY[]", len(BODY), before),
        BodyChunk(BODY),
        BodyStart(b"RFC822", len(BODY), Fetched(1, 7, frozenset(), sections=before.sections | {b"BODY[]": STREAMED})),  # type: ignore[operator]
        BodyChunk(BODY),
        Fetched(1, 7, frozenset(), sections=whole),
        Exists(9),
    ]


def test_memory_of_a_streamed_body_is_bounded() -> None:
    client = ImapClient(inline_max=1000)
    client.receive(b"* 1 FETCH (BODY[] {1000000000}\r\n")
    assert isinstance(client.next_event(), BodyStart)
    for _ in range(1000):
        client.receive(memoryview(BODY))
        assert client.next_event() == BodyChunk(BODY)
        assert client.next_event() is None
        assert client.buffered < 100


def test_only_sections_are_streamed() -> None:
    data = b"* 1 FETCH (ENVELOPE ({2000}\r\n" + b"x" * 2000 + b"))\r\n"
    assert every_way(data, inline_max=1000) == [Fetched(1, values={"ENVELOPE": (b"x" * 2000,)})]
    # What looks like our own mark for a streamed body.
    assert every_way(b"* 1 FETCH (X \0STREAMED)\r\n") == [Fetched(1, values={"X": STREAMED})]


def test_limits() -> None:
    for data in (b"* OK " + b"x" * 2000, b"* 1 FETCH (ENVELOPE ({2000}\r\n", b"* 1 FETCH (X {1}\r\na {1999}\r\n"):
        for _, chunks in pieces(data):
            seen = answers(chunks, answer_max=1000)
            assert seen == ["The server's answer is too long"]
    client = ImapClient(answer_max=1000)
    client.receive(b"* LIST {99999999999999999999999}\r\n")
    for _ in range(2):
        with pytest.raises(PeerLimitError if _ == 0 else ProtocolError):
            client.next_event()


def test_out_of_step_for_good() -> None:
    # A literal announced too short: the rest of the mail must not be taken for answers.
    data = b"* 1 FETCH (BODY[] {3}\r\nabc\r\nHello\r\n* 5 EXPUNGE\r\n)\r\n"
    assert every_way(data) == [Fetched(1, sections={b"BODY[]": b"abc"}), "The server is out of step"]
    client = ImapClient()
    client.receive(b"Subject: x\r\n* 5 EXPUNGE\r\n")
    for _ in range(3):
        with pytest.raises(ProtocolError):
            client.next_event()
        client.receive(b"* 6 EXPUNGE\r\n")
    assert client.buffered < 20


def test_what_is_left_in_the_buffer_is_told() -> None:
    client = ImapClient()
    assert said(client, b"A1 OK begin TLS\r\n") == [Status(b"A1", "OK", None, "begin TLS")]
    assert client.buffered == 0
    client.receive(b"A1 OK begin TLS\r\n* 1 EX")
    client.next_event()
    assert client.buffered == 6
    assert client.next_event() is None
    assert client.buffered == 6
    client.receive(b"ISTS")
    assert client.buffered == 10
    assert said(client, b"\r\n") == [Exists(1)]


def test_a_long_answer_of_many_literals_in_small_pieces() -> None:
    values = tuple(b"v%d\r\n" % number for number in range(30_000))
    data = b"* 1 FETCH (X (" + b" ".join(b"{%d}\r\n%b" % (len(value), value) for value in values) + b"))\r\n"
    rng = random.Random(7)
    cut, chunks = 0, []
    while cut < len(data):
        size = rng.randrange(1, 300)
        chunks.append(data[cut : cut + size])
        cut += size
    assert answers(chunks) == [Fetched(1, values={"X": values})]


# --- transcripts ---

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts" / "servers").glob("*.txt"))
NAMES = {**vars(imap_command), **vars(imap_client), **vars(imap_answer)}
NAMES["numbers"] = lambda text: NumSet.parse(text.encode("ascii"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_transcripts_of_servers(path: Path) -> None:
    """S: what a server writes. A: the answer that is seen, as an expression. Others are comments."""
    heard, expected = b"", []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("S: "):
            heard += line[3:].encode("utf-8") + b"\r\n"
        elif line.startswith("A: "):
            expected.append(eval(line[3:], NAMES))
    assert expected
    assert every_way(heard) == expected


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 8
