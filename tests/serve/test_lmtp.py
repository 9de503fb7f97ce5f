"""The LMTP door over real sockets: smtplib as a stranger, and bare lines where smtplib would be too polite."""

import errno
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from mailkeep.errors import StoreFull, StoreReadOnly
from mailkeep.serve.lmtp import date_time, lmtp_session
from mailkeep.serve.services import Limits, Services
from mailkeep.store.staging import Staging
from mailkeep.store.store import Store
from tests.messages import corpus
from tests.serve.door import Door

MESSAGE = b"From: a@example.org\r\nTo: demo@localhost\r\nSubject: hello\r\n\r\nbody\r\n"
TRACE = re.compile(
    rb"Return-Path: <[^>\r\n]*>\r\n(?:Delivered-To: \S+\r\n)?Received: from \S+ \([^\r\n]+\)\r\n(?:\t[^\r\n]+\r\n)+"
)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path / "data")


class Lines:
    """A client that sends what it is told."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=20)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self) -> str:
        """Code and enhanced code of the next reply, e.g. `250 2.1.0`."""
        while True:
            line = self.file.readline().decode()
            if line[3:4] != "-":
                break
        match = re.match(r"\d{3}(?: \d\.\d+\.\d+)?", line)
        return match[0] if match else line

    def replies(self, count: int) -> list[str]:
        return [self.reply() for _ in range(count)]


def talk(door: Door, client: Callable[[Lines], None]) -> None:
    def run(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            assert lines.reply() == "220"
            lines.send(b"LHLO client.example\r\n")
            assert lines.reply() == "250"
            client(lines)

    door.run(lmtp_session, run)


def untraced(message: bytes) -> bytes:
    match = TRACE.match(message)
    assert match is not None, message[:500]
    return message[match.end() :]


def test_smtplib_delivers(door: Door) -> None:
    def client(host: str, port: int) -> None:
        with smtplib.LMTP(host, port) as lmtp:
            # smtplib reads one answer after the message: so one that is known, and one that is not.
            refused = lmtp.sendmail("sender@example.org", ["demo@localhost", "nobody@localhost"], MESSAGE)
            assert list(refused) == ["nobody@localhost"]
            assert refused["nobody@localhost"][0] == 550

    door.run(lmtp_session, client)
    (message,) = door.mailbox()
    assert untraced(message) == MESSAGE


def test_several_recipients(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo@localhost>\r\nRCPT TO:<anna@example.org>\r\nDATA\r\n")
        assert lines.replies(4) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354"]
        lines.send(MESSAGE + b".\r\n")
        assert lines.replies(2) == ["250 2.0.0", "250 2.0.0"]

    talk(door, client)
    for user in ("demo", "anna@example.org"):
        (message,) = door.mailbox(user=user)
        assert untraced(message) == MESSAGE
        assert message.startswith(b"Return-Path: <a@b>\r\nReceived: from ")  # neither sees the other's name
        assert b"\r\n\tby mail.example with LMTP;\r\n\t" in message


def test_greeting_lists_the_extensions(door: Door) -> None:
    def client(host: str, port: int) -> None:
        with smtplib.LMTP(host, port) as lmtp:
            lmtp.ehlo()
            wanted = "pipelining size 8bitmime smtputf8 chunking binarymime enhancedstatuscodes"
            assert set(lmtp.esmtp_features) == set(wanted.split())
            assert lmtp.esmtp_features["size"] == str(64 << 20)
            assert lmtp.docmd("VRFY", "demo")[0] == 252
            assert lmtp.noop()[0] == 250
            assert lmtp.docmd("HELP")[0] == 214

    door.run(lmtp_session, client)


def test_one_recipient_is_named(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<>\r\nRCPT TO:<demo@localhost>\r\nDATA\r\n")
        assert lines.replies(3) == ["250 2.1.0", "250 2.1.5", "354"]
        lines.send(MESSAGE + b".\r\n")
        assert lines.reply() == "250 2.0.0"

    talk(door, client)
    (message,) = door.mailbox()
    assert message.startswith(
        b"Return-Path: <>\r\nDelivered-To: demo@localhost\r\nReceived: from client.example ([127."
    )


def test_details(door: Door) -> None:
    store = Store.open(door.root)
    with store.account("demo").transaction() as transaction:
        transaction.create_mailbox("Lists/Go")
    store.close()

    def client(host: str, port: int) -> None:
        with smtplib.LMTP(host, port) as lmtp:
            for number, detail in enumerate(("Lists/Go", "lists/go", "missing", "\\bad/", "")):
                lmtp.sendmail("a@b", [f"demo+{detail}".replace("\\bad/", "bad/*")], MESSAGE + b"%d\r\n" % number)

    door.run(lmtp_session, client)
    assert [untraced(m)[-3:-2] for m in door.mailbox("Lists/Go")] == [b"0", b"1"]
    assert [untraced(m)[-3:-2] for m in door.mailbox("INBOX")] == [b"2", b"3", b"4"]


def test_a_recipient_named_twice_gets_it_once(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nRCPT TO:<DEMO@localhost>\r\nRCPT TO:<x>\r\nDATA\r\n")
        assert lines.replies(5) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "550 5.1.1", "354"]
        lines.send(MESSAGE + b".\r\nNOOP\r\n")
        assert lines.replies(3) == ["250 2.0.0"] * 3

    talk(door, client)
    assert len(door.mailbox()) == 1


def test_the_corpus_comes_through(door: Door) -> None:
    """By DATA what it can carry, by BDAT everything; commands pipelined, the next message right behind the last."""
    messages = [data for _, data in corpus()]

    def client(lines: Lines) -> None:
        for data in messages:
            head = b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<anna@example.org>\r\n"
            lines.send(head + b"BDAT %d\r\n%bBDAT 0 LAST\r\n" % (len(data), data))
            assert lines.replies(4) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]
        for data in messages:
            if data.endswith(b"\r\n"):
                lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nDATA\r\n")
                assert lines.replies(3) == ["250 2.1.0", "250 2.1.5", "354"]
                lines.send((b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
                assert lines.reply() == "250 2.0.0"

    talk(door, client)
    assert [untraced(m) for m in door.mailbox(user="anna@example.org")] == messages
    assert [untraced(m) for m in door.mailbox()] == [data for data in messages if data.endswith(b"\r\n")]


def test_only_crlf_dot_crlf_ends_a_message(door: Door) -> None:
    smuggled = b"\n.\nMAIL FROM:<evil@x>\r\n\n.\r\nRCPT TO:<demo>\r\n\r.\r\nDATA\r\n"

    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nDATA\r\n")
        lines.replies(3)
        lines.send(MESSAGE + smuggled + b".\r\nNOOP\r\n")
        assert lines.replies(2) == ["250 2.0.0", "250 2.0.0"]

    talk(door, client)
    (message,) = door.mailbox()
    assert untraced(message) == MESSAGE + smuggled


ORDER = {
    b"RCPT TO:<demo>\r\n": ["503 5.5.1"],
    b"DATA\r\n": ["503 5.5.1"],
    b"MAIL FROM:<a@b>\r\nDATA\r\n": ["250 2.1.0", "503 5.5.1"],
    b"MAIL FROM:<a@b>\r\nRCPT TO:<nobody>\r\nDATA\r\nRSET\r\n": ["250 2.1.0", "550 5.1.1", "503 5.5.1", "250 2.0.0"],
    b"MAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n": ["250 2.1.0", "503 5.5.1"],
    b"BDAT 3 LAST\r\nabcNOOP\r\n": ["503 5.5.1", "250 2.0.0"],
    b"MAIL FROM:<a@b>\r\nBDAT 3 LAST\r\nabcNOOP\r\n": ["250 2.1.0", "503 5.5.1", "250 2.0.0"],
    b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<demo>\r\nDATA\r\n": ["250 2.1.0", "250 2.1.5", "503 5.5.1"],
    b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nBDAT 1\r\nxDATA\r\nRCPT TO:<demo>\r\n": [
        "250 2.1.0",
        "250 2.1.5",
        "250 2.0.0",
        "503 5.5.1",
        "503 5.5.1",
    ],
    b"HELO x\r\nEHLO x\r\n": ["500 5.5.1", "500 5.5.1"],
    b"STARTTLS\r\n": ["502 5.5.1"],
    b"AUTH PLAIN =\r\n": ["502 5.5.1"],
    b"MAIL FROM:<a@b> SIZE=100000000\r\n": ["552 5.3.4"],
    "MAIL FROM:<a@b>\r\nRCPT TO:<jörg@localhost>\r\n".encode(): ["250 2.1.0", "553 5.6.7"],
    "MAIL FROM:<ü@b> SMTPUTF8\r\nRCPT TO:<jörg@localhost>\r\n".encode(): ["250 2.1.0", "550 5.1.1"],
    b"QUIT\r\nNOOP\r\n": ["221 2.0.0", ""],
}


@pytest.mark.parametrize(("sent", "replies"), ORDER.items())
def test_order(door: Door, sent: bytes, replies: list[str]) -> None:
    def client(lines: Lines) -> None:
        lines.send(sent)
        assert lines.replies(len(replies)) == replies

    talk(door, client)


def test_nothing_without_lhlo(door: Door) -> None:
    def client(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            lines.reply()
            lines.send(b"MAIL FROM:<a@b>\r\n")
            assert lines.reply() == "503 5.5.1"

    door.run(lmtp_session, client)


def test_too_big(tmp_path: Path) -> None:
    door = Door(tmp_path / "data", limits=Limits(message_size_max=10_000))

    def client(lines: Lines) -> None:
        start = b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nRCPT TO:<anna@example.org>\r\n"
        lines.send(start + b"DATA\r\n")
        lines.replies(4)
        lines.send(b"x" * 20_000 + b"\r\n.\r\n")
        assert lines.replies(2) == ["552 5.3.4"] * 2
        lines.send(start + b"BDAT 11000\r\n" + b"x" * 11_000 + b"BDAT 1 LAST\r\nx")
        assert lines.replies(6)[3:] == ["552 5.3.4"] * 3
        lines.send(start + b"DATA\r\n")  # service goes on
        lines.replies(4)
        lines.send(b"small\r\n.\r\n")
        assert lines.replies(2) == ["250 2.0.0"] * 2

    talk(door, client)
    assert len(door.mailbox()) == 1


def test_an_endless_message_is_cut(tmp_path: Path) -> None:
    door = Door(tmp_path / "data", limits=Limits(message_size_max=10_000))

    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nDATA\r\n")
        lines.replies(3)
        lines.send(b"x" * 1_500_000)
        assert lines.reply() == "552 5.3.4"
        assert lines.file.read() == b""

    talk(door, client)
    assert door.mailbox() == []


def test_quota(tmp_path: Path) -> None:
    door = Door(tmp_path / "data", quotas={"demo": 3000})

    def client(lines: Lines) -> None:
        def deliver(size: int) -> str:
            lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nDATA\r\n")
            replies = lines.replies(3)
            if replies[2] != "354":
                lines.send(b"RSET\r\n")
                lines.reply()
                return replies[1]
            lines.send(b"x" * size + b"\r\n.\r\n")
            return lines.reply()

        lines.send(b"MAIL FROM:<a@b> SIZE=4000\r\nRCPT TO:<demo>\r\nRSET\r\n")
        assert lines.replies(3)[1] == "552 5.2.2"  # never
        assert deliver(4000) == "552 5.2.2"
        assert deliver(2000) == "250 2.0.0"
        lines.send(b"MAIL FROM:<a@b> SIZE=2000\r\nRCPT TO:<demo>\r\nRCPT TO:<anna@example.org>\r\nRSET\r\n")
        assert lines.replies(4)[1:3] == ["452 4.2.2", "250 2.1.5"]  # not now
        assert deliver(2000) == "452 4.2.2"
        assert deliver(400) == "250 2.0.0"

    talk(door, client)
    assert len(door.mailbox()) == 2


def test_recipients_have_a_limit(tmp_path: Path) -> None:
    door = Door(tmp_path / "data", limits=Limits(recipients_max=3))

    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<demo>\r\n" * 4)
        assert lines.replies(5) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.1.5", "452 4.5.3"]

    talk(door, client)


def test_many_commands_in_one_packet_leave_others_their_turn(door: Door) -> None:
    def client(host: str, port: int) -> None:
        with Lines(host, port) as busy, Lines(host, port) as other:
            for lines in (busy, other):
                assert lines.reply() == "220"
            busy.send(b"LHLO x\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<demo>\r\n" * 900 + b"NOOP\r\n" * 20_000)
            other.send(b"NOOP\r\n")
            assert other.reply() == "250 2.0.0"
            assert busy.replies(902) == ["250", "250 2.1.0", *["250 2.1.5"] * 900]
            assert set(busy.replies(20_000)) == {"250 2.0.0"}

    door.run(lmtp_session, client)


def test_too_many_errors(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"GET / HTTP/1.1\r\n" * 30)
        replies = lines.replies(21)
        assert replies == ["500 5.5.1"] * 20 + ["421 4.7.0"]
        assert lines.file.read() == b""

    talk(door, client)


def test_full_disk_and_back(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Staging.write
    trouble: list[Exception] = [StoreFull("No space left"), StoreReadOnly("The store cannot be written")]

    def write(self: Staging, data: bytes) -> None:
        if trouble:
            raise trouble.pop(0)
        real(self, data)

    monkeypatch.setattr(Staging, "write", write)

    def client(lines: Lines) -> None:
        for code in ("452 4.3.1", "451 4.3.0", "250 2.0.0"):
            lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nRCPT TO:<anna@example.org>\r\nDATA\r\n")
            lines.replies(4)
            lines.send(MESSAGE + b".\r\n")
            assert lines.replies(2) == [code] * 2

    talk(door, client)
    assert len(door.mailbox()) == 1


def test_a_bug_costs_one_reply(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(services: Services) -> None:
        find = services.store.directory.find

        def finding(name: str) -> object:
            if name.startswith("bug"):
                raise ZeroDivisionError(errno.EIO)
            return find(name)

        services.store.directory.find = finding  # type: ignore[method-assign,assignment]

    door.wrap = broken

    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<bug>\r\nRCPT TO:<demo>\r\n")
        assert lines.replies(3) == ["250 2.1.0", "451 4.3.0", "250 2.1.5"]

    talk(door, client)
    assert "command failed" in capfd.readouterr().err


def test_starttls(tmp_path: Path) -> None:
    door = Door(tmp_path / "data").with_tls()

    def client(host: str, port: int) -> None:
        context = ssl._create_unverified_context()
        with smtplib.LMTP(host, port) as lmtp:
            lmtp.ehlo()
            assert lmtp.has_extn("starttls")
            lmtp.starttls(context=context)
            assert lmtp.docmd("MAIL FROM:<a@b>")[0] == 503  # all said before is forgotten
            lmtp.ehlo()
            assert not lmtp.has_extn("starttls")
            lmtp.sendmail("a@b", ["demo"], MESSAGE)

    door.run(lmtp_session, client)
    (message,) = door.mailbox()
    assert re.search(rb"\(using TLSv1\.[23]\)\r\n\tby mail\.example with LMTPS;", message)


def test_nothing_is_slipped_in_before_the_handshake(tmp_path: Path) -> None:
    door = Door(tmp_path / "data").with_tls()

    def client(lines: Lines) -> None:
        lines.send(b"STARTTLS\r\nMAIL FROM:<evil@x>\r\n")
        assert lines.reply() == "421 5.5.1"
        assert lines.file.read() == b""

    talk(door, client)


def test_unfinished_messages_are_not_kept(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nDATA\r\n")
        lines.replies(3)
        lines.send(MESSAGE)

    talk(door, client)
    assert door.mailbox() == []
    assert list((door.root / "tmp").iterdir()) == []


def test_a_client_that_closes_its_half_is_answered(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<demo>\r\nBDAT 4 LAST\r\nab\r\n")
        lines.sock.shutdown(socket.SHUT_WR)
        assert lines.replies(3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        assert lines.file.read() == b""

    talk(door, client)
    assert len(door.mailbox()) == 1


def test_dates() -> None:
    assert date_time(1767225599) == "Wed, 31 Dec 2025 23:59:59 +0000"
