"""The POP3 codec: every case whole, byte by byte and with a tail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.errors import ProtocolError
from mailkeep.wire import pop3
from mailkeep.wire.pop3 import Bad, Command, Line, Pop3Server, Stuffer

COMMANDS = {
    b"USER demo\r\n": Command("USER", text=b"demo"),
    b"user a b \r\n": Command("USER", text=b"a b "),
    b"PASS  two  spaces \r\n": Command("PASS", text=b" two  spaces "),
    b"PASS \xc3\xbc\r\n": Command("PASS", text=b"\xc3\xbc"),
    b"STAT\r\n": Command("STAT"),
    b"LIST\n": Command("LIST"),
    b"LIST 3 \r\n": Command("LIST", (3,)),
    b"UIDL 4294967296\r\n": Command("UIDL", (4294967296,)),
    b"TOP 1 0\r\n": Command("TOP", (1, 0)),
    b"RETR 1\r\n": Command("RETR", (1,)),
    b"AUTH PLAIN AGEAYg==\r\n": Command("AUTH", text=b"PLAIN AGEAYg=="),
    b"AUTH\r\n": Command("AUTH"),
    b"LANG *\r\n": Command("LANG", text=b"*"),
    b"RETR\r\n": Bad("Bad arguments"),
    b"RETR -1\r\n": Bad("Bad arguments"),
    b"RETR 1 2\r\n": Bad("Bad arguments"),
    b"TOP 1\r\n": Bad("Bad arguments"),
    b"RETR 12345678901\r\n": Bad("Bad arguments"),
    "RETR ²\r\n".encode(): Bad("Bad arguments"),
    b"QUIT now\r\n": Bad("No arguments allowed"),
    b"XYZZY\r\n": Bad("Unknown command"),
    b"\r\n": Bad("Unknown command"),
    b"\n": Bad("Unknown command"),
    b"ST\0AT\r\n": Bad("NUL is not allowed"),
    b"PASS " + b"x" * 2000 + b"\r\n": Bad("Line too long"),
}


def feed(data: bytes, size: int) -> list[pop3.Event]:
    codec, events = Pop3Server(), []
    for start in range(0, len(data), size):
        codec.receive(data[start : start + size])
        while (event := codec.next_event()) is not None:
            events.append(event)
    return events


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(("line", "event"), COMMANDS.items())
def test_commands(line: bytes, event: pop3.Event, size: int) -> None:
    assert feed(line + b"NOOP\r\n", size) == [event, Command("NOOP")]


def test_expected_line_is_raw() -> None:
    codec = Pop3Server()
    codec.expect_line()
    codec.receive(b"A" * 5000 + b"\r\nQUIT\r\n")
    assert codec.next_event() == Line(b"A" * 5000)
    assert codec.next_event() == Command("QUIT")
    assert codec.buffered == 0


def test_memory_is_bounded_in_an_endless_line() -> None:
    codec = Pop3Server()
    for _ in range(1000):
        codec.receive(b"x" * 4096)
        assert codec.next_event() is None
        assert codec.buffered <= 4096


def test_password_is_not_shown() -> None:
    assert "geheim" not in repr(feed(b"PASS geheim\r\n", 100))


def unstuffed(data: bytes) -> bytes:
    """What a strict client makes of it."""
    assert data.endswith(b"\r\n.\r\n") or data == b".\r\n"
    assert b"\r\n.\r\n" not in data[:-3].replace(b"\r\n..", b"\r\n#.")
    return (b"\r\n" + data[:-3]).replace(b"\r\n..", b"\r\n.")[2:]


TEXT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a"]), max_size=30).map(b"".join)


@given(TEXT, st.integers(1, 6))
def test_stuffing(text: bytes, size: int) -> None:
    stuffer = Stuffer()
    sliced = b"".join(stuffer.add(text[start : start + size]) for start in range(0, len(text), size)) + stuffer.end()
    assert sliced == b"".join(pop3.stuffed(text))
    ended = text.endswith(b"\r\n") or not text
    assert unstuffed(sliced) == (text if ended else text + b"\r\n")


def test_replies() -> None:
    assert pop3.ok() == b"+OK\r\n"
    assert pop3.err("Busy", "IN-USE") == b"-ERR [IN-USE] Busy\r\n"
    assert pop3.multi_line("List", ["a", "b"]) == b"+OK List\r\na\r\nb\r\n.\r\n"


def test_auth_arguments() -> None:
    assert pop3.parse_auth(b"plain") == ("PLAIN", None)
    assert pop3.parse_auth(b"PLAIN =") == ("PLAIN", b"")
    assert pop3.parse_auth(b"PLAIN AGEAYg==") == ("PLAIN", b"\0a\0b")
    for bad in (b"", b"PLAIN a b", b"PLAIN *"):
        with pytest.raises(ProtocolError):
            pop3.parse_auth(bad)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_never_raises(data: bytes, size: int) -> None:
    assert feed(data + b"\r\n", size) == feed(data + b"\r\n", 1 << 20)
