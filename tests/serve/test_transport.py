"""The connection: batches, back-pressure, timers, limits and TLS, in memory and over real sockets."""

import asyncio
import contextlib
import hashlib
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mailkeep.errors import ConfigError, Unreachable
from mailkeep.serve.tls import TlsConfig, make_self_signed
from mailkeep.serve.transport import (
    Connection,
    Hub,
    Listener,
    bind_socket,
    peer_key,
    split_address,
)
from tests.serve.memory import connect


class Echo:
    """Says back what it hears, in two writes; `bye` closes, `tls` starts TLS."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.heard = b""
        self.events: list[str] = []
        conn.set_timeout(60)
        conn.write(b"hello\r\n")

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if data == b"tls\r\n":
            self.conn.write(b"go\r\n")
            self.conn.start_tls()
        elif data == b"bye\r\n":
            self.conn.write(b"bye\r\n")
            self.conn.close()
        elif data == b"fail\r\n":
            raise RuntimeError("a bug")
        else:
            self.conn.write(b"> ")
            self.conn.write(data)

    def eof_received(self) -> None:
        self.events.append("eof")
        self.conn.write(b"end\r\n")
        self.conn.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append("lost")

    def timed_out(self) -> None:
        self.events.append("timeout")
        self.conn.write(b"idle\r\n")
        self.conn.close()

    def shutdown(self) -> None:
        self.conn.write(b"stop\r\n")
        self.conn.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return TlsConfig(*make_self_signed(tmp_path_factory.mktemp("tls"), hostname="localhost"))


def on_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


def in_memory(**options: Any) -> tuple[Connection, Any, Echo]:
    sessions: list[Echo] = []

    def factory(conn: Connection) -> Echo:
        sessions.append(Echo(conn))
        return sessions[-1]

    conn, transport = connect(factory, **options)
    return conn, transport, sessions[0] if sessions else None  # type: ignore[return-value]


def test_one_send_per_read() -> None:
    async def work() -> None:
        conn, transport, _ = in_memory()
        assert transport.sends == [b"hello\r\n"]
        conn.data_received(b"a\r\n")
        assert transport.sends == [b"hello\r\n", b"> a\r\n"]

    on_loop(work)


def test_writes_outside_a_read_leave_together() -> None:
    async def work() -> None:
        conn, transport, _ = in_memory()
        transport.take()
        conn.write(b"1")
        conn.write(b"2")
        assert transport.sends == []
        await asyncio.sleep(0)
        assert transport.sends == [b"12"]

    on_loop(work)


def test_drain_waits_for_the_peer() -> None:
    async def work() -> None:
        conn, transport, _ = in_memory()
        conn.pause_writing()
        assert not conn.writable
        conn.write(b"x")
        waiting = asyncio.ensure_future(conn.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        conn.resume_writing()
        await waiting
        assert conn.writable
        conn.pause_writing()
        waiting = asyncio.ensure_future(conn.drain())
        await asyncio.sleep(0)
        conn.connection_lost(None)  # nobody waits for ever
        await waiting
        conn.write(b"dropped")
        await conn.drain()
        assert transport.sent.endswith(b"x")

    on_loop(work)


def test_what_is_not_sent_yet_counts() -> None:
    async def work() -> None:
        conn, _, _ = in_memory()
        conn.write(b"x" * 300_000)
        assert not conn.writable
        await conn.drain()
        assert conn.writable

    on_loop(work)


def test_timeout_counts_from_the_last_read() -> None:
    async def work() -> None:
        hub = Hub()
        conn, transport, session = in_memory(hub=hub)
        hub.wheel.advance(59)
        conn.data_received(b"x")
        hub.wheel.advance(59)
        assert session.events == []
        hub.wheel.advance(3)
        assert session.events == ["timeout"]
        assert transport.sent.endswith(b"idle\r\n")
        await asyncio.sleep(0)
        assert session.events == ["timeout", "lost"]
        hub.wheel.advance(100)

    on_loop(work)


def test_timeout_may_be_changed_and_switched_off() -> None:
    async def work() -> None:
        hub = Hub()
        conn, _, session = in_memory(hub=hub)
        conn.set_timeout(1800)
        hub.wheel.advance(1700)
        assert session.events == []
        conn.set_timeout(0)
        hub.wheel.advance(4000)
        assert session.events == []
        conn.set_timeout(10)
        hub.wheel.advance(12)
        assert session.events == ["timeout"]

    on_loop(work)


def test_a_peer_that_takes_nothing_is_cut() -> None:
    async def work() -> None:
        hub = Hub()
        conn, transport, session = in_memory(hub=hub)
        conn.pause_writing()
        hub.wheel.advance(70)
        assert transport.aborted
        assert session.events == []

    on_loop(work)


def test_lingering_close_reads_on_and_ends() -> None:
    async def work() -> None:
        hub = Hub()
        conn, transport, session = in_memory(hub=hub)
        conn.write(b"too long\r\n")
        conn.close(linger=True)
        assert transport.eof_sent
        assert not transport.closed
        conn.data_received(b"x" * 100)
        assert session.heard == b""
        hub.wheel.advance(25)
        assert transport.aborted

    on_loop(work)


def test_a_bug_in_a_session_costs_its_connection_only(capfd: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        conn, transport, session = in_memory()
        conn.data_received(b"fail\r\n")
        assert transport.aborted
        await asyncio.sleep(0)
        assert session.events == ["lost"]

    on_loop(work)
    assert "session failed" in capfd.readouterr().err


def test_limits_in_all_and_per_peer() -> None:
    async def work() -> None:
        hub = Hub(connections_max=3, connections_per_peer=1)
        first, _, _ = in_memory(hub=hub, peer="2001:db8::1")
        _, transport, session = in_memory(hub=hub, peer="2001:db8::2")  # the same /64
        assert session is None
        assert transport.sent == b"busy\r\n"
        assert transport.closed
        in_memory(hub=hub)
        in_memory(hub=hub)  # loopback does not count per peer
        _, transport, session = in_memory(hub=hub)
        assert session is None
        first.connection_lost(None)
        await asyncio.sleep(0)
        _, _, session = in_memory(hub=hub, peer="2001:db8::3")
        assert session is not None
        assert len(hub.connections) == 3

    on_loop(work)


def test_peers() -> None:
    assert peer_key("192.0.2.1") == "192.0.2.1"
    assert peer_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_key("2001:db8:1:2:3::4") == "2001:db8:1:2::"
    assert peer_key("local") == "local"


def test_addresses() -> None:
    assert split_address("127.0.0.1:143") == ("127.0.0.1", 143)
    assert split_address("[::1]:0") == ("::1", 0)
    assert split_address(":25") == ("", 25)
    for bad in ("", "143", "host:", "host:x", "host:70000"):
        with pytest.raises(ConfigError):
            split_address(bad)


# --- over real sockets ---


def served(  # the loop of a real server, and a client in a thread
    client: Callable[[tuple[str, int]], None], *, loop: str = "uvloop", hub: Hub | None = None, **options: Any
) -> Hub:
    hub = hub or Hub()

    async def work() -> None:
        listener = Listener("echo", bind_socket("127.0.0.1:0"), Echo, hub=hub, **options)
        await listener.start()
        try:
            host, _, port = listener.address().rpartition(":")
            await asyncio.get_running_loop().run_in_executor(None, client, (host, int(port)))
        finally:
            listener.close()
            await hub.shutdown(grace_s=5)

    if loop == "uvloop":
        uvloop.run(asyncio.wait_for(work(), 60))
    else:
        asyncio.run(asyncio.wait_for(work(), 60))
    assert not hub.connections
    return hub


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_plain(loop: str) -> None:
    def client(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=10) as sock, sock.makefile("rwb") as file:
            assert file.readline() == b"hello\r\n"
            file.write(b"x\r\n")
            file.flush()
            assert file.readline() == b"> x\r\n"
            sock.shutdown(socket.SHUT_WR)
            assert file.readline() == b"end\r\n"
            assert file.read() == b""

    served(client, loop=loop)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("implicit", [True, False])
def test_tls(tls: TlsConfig, implicit: bool, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.maximum_version = version

    def client(address: tuple[str, int]) -> None:
        plain = socket.create_connection(address, timeout=10)
        if not implicit:
            assert plain.recv(100) == b"hello\r\n"
            plain.sendall(b"tls\r\n")
            assert plain.recv(100) == b"go\r\n"
        with context.wrap_socket(plain) as sock:
            if implicit:
                assert sock.recv(100) == b"hello\r\n"
            big = b"y" * 1_000_000
            sock.sendall(b"x\r\n")
            assert sock.recv(100) == b"> x\r\n"
            sock.sendall(big)
            got = b""
            while got.count(b"y") < len(big):
                got += sock.recv(1 << 16)
            assert got.replace(b"> ", b"") == big
            sock.sendall(b"bye\r\n")
            assert sock.recv(100) == b"bye\r\n"
            assert sock.recv(100) == b""  # a proper close_notify, not a cut

    served(client, tls=tls, implicit_tls=implicit)


def test_tls_1_1_is_refused(tls: TlsConfig) -> None:
    assert tls.current.context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_channel_bindings(tls: TlsConfig, version: ssl.TLSVersion) -> None:
    """What we say binds the channel is what the client's side computes."""
    context = trusting()
    context.maximum_version = version
    seen: list[dict[str, bytes]] = []

    class Binding(Echo):
        def data_received(self, data: bytes) -> None:
            seen.append(self.conn.channel_binding())
            super().data_received(data)

    async def work() -> None:
        hub = Hub()
        listener = Listener("echo", bind_socket("127.0.0.1:0"), Binding, hub=hub, tls=tls, implicit_tls=True)
        await listener.start()
        reader, writer = await asyncio.open_connection(*split_address(listener.address()), ssl=context)
        await reader.readline()
        writer.write(b"x\r\n")
        await reader.readline()
        side = writer.get_extra_info("ssl_object")
        wanted = {"tls-server-end-point": hashlib.sha256(side.getpeercert(binary_form=True)).digest()}
        if side.version() == "TLSv1.2":
            wanted["tls-unique"] = side.get_channel_binding("tls-unique")
        assert seen == [wanted]
        writer.transport.abort()
        listener.close()
        await hub.shutdown()

    on_loop(work)


def test_garbage_in_place_of_a_handshake(tls: TlsConfig) -> None:
    def client(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while sock.recv(100):
                pass

    served(client, tls=tls, implicit_tls=True)


def test_half_a_handshake_times_out(tls: TlsConfig) -> None:
    async def work() -> None:
        hub = Hub(handshake_s=10)
        conn, transport, session = in_memory(hub=hub, tls=tls, implicit_tls=True)
        assert session is None
        conn.data_received(b"\x16\x03\x01")
        hub.wheel.advance(12)
        assert transport.aborted

    on_loop(work)


def test_an_idle_timeout_survives_starttls(tls: TlsConfig) -> None:
    async def work() -> None:
        conn, _, _ = in_memory(tls=tls)
        assert conn.can_start_tls
        conn.data_received(b"tls\r\n")
        assert not conn.can_start_tls
        assert conn._timeout == 30
        assert conn._timeout_before == 60
        conn, _, _ = in_memory()
        assert not conn.can_start_tls
        with pytest.raises(ConfigError):
            conn.start_tls()

    on_loop(work)


def test_shutdown_ends_every_session(tls: TlsConfig) -> None:
    async def work() -> None:
        hub = Hub()
        listener = Listener("echo", bind_socket("127.0.0.1:0"), Echo, hub=hub)
        await listener.start()
        reader, writer = await asyncio.open_connection(*split_address(listener.address()))
        assert await reader.readline() == b"hello\r\n"
        address = listener.address()
        listener.close()
        await hub.shutdown()
        assert await reader.read() == b"stop\r\n"
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError):
            await asyncio.open_connection(*split_address(address))

    on_loop(work)


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"

    async def work() -> None:
        stale = bind_socket(str(path))
        stale.close()  # a killed server leaves its file
        listener = Listener("lmtp", bind_socket(str(path)), Echo, hub=Hub())
        assert listener.address() == str(path)
        await listener.start()
        with pytest.raises(Unreachable):  # taken by one that lives
            bind_socket(str(path))
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.readline() == b"hello\r\n"
        writer.close()
        await writer.wait_closed()
        listener.close()
        assert not path.exists()

    on_loop(work)


def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    with bind_socket("127.0.0.1:0") as sock, pytest.raises(Unreachable):
        bind_socket(f"127.0.0.1:{sock.getsockname()[1]}")
    with pytest.raises(Unreachable):
        bind_socket(str(tmp_path / "missing" / "socket"))
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(Unreachable):
        bind_socket(str(tmp_path / "file"))
    assert (tmp_path / "file").exists()


def answer(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


def test_out_of_descriptors() -> None:
    """Connections beyond the limit are closed, the server does not spin, and service goes on afterwards."""

    def client(address: tuple[str, int]) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket() for _ in range(30)]
        fillers: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in clients) + 1, before[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open("/dev/null", os.O_RDONLY))
            cpu = time.process_time()
            for sock in clients:
                sock.settimeout(10)
                sock.connect(address)
            answers = [answer(sock) for sock in clients]
            assert answers == [b""] * len(clients)
            assert time.process_time() - cpu < 2
        finally:
            for sock in clients:
                sock.close()
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        answers = []
        for _ in range(5):  # the first may still meet the full table
            with socket.create_connection(address, timeout=10) as sock:
                answers.append(answer(sock))
        assert answers[-1] == b"hello\r\n"

    served(client)


def test_certificates(tmp_path: Path) -> None:
    certificate, key = make_self_signed(tmp_path, hostname="mail.example")
    before = certificate.read_bytes()
    assert make_self_signed(tmp_path, hostname="mail.example") == (certificate, key)
    assert certificate.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
    config = TlsConfig(certificate, key)
    in_use = config.current
    certificate.write_text("broken")
    with pytest.raises(ConfigError):
        config.reload()
    assert config.current is in_use
    certificate.unlink()
    make_self_signed(tmp_path, hostname="mail.example")
    config.reload()
    assert config.current is not in_use
