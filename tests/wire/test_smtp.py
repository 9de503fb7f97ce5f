"""The LMTP/SMTP codec: every case whole, byte by byte and with a tail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.wire import smtp
from mailkeep.wire.smtp import Bad, Chunk, Content, Hello, Mail, Quit, Rcpt, Reply, Rset, SmtpServer

COMMANDS = {
    b"LHLO client.example\r\n": Hello("LHLO", "client.example"),
    b"lhlo [127.0.0.1]\r\n": Hello("LHLO", "[127.0.0.1]"),
    b"EHLO [IPv6:::1]\r\n": Hello("EHLO", "[IPv6:::1]"),
    b"MAIL FROM:<>\r\n": Mail(b""),
    b"MAIL FROM:<a@b.example>\r\n": Mail(b"a@b.example"),
    b"mail from: <a@b.example> size=100 body=8bitmime\r\n": Mail(b"a@b.example", 100, "8BITMIME"),
    b"MAIL FROM:<@relay,@other:a@b> BODY=BINARYMIME\r\n": Mail(b"a@b", None, "BINARYMIME"),
    "MAIL FROM:<jörg@bücher.example> SMTPUTF8\r\n".encode(): Mail("jörg@bücher.example".encode(), smtputf8=True),
    b"MAIL FROM:<a@b> AUTH=<>\r\n": Mail(b"a@b"),
    b'MAIL FROM:<"a b"@c>\r\n': Mail(b'"a b"@c'),
    b"MAIL FROM:<.odd..dots.@docomo.example>\r\n": Mail(b".odd..dots.@docomo.example"),
    b"RCPT TO:<demo>\r\n": Rcpt("demo", None),
    b"RCPT TO:<Postmaster>\r\n": Rcpt("Postmaster", None),
    b"RCPT TO:<demo+lists/x@host.example>\r\n": Rcpt("demo+lists/x", "host.example"),
    b'RCPT TO:<"a \\"b\\" c"@d>\r\n': Rcpt('a "b" c', "d"),
    b"RCPT TO:<a@[192.0.2.1]>\r\n": Rcpt("a", "[192.0.2.1]"),
    b"DATA\r\n": smtp.Data(),
    b"RSET\r\n": Rset(),
    b"NOOP anything\r\n": smtp.Noop(),
    b"QUIT\r\n": Quit(),
    b"VRFY demo\r\n": smtp.Vrfy("demo"),
    b"HELP\r\n": smtp.Help(),
    b"STARTTLS\r\n": smtp.StartTls(),
    b"AUTH PLAIN AGEAYg==\r\n": smtp.Auth("PLAIN", b"\0a\0b"),
    b"AUTH LOGIN\r\n": smtp.Auth("LOGIN", None),
    b"AUTH EXTERNAL =\r\n": smtp.Auth("EXTERNAL", b""),
}
REFUSED = {
    b"MAIL FROM:a@b\r\n": 501,
    b"MAIL FROM:<a@b\r\n": 501,
    b"MAIL FROM:<a@b> SIZE=x\r\n": 501,
    b"MAIL FROM:<a@b> SIZE=1 SIZE=2\r\n": 501,
    b"MAIL FROM:<a@b> BODY=9BIT\r\n": 501,
    b"MAIL FROM:<a@b> RET=FULL\r\n": 555,
    b"MAIL FROM:<\xff@b> SMTPUTF8\r\n": 501,
    "MAIL FROM:<ü@b>\r\n".encode(): 553,
    b"MAIL a@b\r\n": 501,
    b"RCPT TO:<>\r\n": 501,
    b"RCPT TO:<a@b> NOTIFY=NEVER\r\n": 555,
    b"RCPT TO:<a b@c>\r\n": 501,
    b"RCPT TO:<a@b>x\r\n": 501,
    b"LHLO\r\n": 501,
    b"LHLO a b\r\n": 501,
    b"BDAT\r\n": 501,
    b"BDAT -1\r\n": 501,
    b"BDAT 1 FIRST\r\n": 501,
    b"DATA now\r\n": 501,
    b"AUTH PLAIN ***\r\n": 501,
    b"EXPN list\r\n": 502,
    b"XYZZY\r\n": 500,
    b"\r\n": 500,
    b"NOOP\n": 500,
    b"\n": 500,
    b"N" * 3000 + b"\r\n": 500,
}


def take(codec: SmtpServer) -> list[smtp.Event]:
    events = []
    while (event := codec.next_event()) is not None:
        events.append(event)
    return events


def feed(data: bytes, size: int, *, in_data: bool = False) -> list[smtp.Event]:
    codec = SmtpServer()
    if in_data:
        codec.expect_data()
    events = []
    for start in range(0, len(data), size):
        codec.receive(data[start : start + size])
        events += take(codec)
    return events


def joined(events: list[smtp.Event]) -> list[smtp.Event]:
    """Contents that belong together as one: where they are cut is not promised."""
    result: list[smtp.Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Content) and isinstance(last, Content) and not last.end:
            result[-1] = Content(last.data + event.data, event.end)
        else:
            result.append(event)
    return result


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(("line", "event"), COMMANDS.items())
def test_commands(line: bytes, event: smtp.Event, size: int) -> None:
    assert feed(line + b"QUIT\r\n", size) == [event, Quit()]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(("line", "code"), REFUSED.items())
def test_refused(line: bytes, code: int, size: int) -> None:
    first, second = feed(line + b"QUIT\r\n", size)
    assert isinstance(first, Bad)
    assert first.reply.code == code
    assert second == Quit()


MESSAGES = {
    b".\r\n": b"",
    b"a\r\n.\r\n": b"a\r\n",
    b"\r\n\r\n.\r\n": b"\r\n\r\n",
    b"..\r\n.\r\n": b".\r\n",
    b"a\r\n..b\r\n...\r\n.\r\n": b"a\r\n.b\r\n..\r\n",
    b".b\r\n.\r\n": b"b\r\n",
    # Only CRLF.CRLF ends it; these are what smuggling tries.
    b"a\n.\nb\r\n.\r\n": b"a\n.\nb\r\n",
    b"a\n.\r\nb\r\n.\r\n": b"a\n.\r\nb\r\n",
    b"a\r\n.\nb\r\n.\r\n": b"a\r\n\nb\r\n",
    b"a\r.\rb\r\n.\r\n": b"a\r.\rb\r\n",
    b"a\r\n\r.\r\n\r\n.\r\n": b"a\r\n\r.\r\n\r\n",
    b"a\0b\xff\r\n.\r\n": b"a\0b\xff\r\n",
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize(("sent", "message"), MESSAGES.items())
def test_data(sent: bytes, message: bytes, size: int) -> None:
    assert joined(feed(sent + b"QUIT\r\n", size, in_data=True)) == [Content(message, end=True), Quit()]


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"\0"]), max_size=30), st.integers(1, 9))
def test_data_round_trip(parts: list[bytes], size: int) -> None:
    message = b"".join(parts) + b"\r\n"
    sent = (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    assert joined(feed(sent, size, in_data=True)) == [Content(message, end=True)]


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_chunks(size: int) -> None:
    sent = b"BDAT 5\r\na\r\n.\rBDAT 0\r\nBDAT 2 LAST\r\n\n.QUIT\r\n"
    assert joined(feed(sent, size)) == [
        Chunk(5, last=False),
        Content(b"a\r\n.\r", end=True),
        Chunk(0, last=False),
        Content(b"", end=True),
        Chunk(2, last=True),
        Content(b"\n.", end=True),
        Quit(),
    ]


def test_memory_is_bounded_in_an_endless_line() -> None:
    codec = SmtpServer()
    for _ in range(1000):
        codec.receive(b"x" * 4096)
        assert codec.next_event() is None
        assert codec.buffered <= 4096
    codec.receive(b"\r\nQUIT\r\n")
    bad, last = take(codec)
    assert isinstance(bad, Bad)
    assert bad.reply.code == 500
    assert last == Quit()


def test_expected_line_is_raw() -> None:
    codec = SmtpServer()
    codec.expect_line()
    codec.receive(b"QUIT\r\nQUIT\r\n")
    assert take(codec) == [smtp.Line(b"QUIT"), Quit()]


def test_reply_lines() -> None:
    assert Reply(250, "", ("host", "SIZE 1")).encode() == b"250-host\r\n250 SIZE 1\r\n"
    assert Reply(550, "5.1.1", "No such user").encode() == b"550 5.1.1 No such user\r\n"


@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_never_raises(data: bytes, size: int) -> None:
    assert joined(feed(data + b"\r\n", size)) == joined(feed(data + b"\r\n", 1 << 20))
