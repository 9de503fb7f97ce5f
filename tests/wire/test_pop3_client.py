"""The POP3 codec, the client's side: every case whole, byte by byte and with a tail; against our own server's side."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.errors import PeerLimitError, ProtocolError
from mailkeep.wire import pop3, pop3_client
from mailkeep.wire.pop3_client import EXCHANGE, MULTI, SINGLE, Challenge, Chunk, End, Event, Pop3Client, Reply

SIZES = (1, 2, 3, 7, 1 << 20)
TAIL = b"+OK tail\r\n"


def feed(data: bytes, size: int, awaits: list[int], *, closed: bool = False, lenient: bool = False) -> list[Event]:
    """All events of a connection whose greeting was read; the chunks of one response are joined."""
    codec, events = Pop3Client(), list[Event]()
    codec.lenient_end = lenient
    codec.receive(b"+OK\r\n")
    assert codec.next_event() == Reply(True, "")
    for kind in awaits:
        codec.send("NOOP", awaits=kind)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for piece in pieces:
        codec.receive(piece)
        gather(codec, events)
    if closed:
        codec.end()
        gather(codec, events)
    return events


def gather(codec: Pop3Client, events: list[Event]) -> None:
    while (event := codec.next_event()) is not None:
        if isinstance(event, Chunk) and events and isinstance(events[-1], Chunk):
            events[-1] = Chunk(events[-1].data + event.data)
        else:
            events.append(event)


def message(body: bytes, *, text: str = "", complete: bool = True) -> list[Event]:
    return [Reply(True, text), *([Chunk(body)] if body else []), End(complete, len(body))]


REPLIES = {
    b"+OK\r\n": Reply(True, ""),
    b"+OK ready when you are\r\n": Reply(True, "ready when you are"),
    b"+ok lower\r\n": Reply(True, "lower"),
    b"+OK\ttab\n": Reply(True, "tab"),
    b"\r\n\r\n+OK after blank lines\r\n": Reply(True, "after blank lines"),
    b"-ERR\n": Reply(False, ""),
    b"-ERR [IN-USE] Do you have another POP session running?\r\n": Reply(
        False, "Do you have another POP session running?", "IN-USE"
    ),
    b"-ERR [sys/temp]later\r\n": Reply(False, "later", "SYS/TEMP"),
    b"-ERR [no code\r\n": Reply(False, "[no code"),
    b"-ERR [] empty\r\n": Reply(False, "[] empty"),
    b"+OK gr\xfc\xdfe\r\n": Reply(True, "gr��e"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("line", "reply"), REPLIES.items())
def test_replies(line: bytes, reply: Reply, size: int) -> None:
    assert feed(line + TAIL, size, [SINGLE, SINGLE]) == [reply, Reply(True, "tail")]


BODIES = {
    b"+OK\r\n.\r\n": b"",
    b"+OK\r\nA: b\r\n\r\nc\r\n.\r\n": b"A: b\r\n\r\nc\r\n",
    b"+OK\r\n..\r\n.\r\n": b".\r\n",
    b"+OK\r\n...x\r\n..\r\n.\r\n": b"..x\r\n.\r\n",
    b"+OK\r\nx\r\n..\r\n..y\r\n.\r\n": b"x\r\n.\r\n.y\r\n",
    b"+OK\r\n\r\n\r\n.\r\n": b"\r\n\r\n",
    # A bare LF among CRLF lines is text.
    b"+OK\r\nx\r\na\n.\r\nb\r\n.\r\n": b"x\r\na\n.\r\nb\r\n",
    b"+OK\r\nx\r\na\n..b\r\n.\r\n": b"x\r\na\n..b\r\n",
    b"+OK\r\nx\r\na\r.\r\n.\r\n": b"x\r\na\r.\r\n",
    # Never stuffed: the dot stays.
    b"+OK\r\nx\r\n.y\r\n.\r\n": b"x\r\n.y\r\n",
    b"+OK\r\n.y\r\n.\r\n": b".y\r\n",
    # Lines in LF.
    b"+OK\n.\n": b"",
    b"+OK\n.\r\n": b"",
    b"+OK\na\nb\n..\n...\n.\n": b"a\r\nb\r\n.\r\n..\r\n",
    b"+OK\na\r\nb\n.\r\n": b"a\r\nb\r\n",
    b"+OK\n\n\n.\n": b"\r\n\r\n",
    # Replies in CRLF, the message in LF.
    b"+OK\r\na\n\n..b\n.\r\n": b"a\r\n\r\n.b\r\n",
    b"+OK\r\na\n.\nb\r\n\r\n.\r\n": b"a\r\n.\r\nb\r\n\r\n",
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("sent", "body"), BODIES.items())
def test_messages(sent: bytes, body: bytes, size: int) -> None:
    assert feed(sent + TAIL, size, [MULTI, SINGLE]) == [*message(body), Reply(True, "tail")]
    assert feed(sent + sent, size, [MULTI, MULTI]) == message(body) * 2


@pytest.mark.parametrize("size", SIZES)
def test_a_last_line_in_lf_is_an_end_only_when_leniency_was_asked_for(size: int) -> None:
    sent = b"+OK\r\na\r\nb\n.\r\n"
    assert feed(sent, size, [MULTI])[0] == Reply(True, "")
    assert not any(isinstance(event, End) for event in feed(sent, size, [MULTI]))
    assert feed(sent, size, [MULTI], lenient=True) == message(b"a\r\nb\n")


CUT = {
    b"+OK\r\n": b"",
    b"+OK\r\n.": b"",
    b"+OK\r\n.\r": b"",
    b"+OK\r\nabc": b"abc",
    b"+OK\r\nabc\r": b"abc\r",
    b"+OK\r\nabc\r\n": b"abc\r\n",
    b"+OK\r\nabc\r\n.": b"abc\r\n",
    b"+OK\r\nabc\r\n.\r": b"abc\r\n",
    b"+OK\r\nabc\r\n..": b"abc\r\n.",
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("sent", "body"), CUT.items())
def test_a_cut_message_is_told_from_a_whole_one(sent: bytes, body: bytes, size: int) -> None:
    assert feed(sent, size, [MULTI], closed=True) == message(body, complete=False)


def test_a_message_without_an_end_can_be_given_up() -> None:
    codec = Pop3Client()
    codec.receive(b"+OK\r\n")
    codec.next_event()
    codec.send("RETR", 1, awaits=MULTI)
    codec.receive(b"+OK\r\nabc\r\n")
    events: list[Event] = []
    gather(codec, events)
    codec.give_up()
    gather(codec, events)
    assert events == message(b"abc\r\n", complete=False)
    codec.send("RETR", 2, awaits=MULTI)
    codec.receive(b"+OK\r\nx\r\n.\r\n")
    events.clear()
    gather(codec, events)
    assert events == message(b"x\r\n")


def test_a_refused_multi_line_command_has_no_body() -> None:
    assert feed(b"-ERR no such message\r\n+OK\r\nx\r\n.\r\n", 1, [MULTI, MULTI]) == [
        Reply(False, "no such message"),
        *message(b"x\r\n"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_sasl_exchange(size: int) -> None:
    challenge = base64.b64encode(b"r=abc")
    assert feed(b"+ \r\n+\r\n+ " + challenge + b"\r\n+OK in\r\n" + TAIL, size, [EXCHANGE, SINGLE]) == [
        Challenge(b""),
        Challenge(b""),
        Challenge(b"r=abc"),
        Reply(True, "in"),
        Reply(True, "tail"),
    ]
    with pytest.raises(ProtocolError):
        feed(b"+ not base64!\r\n", size, [EXCHANGE])


def test_what_we_say_is_what_our_server_reads() -> None:
    client, server = Pop3Client(), pop3.Pop3Server()
    for sent, read in (
        (client.send("RETR", 7), pop3.Command("RETR", (7,))),
        (client.send("TOP", 3, 0, awaits=MULTI), pop3.Command("TOP", (3, 0))),
        (client.send("PASS", " pä ss "), pop3.Command("PASS", text=" pä ss ".encode())),
        (client.send("UIDL", awaits=MULTI), pop3.Command("UIDL")),
        (client.send_auth("PLAIN", b"\0a\0b"), pop3.Command("AUTH", text=b"PLAIN AGEAYg==")),
        (client.send_auth("EXTERNAL", b""), pop3.Command("AUTH", text=b"EXTERNAL =")),
        (client.send_auth("SCRAM-SHA-256", None), pop3.Command("AUTH", text=b"SCRAM-SHA-256")),
    ):
        server.receive(sent)
        assert server.next_event() == read
    assert client.awaited == 8  # the greeting is awaited as well
    server.expect_line()
    server.receive(client.respond(b"x"))
    assert server.next_event() == pop3.Line(b"eA==")


@pytest.mark.parametrize("argument", ["a\r\nDELE 1", "a\nb", b"\0"])
def test_an_argument_cannot_become_a_command(argument: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        Pop3Client().send("USER", argument)


TEXT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a"]), max_size=30).map(b"".join)


@given(TEXT, st.integers(1, 6))
def test_what_our_server_sends_comes_back(text: bytes, size: int) -> None:
    text = b"Subject: x\r\n" + text
    body, end = pop3.stuffed(text)
    ended = text if text.endswith(b"\r\n") else text + b"\r\n"
    assert feed(pop3.ok("text") + body + end + TAIL, size, [MULTI, SINGLE]) == [
        *message(ended, text="text"),
        Reply(True, "tail"),
    ]


@given(TEXT)
def test_no_way_of_cutting_changes_anything(text: bytes) -> None:
    for start in (b"+OK\r\n", b"+OK\n"):
        for lenient in (False, True):
            ways = []
            for size in (1, 2, 5, 1 << 20):
                try:
                    ways.append(feed(start + text + b"\r\n.\r\n", size, [MULTI], closed=True, lenient=lenient))
                except ProtocolError:  # an end in the text, and a line that is no reply after it
                    ways.append([])
            assert all(way == ways[0] for way in ways)


def test_our_own_listings_are_read() -> None:
    def lines(data: bytes) -> bytes:
        events = feed(data, 5, [MULTI])
        return events[1].data if isinstance(events[1], Chunk) else b""

    capabilities = pop3_client.parse_capabilities(lines(pop3.multi_line("x", ["TOP", "sasl PLAIN LOGIN", "SASL X"])))
    assert capabilities == {"TOP": (), "SASL": ("PLAIN", "LOGIN", "X")}
    assert pop3_client.parse_list(lines(pop3.multi_line("x", ["1 10", "2 20"]))) == {1: 10, 2: 20}
    assert pop3_client.parse_uidl(lines(pop3.multi_line("x", ["1 a", "2 b"]))) == {1: b"a", 2: b"b"}


def test_junk_in_listings_is_left_out() -> None:
    assert pop3_client.parse_list(b"1 10 extra\r\nx 5\r\n2\r\n 3  30\r\n3 31\r\n4 -1\r\n5 9999999999999999\r\n") == {
        1: 10,
        3: 30,
    }
    long = b"x" * 1001
    junk = b"1 a\r\n2\r\n3 \r\n4 with space \r\n5 \xff\xfe\r\n6 a\r\n7 " + long + b"\r\nx y\r\n8 nul\0\r\n6 b\r\n9 lf\n"
    assert pop3_client.parse_uidl(junk) == {1: b"a", 4: b"with space", 5: b"\xff\xfe", 6: b"a", 9: b"lf"}


def test_blanks_in_a_listing_cost_no_more_than_they_are_long() -> None:
    blanks = b" \t" * 900
    for odd in (b"1 " + blanks + b"\rx", b"1 a" + blanks + b"\rx", blanks + b"1" + blanks, b"1 " + blanks * 1000):
        listing = (odd + b"\r\n") * 20 + b"2 b" + blanks[:100] + b"\r\n"
        assert pop3_client.parse_uidl(listing) == {2: b"b"}  # years, if each blank were tried as each thing
        assert pop3_client.parse_list(listing) == {}


def test_stat() -> None:
    assert pop3_client.parse_stat("3 400") == (3, 400)
    assert pop3_client.parse_stat("3 400 octets") == (3, 400)
    for bad in ("", "3", "three 4", "-1 5", "1 " + "9" * 30, "² 3"):
        with pytest.raises(ProtocolError):
            pop3_client.parse_stat(bad)


def test_apop_as_in_the_rfc() -> None:
    greeting = "POP3 server ready <1896.697170952@dbc.mtview.ca.us>"
    assert pop3_client.apop_digest(greeting, "tanstaaf") == "c4c9334bac560ecc979e58001b3e22fb"
    assert pop3_client.apop_digest("ready", "x") is None
    assert pop3_client.apop_digest("ready <no-at-sign>", "x") is None
    assert pop3_client.apop_digest("ready <\x07x@y>", "x") is None


def test_an_endless_line_ends_the_matter() -> None:
    codec = Pop3Client()
    with pytest.raises(PeerLimitError):
        for _ in range(100):
            codec.receive(b"x" * 1000)
            codec.next_event()
    with pytest.raises(ProtocolError):
        codec.next_event()


def test_memory_is_bounded_in_a_long_message() -> None:
    codec = Pop3Client()
    codec.receive(b"+OK\r\n")
    codec.next_event()
    codec.send("RETR", 1, awaits=MULTI)
    codec.receive(b"+OK\r\n")
    size = 0
    for _ in range(1000):
        codec.receive(b"\r\n.x" * 1000)
        while (event := codec.next_event()) is not None:
            size += len(event.data) if isinstance(event, Chunk) else 0
        assert codec.buffered <= 4
    assert size == 4_000_000 - codec.buffered


def test_speaking_out_of_turn() -> None:
    with pytest.raises(ProtocolError, match="without being asked: bye"):
        feed(b"+OK\r\n-ERR bye\r\n", 1, [SINGLE])


def test_secrets_are_not_shown() -> None:
    assert "geheim" not in repr(Challenge(b"geheim"))
    assert "geheim" not in repr(Chunk(b"geheim"))


@given(st.binary(max_size=300), st.lists(st.sampled_from([SINGLE, MULTI, EXCHANGE]), max_size=4), st.booleans())
def test_garbage_raises_only_protocol_errors(data: bytes, awaits: list[int], lenient: bool) -> None:
    for start in (b"", b"+OK\r\n", b"+OK\n", b"+ "):
        results = []
        for size in (1, 3, 1 << 20):
            try:
                results.append(feed(start + data, size, awaits, closed=True, lenient=lenient))
            except ProtocolError as error:
                results.append([Reply(False, error.text)])
        assert results[0] == results[1] == results[2]
    pop3_client.parse_list(data)
    pop3_client.parse_uidl(data)
    pop3_client.parse_capabilities(data)
