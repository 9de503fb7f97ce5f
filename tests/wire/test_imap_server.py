"""The server's codec: events, limits, staying in step, whatever comes and however it is cut."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as c
from mailkeep.wire.imap_server import (
    AppendData,
    AppendEnd,
    AppendStart,
    Bad,
    CommandReceived,
    Continue,
    Event,
    Fatal,
    ImapServer,
    Limits,
    Line,
)
from tests.wire.feeding import events, every_way, pieces

GO_ON = Continue(b"+ OK\r\n")
SMALL = Limits(line_max=100, literal_max=20, append_max=2000)


def done(tag: bytes, command: c.Command) -> CommandReceived:
    return CommandReceived(tag, command)


def append(tag: bytes, size: int, mailbox: str = "a", **more: bool) -> AppendStart:
    return AppendStart(tag, c.Append(mailbox, (), None, size, **more))


NOOP = c.Noop()
LOGIN = c.Login(b"a", b"b")
END_JUNK = "Unexpected text after the message"
NUL = "NUL octet in a literal; a literal8 may carry it"

CASES: list[tuple[bytes, list[Event]]] = [
    (b"1 NOOP\r\n2 NOOP\r\n", [done(b"1", NOOP), done(b"2", NOOP)]),
    (b"1 NOOP\n2 noop\n", [done(b"1", NOOP), done(b"2", NOOP)]),
    (b"1 LOGIN {1}\r\na {1}\r\nb\r\n", [GO_ON, GO_ON, done(b"1", LOGIN)]),
    (b"1 LOGIN {1+}\r\na {1+}\r\nb\r\n", [done(b"1", LOGIN)]),
    (b"1 LOGIN {1+}\r\na {1}\r\nb\r\n", [GO_ON, done(b"1", LOGIN)]),
    # A literal that holds what looks like the end of one command and another command.
    (b"1 LOGIN a {11+}\r\nb\r\n2 NOOP\r\n\r\n", [done(b"1", c.Login(b"a", b"b\r\n2 NOOP\r\n"))]),
    # Bad commands stay in step with their literals.
    (b"1 FOO\r\n", [Bad(b"1", "Unknown command")]),
    (b"\r\n", [Bad(None, "Empty line")]),
    (b"1 FOO {3}\r\nabc\r\n", [GO_ON, Bad(b"1", "Unknown command")]),
    (b"1 FOO {3+}\r\nabc {8+}\r\n2 NOOP\r\n\r\n", [Bad(b"1", "Unknown command")]),
    (b"1 NO\0OP\r\n", [Bad(b"1", "Unknown command")]),
    (b"1 LOGIN a {2+}\r\n\0b\r\n", [Bad(b"1", "NUL in literal")]),
    (b"(1 {2+}\r\nab\r\n", [Bad(None, "Expected a tag and a command")]),
    (b"1 SELECT &\r\n", [Bad(b"1", "Mailbox name is not valid modified UTF-7", "CANNOT")]),
    (b"1 APPEND a b\r\n", [Bad(b"1", "APPEND needs a message literal")]),
    # APPEND streams; what follows the message decides.
    (b"1 APPEND a {3}\r\nb\r\n\r\n", [append(b"1", 3), AppendData(b"b\r\n"), AppendEnd()]),
    (b"1 APPEND a {3+}\r\nb\n\n  \n", [append(b"1", 3), AppendData(b"b\n\n"), AppendEnd()]),
    (b"1 APPEND a {0}\r\n\r\n", [append(b"1", 0), AppendEnd()]),
    (b"1 APPEND {1}\r\na {2}\r\nhi\r\n", [GO_ON, append(b"1", 2), AppendData(b"hi"), AppendEnd()]),
    (b"1 APPEND {1+}\r\na {2+}\r\nhi\r\n", [append(b"1", 2), AppendData(b"hi"), AppendEnd()]),
    (b"1 APPEND a ~{2}\r\n\0i\r\n", [append(b"1", 2, binary=True), AppendData(b"\0i"), AppendEnd()]),
    (b"1 APPEND a {2}\r\n\0i\r\n", [append(b"1", 2), AppendData(b"\0i"), Bad(b"1", NUL)]),
    (
        b"1 APPEND a UTF8 (~{2}\r\nhi)\r\n",
        [append(b"1", 2, utf8=True, binary=True), AppendData(b"hi"), AppendEnd()],
    ),
    (
        b"1 APPEND a UTF8 (~{2}\r\nhi\r\n",
        [append(b"1", 2, utf8=True, binary=True), AppendData(b"hi"), Bad(b"1", END_JUNK)],
    ),
    (b"1 APPEND a {2}\r\nhi)\r\n", [append(b"1", 2), AppendData(b"hi"), Bad(b"1", END_JUNK)]),
    (b"1 APPEND a {2}\r\nhi {3}\r\n", [append(b"1", 2), AppendData(b"hi"), Bad(b"1", END_JUNK)]),
    (b"1 APPEND a {2}\r\nhi {3+}\r\nxyz\r\n", [append(b"1", 2), AppendData(b"hi"), Bad(b"1", "Unexpected literal")]),
    # A bad head: the message is not asked for, or swallowed.
    (b"1 APPEND a (x {2}\r\n", [Bad(b"1", "Expected flag")]),
    (b"1 APPEND a (x {2+}\r\nhi\r\n", [Bad(b"1", "Expected flag")]),
    (b"1 APPEND & {2+}\r\nhi\r\n", [Bad(b"1", "Mailbox name is not valid modified UTF-7", "CANNOT")]),
    # IDLE, and commands in the packet that brings DONE.
    (b"1 IDLE\r\nDONE\r\n2 NOOP\r\n", [done(b"1", c.Idle()), Line(b"DONE"), done(b"2", NOOP)]),
    (b"1 IDLE\ndone {3+}\n2 NOOP\r\n", [done(b"1", c.Idle()), Line(b"done {3+}"), done(b"2", NOOP)]),
    (
        b"1 AUTHENTICATE PLAIN\r\nAGEAYg==\r\n2 NOOP\r\n",
        [done(b"1", c.Authenticate("PLAIN", None)), Line(b"AGEAYg=="), done(b"2", NOOP)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), CASES, ids=[data[:30].decode("latin-1") for data, _ in CASES])
def test_events(data: bytes, expected: list[Event]) -> None:
    assert every_way(data) == expected


LIMITED: list[tuple[bytes, list[Event]]] = [
    (b"1 LOGIN a " + b"b" * 200 + b"\r\n", [Bad(b"1", "Command line too long")]),
    (b"x" * 200 + b"\r\n", [Bad(None, "Command line too long")]),
    (b"1 LOGIN a " + b"b" * 200 + b" {3+}\r\nabc\r\n", [Bad(b"1", "Command line too long")]),
    (b"1 LOGIN a {21}\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 LOGIN a {21+}\r\n" + b"x" * 21 + b"\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 LOGIN {19+}\r\n" + b"x" * 19 + b" {2}\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 APPEND {21}\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 APPEND a {2001}\r\n", [Bad(b"1", "Message is too large", "TOOBIG")]),
    (b"1 APPEND a {2147483648}\r\n", [Bad(b"1", "Message is too large", "TOOBIG")]),
    (b"1 APPEND a {99999999999999999999999}\r\n", [Bad(b"1", "Message is too large", "TOOBIG")]),
    (b"1 LOGIN a {2147483648}\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 LOGIN a {99999999999999999999999}\r\n", [Bad(b"1", "Literal too large")]),
    (b"1 APPEND a {2001+}\r\n", [Fatal("Literal too large")]),
    (b"1 APPEND a {2147483648+}\r\n2 NOOP\r\n", [Fatal("Literal too large")]),
    (b"1 LOGIN a {2147483648+}\r\n2 NOOP\r\n", [Fatal("Literal too large")]),
    (b"1 APPEND a {1}\r\nx {2147483648+}\r\n", [append(b"1", 1), AppendData(b"x"), Fatal("Literal too large")]),
    (b"1 IDLE\r\n" + b"x" * 200 + b"\r\n", [done(b"1", c.Idle()), Fatal("Line too long")]),
    (b"x" * 3000, [Fatal("Command line too long")]),
]


@pytest.mark.parametrize(("data", "expected"), LIMITED, ids=[data[:30].decode("latin-1") for data, _ in LIMITED])
def test_limits(data: bytes, expected: list[Event]) -> None:
    assert every_way(data, limits=SMALL) == expected


REFUSED: list[tuple[bytes, list[Event]]] = [
    (b"1 APPEND a {5}\r\n2 NOOP\r\n", [append(b"1", 5), done(b"2", NOOP)]),
    (b"1 APPEND a {8+}\r\n2 NOOP\r\n\r\n3 NOOP\r\n", [append(b"1", 8), done(b"3", NOOP)]),
    (b"1 APPEND a {1+}\r\nx (y) {8+}\r\n2 NOOP\r\n\r\n3 NOOP\r\n", [append(b"1", 1), done(b"3", NOOP)]),
]


@pytest.mark.parametrize(("data", "expected"), REFUSED)
def test_a_refused_append_passes_by_in_silence(data: bytes, expected: list[Event]) -> None:
    assert every_way(data, accept=False) == expected


def test_append_waits_for_the_decision() -> None:
    server = ImapServer()
    server.receive(b"1 APPEND a {2}\r\nhi\r\n2 NOOP\r\n")
    assert server.next_event() == append(b"1", 2)
    assert server.next_event() is None
    assert server.accept_append() == b"+ OK\r\n"
    assert server.next_event() == AppendData(b"hi")
    assert server.next_event() == AppendEnd()
    assert server.next_event() == done(b"2", NOOP)
    server.receive(b"3 APPEND a {2+}\r\n")
    assert server.next_event() == append(b"3", 2)
    assert server.accept_append() == b"", "nobody waits for a continuation"


def test_a_streamed_message_is_not_held() -> None:
    server = ImapServer()
    server.receive(b"1 APPEND a {10000000+}\r\n")
    assert server.next_event() == append(b"1", 10_000_000)
    server.accept_append()
    block = b"x" * 100_000
    for _ in range(100):
        server.receive(block)
        event = server.next_event()
        assert isinstance(event, AppendData)
        assert event.data is block, "no copy either"
        assert server.next_event() is None
        assert server.buffered == 0


def test_starttls_can_see_what_was_injected() -> None:
    server = ImapServer()
    server.receive(b"1 STARTTLS\r\n2 NOOP\r\n")
    assert server.next_event() == done(b"1", c.StartTls())
    assert server.buffered == len(b"2 NOOP\r\n")
    server = ImapServer()
    server.receive(b"1 STARTTLS\r\n")
    assert server.next_event() == done(b"1", c.StartTls())
    assert server.buffered == 0


def test_strangers_get_less_than_users() -> None:
    server = ImapServer(SMALL)
    server.receive(b"1 LOGIN a {21}\r\n2 LOGIN a b\r\n3 SELECT {21}\r\n")
    assert server.next_event() == Bad(b"1", "Literal too large")
    assert server.next_event() == done(b"2", LOGIN)
    server.limits = Limits()
    assert server.limits.literal_max > 21
    assert server.next_event() == GO_ON


def test_utf8_changes_what_comes_after() -> None:
    server = ImapServer()
    server.receive(b'1 SELECT &U,BTFw-\r\n2 SELECT &U,BTFw-\r\n3 SELECT "\xe5\x8f\xb0"\r\n')
    assert server.next_event() == done(b"1", c.Select("台北", False))
    server.utf8 = True
    assert server.next_event() == done(b"2", c.Select("&U,BTFw-", False))
    assert server.next_event() == done(b"3", c.Select("台", False))


@pytest.mark.parametrize(
    ("bad", "reply"),
    [
        (Bad(b"1", "No"), b"1 BAD No\r\n"),
        (Bad(None, "No"), b"* BAD No\r\n"),
        (Bad(b"1", "No", "TOOBIG"), b"1 NO [TOOBIG] No\r\n"),
        (Bad(None, "No", "TOOBIG"), b"* BAD No\r\n"),
    ],
)
def test_replies(bad: Bad, reply: bytes) -> None:
    assert bad.reply == reply


# --- properties ---

_WORDS = st.sampled_from(
    [
        *(b"a1 ", b"b ", b"NOOP", b"FETCH ", b"UID ", b"STORE ", b"SEARCH ", b"APPEND ", b"LIST ", b"SELECT ", b"IDLE"),
        *(
            b"ID ",
            b"1:* ",
            b"(",
            b")",
            b"[",
            b"]",
            b"<",
            b">",
            b'"',
            b"\\",
            b"{",
            b"}",
            b"{3}",
            b"{3+}\r\n",
            b"~{2+}\r\n",
        ),
        *(b"{1}\r\n", b"FLAGS ", b"BODY", b"BODY.PEEK[HEADER.FIELDS (", b"OR ", b"NOT ", b"RETURN ", b"CHARSET "),
        *(b"inbox ", b"&-", b"$", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\xff", b"1-Feb-1994 ", b"99999999999 "),
        *(b"DONE\r\n", b"QRESYNC (1 "),
    ]
)
_GARBAGE = st.one_of(
    st.binary(max_size=300),
    st.lists(_WORDS, max_size=40).map(b"".join),
    st.lists(st.one_of(_WORDS, st.binary(max_size=5)), max_size=30).map(b"".join),
)


@given(_GARBAGE, st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_garbage_gives_events_and_never_an_exception(data: bytes, accept: bool, utf8: bool) -> None:
    seen = events([data], limits=SMALL, accept=accept, utf8=utf8)
    for name, chunks in pieces(data):
        assert events(chunks, limits=SMALL, accept=accept, utf8=utf8) == seen, name
    for event in seen:
        if isinstance(event, Bad):
            assert event.reply.endswith(b"\r\n")
            assert event.reply.count(b"\n") == 1


@given(_GARBAGE)
@settings(max_examples=200, deadline=None)
def test_garbage_in_a_literal_or_after_a_line_end_keeps_step(data: bytes) -> None:
    line = data.replace(b"\r", b"").replace(b"\n", b"").replace(b"}", b"")
    inside = b"1 FOO {%d+}\r\n%b%b\r\n2 NOOP\r\n" % (len(data), data, line)
    assert events([inside])[-1] == done(b"2", NOOP)
    assert len(events([inside])) == 2


def test_an_endless_flood_of_literals_keeps_memory_and_time_bounded() -> None:
    start = time.process_time()
    seen = events([b"1 FOO " + b"{0+}\r\n" * 100_000 + b"\r\n2 NOOP\r\n"])
    assert seen == [Bad(b"1", "Too many literals"), done(b"2", NOOP)]
    assert time.process_time() - start < 5


def test_a_slow_sender_costs_linear_time() -> None:
    server = ImapServer()
    start = time.process_time()
    for octet in b"1 LOGIN a " + b"b" * 60_000:
        server.receive(bytes((octet,)))
        assert server.next_event() is None
    server.receive(b"\r\n")
    assert server.next_event() == done(b"1", c.Login(b"a", b"b" * 60_000))
    assert time.process_time() - start < 5


def test_a_thousand_commands_of_one_read_are_quick() -> None:
    server = ImapServer()
    data = b"".join(b"%d UID FETCH %d (FLAGS)\r\n" % (n, n) for n in range(1, 5001))
    start = time.process_time()
    server.receive(data)
    for number in range(1, 5001):
        event = server.next_event()
        assert event == done(b"%d" % number, c.Fetch(True, NumSet(((number, number),)), ("UID", "FLAGS")))
    assert server.next_event() is None
    assert time.process_time() - start < 1, "20 ms on a quiet machine"
