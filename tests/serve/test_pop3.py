"""The POP3 door over real sockets: poplib as a stranger, and bare lines where poplib would be too polite."""

import asyncio
import base64
import hashlib
import poplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from scramp import ScramClient

from mailkeep.errors import StoreFull
from mailkeep.serve.pop3 import pop3_session
from mailkeep.serve.services import Limits, Services
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import corpus
from tests.serve.door import PASSWORD, Door

SMALL = [
    b"Subject: one\r\n\r\nfirst\r\n",
    b"Subject: two\r\n\r\n.dots\r\n..\r\n.\r\nend\r\n",
    b"Subject: three\r\n\r\nlast line has no end",
]


def fill(door: Door, messages: list[bytes], user: str = "demo") -> None:
    store = Store.open(door.root)
    with store.account(user).transaction() as transaction:
        inbox = transaction.mailbox("INBOX")
        for message in messages:
            transaction.append(inbox.id, Staged.of(message))
    store.close()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    door = Door(tmp_path / "data")
    fill(door, SMALL)
    return door


def logged_in(host: str, port: int, user: str = "demo") -> poplib.POP3:
    pop = poplib.POP3(host, port, timeout=20)
    try:
        pop.user(user)
        pop.pass_(PASSWORD)
    except poplib.error_proto:
        pop.close()
        raise
    return pop


class Lines:
    """A client that sends what it is told; `multi` reads up to the closing dot, strictly."""

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

    def reply(self) -> bytes:
        return self.file.readline().rstrip(b"\r\n")

    def multi(self) -> bytes:
        """A response's lines, unstuffed. A line ends with CRLF only."""
        assert self.reply().startswith(b"+OK")
        data = bytearray(b"\r\n")
        while not data.endswith(b"\r\n.\r\n"):
            line = self.file.readline()
            assert line
            data += line
        return bytes(data[:-3].replace(b"\r\n..", b"\r\n.")[2:])

    def log_in(self, user: str = "demo") -> bytes:
        assert self.reply().startswith(b"+OK")
        self.send(f"USER {user}\r\nPASS {PASSWORD}\r\n".encode())
        assert self.reply().startswith(b"+OK")
        return self.reply()


def talk(door: Door, client: Callable[[Lines], None]) -> None:
    def run(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            client(lines)

    door.run(pop3_session, run)


def test_poplib_reads(door: Door) -> None:
    def client(host: str, port: int) -> None:
        pop = logged_in(host, port)
        assert pop.stat() == (3, sum(map(len, SMALL)))
        assert pop.list()[1] == [b"%d %d" % (n + 1, len(m)) for n, m in enumerate(SMALL)]
        assert pop.list(2) == b"+OK 2 %d" % len(SMALL[1])
        ids = [line.split()[1] for line in pop.uidl()[1]]
        assert len(set(ids)) == 3
        assert pop.uidl(1).split()[2] == ids[0]
        for number, message in enumerate(SMALL):
            assert b"\r\n".join(pop.retr(number + 1)[1]) == message.removesuffix(b"\r\n")
        assert pop.top(2, 2)[1] == [b"Subject: two", b"", b".dots", b".."]
        assert pop.top(1, 0)[1] == [b"Subject: one", b""]
        assert pop.top(1, 100)[1] == [b"Subject: one", b"", b"first"]
        pop.quit()
        again = logged_in(host, port)
        assert [line.split()[1] for line in again.uidl()[1]] == ids
        again.quit()

    door.run(pop3_session, client)
    store = Store.open(door.root)
    assert store.account("demo").mailbox("INBOX").unseen == 3  # downloads do not set \Seen
    store.close()


def test_the_corpus_comes_out_as_it_went_in(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    messages = [data for _, data in corpus()]
    fill(door, messages)

    def client(lines: Lines) -> None:
        lines.log_in()
        lines.send(b"".join(b"RETR %d\r\n" % (n + 1) for n in range(len(messages))))
        for message in messages:
            # A response of lines cannot end in the middle of one: CRLF is added there, and only there.
            assert lines.multi() == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")

    talk(door, client)


def test_a_big_message_streams_beside_others(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    big = b"Subject: big\r\n\r\n" + b"..x\r\n.\r\n" * 500_000
    fill(door, [big, SMALL[0]])

    def client(host: str, port: int) -> None:
        with Lines(host, port) as slow, Lines(host, port) as other:
            slow.log_in()
            slow.send(b"RETR 1\r\nNOOP\r\nTOP 1 250000\r\nQUIT\r\n")
            other.log_in()
            other.send(b"RETR 2\r\n")  # while the first does not read
            assert other.multi() == SMALL[0]
            assert slow.multi() == big
            assert slow.reply() == b"+OK"
            top = slow.multi()
            assert big.startswith(top)
            assert top.count(b"\r\n") == 250_002
            assert slow.reply() == b"+OK Bye"

    door.run(pop3_session, client)


def test_deleting_takes_effect_at_quit(door: Door) -> None:
    def client(host: str, port: int) -> None:
        pop = logged_in(host, port)
        ids = pop.uidl()[1]
        pop.dele(1)
        pop.dele(3)
        assert pop.stat() == (1, len(SMALL[1]))
        assert pop.list()[1] == [b"2 %d" % len(SMALL[1])]
        for command in (lambda: pop.retr(1), lambda: pop.dele(1), lambda: pop.list(1), lambda: pop.uidl(1)):
            with pytest.raises(poplib.error_proto):
                command()
        pop.close()  # no QUIT: nothing happens
        pop = logged_in(host, port)
        assert pop.stat()[0] == 3
        pop.dele(1)
        pop.rset()
        assert pop.stat()[0] == 3
        pop.dele(2)
        pop.quit()
        pop = logged_in(host, port)
        assert [line.split()[1] for line in pop.uidl()[1]] == [line.split()[1] for line in (ids[0], ids[2])]
        pop.quit()

    door.run(pop3_session, client)
    assert door.mailbox() == [SMALL[0], SMALL[2]]


def test_one_deletes_many_read(door: Door) -> None:
    def client(host: str, port: int) -> None:
        first, second = logged_in(host, port), logged_in(host, port)
        first.dele(1)
        with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
            second.dele(2)
        assert second.retr(1)[1]
        first.quit()
        assert second.stat()[0] == 3  # its list does not change …
        assert b"\r\n".join(second.retr(1)[1]) == SMALL[0].rstrip()  # … and what is gone can still be read
        second.dele(1)  # the lock is free again; deleting what is gone is no error
        second.dele(2)
        third = logged_in(host, port)
        assert third.stat()[0] == 2
        third.close()
        second.quit()

    door.run(pop3_session, client)
    assert door.mailbox() == [SMALL[2]]


def test_a_lost_connection_frees_the_lock(door: Door) -> None:
    def client(host: str, port: int) -> None:
        first = logged_in(host, port)
        first.dele(1)
        first.close()
        second = logged_in(host, port)
        second.dele(1)
        second.rset()
        third = logged_in(host, port)
        third.dele(1)
        third.quit()
        second.quit()

    door.run(pop3_session, client)


def test_nothing_is_deleted_when_the_disk_is_full(door: Door) -> None:
    def broken(services: Services) -> None:
        async def write(*_: object, **__: object) -> None:
            raise StoreFull("No space left")

        services.offload.write = write  # type: ignore[method-assign,assignment]

    door.wrap = broken

    def client(host: str, port: int) -> None:
        pop = logged_in(host, port)
        pop.dele(1)
        with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
            pop.quit()
        pop.close()

    door.run(pop3_session, client)
    assert len(door.mailbox()) == 3


def test_log_in(door: Door) -> None:
    def client(host: str, port: int) -> None:
        for user, password in (("demo", "wrong"), ("nobody", PASSWORD)):
            pop = poplib.POP3(host, port, timeout=20)
            pop.user(user)
            with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
                pop.pass_(password)
            with pytest.raises(poplib.error_proto, match="USER first"):
                pop.pass_(PASSWORD)
            pop.user("anna@example.org")
            assert pop.pass_(PASSWORD).startswith(b"+OK 0 messages")
            assert pop.uidl()[1] == []
            pop.quit()

    door.run(pop3_session, client)


def test_sasl(door: Door) -> None:
    plain = base64.b64encode(b"\0demo\0" + PASSWORD.encode())

    def client(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            lines.reply()
            lines.send(b"AUTH PLAIN " + base64.b64encode(b"\0demo\0x") + b"\r\n")
            assert lines.reply().startswith(b"-ERR [AUTH]")
            for bad in (b"AUTH PLAIN ***\r\n", b"AUTH CRAM-MD5\r\n", b"AUTH PLAIN a b\r\n"):
                lines.send(bad)
                assert lines.reply().startswith(b"-ERR")
            lines.send(b"AUTH PLAIN\r\n*\r\nAUTH PLAIN\r\n")
            assert [lines.reply()[:4] for _ in range(3)] == [b"+ ", b"-ERR", b"+ "]
            lines.send(plain + b"\r\nSTAT\r\n")
            assert lines.reply().startswith(b"+OK 3 messages")
            assert lines.reply().startswith(b"+OK 3 ")
            lines.send(b"AUTH PLAIN " + plain + b"\r\n")
            assert lines.reply() == b"-ERR Not now"
        with Lines(host, port) as lines:
            lines.reply()
            lines.send(b"AUTH LOGIN\r\n")
            for answer in (b"demo", PASSWORD.encode()):
                assert lines.reply() in {b"+ VXNlcm5hbWU6", b"+ UGFzc3dvcmQ6"}
                lines.send(base64.b64encode(answer) + b"\r\n")
            assert lines.reply().startswith(b"+OK")
        with Lines(host, port) as lines:
            lines.reply()
            scram = ScramClient(["SCRAM-SHA-256"], "demo", PASSWORD)
            lines.send(b"AUTH SCRAM-SHA-256 " + base64.b64encode(scram.get_client_first().encode()) + b"\r\n")
            scram.set_server_first(base64.b64decode(lines.reply()[2:]).decode())
            lines.send(base64.b64encode(scram.get_client_final().encode()) + b"\r\n")
            scram.set_server_final(base64.b64decode(lines.reply()[2:]).decode())
            lines.send(b"\r\n")
            assert lines.reply().startswith(b"+OK")

    door.run(pop3_session, client)


def test_tls(tmp_path: Path) -> None:
    door = Door(tmp_path / "data").with_tls()
    fill(door, SMALL)
    context = ssl._create_unverified_context()

    def implicit(host: str, port: int) -> None:
        pop = poplib.POP3_SSL(host, port, timeout=20, context=context)
        assert "STLS" not in pop.capa()
        assert pop.capa()["SASL"][0] == "SCRAM-SHA-256-PLUS"
        pop.user("demo")
        pop.pass_(PASSWORD)
        assert pop.stat()[0] == 3
        pop.quit()

    def upgraded(host: str, port: int) -> None:
        pop = poplib.POP3(host, port, timeout=20)
        assert "STLS" in pop.capa()
        pop.stls(context)
        assert "STLS" not in pop.capa()
        pop.user("demo")
        pop.pass_(PASSWORD)
        assert b"\r\n".join(pop.retr(1)[1]) == SMALL[0].rstrip()
        pop.quit()

    def slipped_in(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            lines.reply()
            lines.send(b"STLS\r\nUSER evil\r\n")
            assert lines.reply().startswith(b"-ERR")
            assert lines.file.read() == b""

    door.run(pop3_session, implicit, implicit_tls=True)
    door.run(pop3_session, upgraded)
    door.run(pop3_session, slipped_in)


def test_scram_plus(tmp_path: Path) -> None:
    door = Door(tmp_path / "data").with_tls()

    def client(host: str, port: int) -> None:
        context = ssl._create_unverified_context()
        with (
            context.wrap_socket(socket.create_connection((host, port), timeout=20)) as sock,
            sock.makefile("rwb") as file,
        ):
            bound = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").digest()
            file.readline()
            scram = ScramClient(
                ["SCRAM-SHA-256-PLUS"], "demo", PASSWORD, channel_binding=("tls-server-end-point", bound)
            )
            messages = iter((scram.get_client_first, scram.get_client_final))
            takers = iter((scram.set_server_first, scram.set_server_final))
            file.write(b"AUTH SCRAM-SHA-256-PLUS\r\n")
            file.flush()
            assert file.readline() == b"+ \r\n"
            for give, take in zip(messages, takers, strict=True):
                file.write(base64.b64encode(give().encode()) + b"\r\n")
                file.flush()
                take(base64.b64decode(file.readline()[2:]).decode())
            file.write(b"\r\n")
            file.flush()
            assert file.readline().startswith(b"+OK")

    door.run(pop3_session, client, implicit_tls=True)


def test_no_password_without_tls_from_afar(door: Door) -> None:
    from tests.serve.memory import connect

    async def work(services: Services) -> None:
        conn, transport = connect(lambda conn: pop3_session(conn, services), peer="192.0.2.1")
        transport.take()
        conn.data_received(b"CAPA\r\nUSER demo\r\nAUTH PLAIN\r\n")
        answer = transport.take()
        assert b"USER\r\n" not in answer.replace(b"UTF8 USER", b"")
        assert b"SASL" not in answer
        assert answer.count(b"-ERR [SYS/PERM] Log-in needs TLS") == 2
        conn.abort()
        await asyncio.sleep(0)

    door.loop(work)


def test_capabilities(door: Door) -> None:
    def client(host: str, port: int) -> None:
        pop = poplib.POP3(host, port, timeout=20)
        before = pop.capa()
        names = "TOP UIDL USER SASL PIPELINING RESP-CODES AUTH-RESP-CODE EXPIRE UTF8 LANG IMPLEMENTATION"
        assert set(before) == {*names.split(" ")}
        assert before["EXPIRE"] == ["NEVER"]
        assert before["SASL"] == ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"]
        pop.utf8()
        pop.user("demo")
        pop.pass_(PASSWORD)
        assert set(before) - set(pop.capa()) == {"USER", "SASL"}
        pop.quit()

    door.run(pop3_session, client)


def test_pipelining_and_order(door: Door) -> None:
    def client(lines: Lines) -> None:
        lines.reply()
        lines.send(f"STAT\r\nLANG\r\nLANG *\r\nLANG de\r\nAUTH\r\nUSER demo\r\nPASS {PASSWORD}\r\n".encode())
        assert lines.reply() == b"-ERR Not now"
        assert lines.multi() == b"en English\r\n"
        assert lines.reply() == b"+OK en Language is English"
        assert lines.reply() == b"-ERR No such language"
        assert lines.multi().split(b"\r\n")[0] == b"SCRAM-SHA-256"
        lines.send(b"STAT\r\nLIST\r\nRETR 1\r\nUSER x\r\nNOOP\r\nTOP 9 1\r\nRETR 0\r\nXYZZY\r\nAPOP a b\r\nQUIT\r\n")
        lines.reply()
        assert lines.reply().startswith(b"+OK 3 messages")
        assert lines.reply() == b"+OK 3 %d" % sum(map(len, SMALL))
        assert lines.multi().count(b"\r\n") == 3
        assert lines.multi() == SMALL[0]
        assert lines.reply() == b"-ERR Not now"
        assert lines.reply() == b"+OK"
        assert [lines.reply()[:4] for _ in range(4)] == [b"-ERR"] * 4
        assert lines.reply() == b"+OK Bye"
        assert lines.file.read() == b""

    talk(door, client)


def test_a_long_list(tmp_path: Path) -> None:
    door = Door(tmp_path / "data")
    fill(door, [b"n: %d\r\n\r\n" % n for n in range(3000)])

    def client(lines: Lines) -> None:
        lines.log_in()
        lines.send(b"DELE 1000\r\nLIST\r\nUIDL\r\n" + b"NOOP\r\n" * 5000)
        assert lines.reply().startswith(b"+OK")
        numbers = [int(line.split()[0]) for line in lines.multi().splitlines()]
        assert numbers == [n for n in range(1, 3001) if n != 1000]
        assert len(lines.multi().splitlines()) == 2999
        assert {lines.reply() for _ in range(5000)} == {b"+OK"}

    talk(door, client)


def test_a_session_a_user_too_many(door: Door) -> None:
    def two(services: Services) -> None:
        services.auth._sessions_per_user = 2

    door.wrap = two

    def client(host: str, port: int) -> None:
        first, second = logged_in(host, port), logged_in(host, port)
        with pytest.raises(poplib.error_proto, match="Too many sessions"):
            logged_in(host, port)
        first.quit()
        logged_in(host, port).quit()
        second.quit()

    door.run(pop3_session, client)


def test_idle_connections_are_closed(tmp_path: Path) -> None:
    door = Door(tmp_path / "data", limits=Limits(login_timeout_s=60))
    from tests.serve.memory import connect

    async def work(services: Services) -> None:
        conn, transport = connect(lambda conn: pop3_session(conn, services), hub=door.hub)
        transport.take()
        door.hub.wheel.advance(62)
        assert transport.closed
        assert transport.take() == b""
        await asyncio.sleep(0)
        assert conn.closing

    door.loop(work)


def test_shutdown_is_said(door: Door) -> None:
    from tests.serve.memory import connect

    async def work(services: Services) -> None:
        conn, transport = connect(lambda conn: pop3_session(conn, services))
        transport.take()
        conn.shutdown()
        assert transport.take().startswith(b"-ERR [SYS/TEMP]")
        conn.abort()
        await asyncio.sleep(0)

    door.loop(work)


def test_no_password_in_the_log(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(services: Services) -> None:
        def credentials(_: int) -> dict[str, bytes]:
            raise RuntimeError("a bug")

        services.store.directory.credentials = credentials  # type: ignore[method-assign,assignment]

    door.wrap = broken

    def client(host: str, port: int) -> None:
        with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
            logged_in(host, port)

    door.run(pop3_session, client)
    log = capfd.readouterr().err
    assert "command failed" in log
    assert PASSWORD not in log


def test_messages_read_ahead_are_the_right_ones(tmp_path: Path) -> None:
    """Small ones, big ones and doubles between them, in order, backwards, again and with some deleted."""
    sizes = (10, 3000, 70_000, 20, 0, 40_000, 30_000, 5, 64 * 1024, *range(100, 140))
    messages = [b"Subject: %d\r\n\r\n" % at + b"x" * size + b"\r\n" for at, size in enumerate(sizes)]
    messages[20] = messages[19]
    door = Door(tmp_path / "data")
    fill(door, messages)
    count = len(messages)
    orders = [range(1, count + 1), range(count, 0, -1), [1, 2, 3, 2, 3, 4, 9, 10, 11, 10, 30, 31, 32, 1, 2]]

    def client(host: str, port: int) -> None:
        with Lines(host, port) as lines:
            lines.log_in()
            for order in orders:
                for number in order:
                    lines.send(b"RETR %d\r\n" % number)
                    assert lines.multi() == messages[number - 1]
            lines.send(b"RETR 1\r\n")
            lines.multi()
            lines.send(b"DELE 2\r\n")
            assert lines.reply().startswith(b"+OK")
            lines.send(b"RETR 2\r\n")
            assert lines.reply().startswith(b"-ERR")
            lines.send(b"RETR 3\r\n")
            assert lines.multi() == messages[2]

    door.run(pop3_session, client)
