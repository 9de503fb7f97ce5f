"""Connections, listeners, TLS, timers and limits: everything a door needs of the network, and nothing of mail.

A `Connection` is an `asyncio.Protocol` that owns one socket and hands plain bytes to a `Session`, whatever the socket
carries. It knows no protocol. Three ideas:

* TLS runs in a MemoryBIO of our own, so that implicit TLS and STARTTLS are the same few lines, an idle TLS
  connection costs 18 KiB rather than asyncio's 278, and no second transport is stacked on the first.
* All that a session writes while it handles one read leaves as one send; what it writes later leaves at the end of
  the loop's round. `writable` and `drain()` tell it when the peer does not keep up.
* Timers are a wheel of one-second buckets. Reading only notes the second; a connection is looked at again when its
  bucket comes round, so ten thousand idle connections cost nothing per read and next to nothing per second.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol, cast

from mailkeep import log
from mailkeep.errors import ConfigError, Unreachable
from mailkeep.serve.tls import TlsConfig, TlsMaterial

_log = log.get("transport")

WRITE_HIGH: Final = 256 * 1024  # a session should stop producing above this
WRITE_LOW: Final = 64 * 1024
PIECE_COPIED: Final = 16 * 1024  # larger pieces go to the kernel one by one, smaller ones are joined first
TLS_READ: Final = 256 * 1024
WHEEL_SLICE: Final = 500  # connections looked at before the loop gets its turn (0.3 ms rule)
LINGER_S: Final = 20.0  # a closed connection whose peer does not take the rest is cut after this


class Session(Protocol):
    """What a door implements. Everything is called on the loop; nothing may raise."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None:
        """The peer sends no more. Answer what is pending, then close."""

    def connection_lost(self, error: Exception | None) -> None: ...

    def timed_out(self) -> None:
        """Nothing came for the time set by `set_timeout`: say so and close."""

    def shutdown(self) -> None:
        """The server stops: say so, finish what runs, close."""


class Wheel:
    """Coarse timers: a callback within one second after its time. `advance` is the clock; tests call it themselves."""

    __slots__ = ("_buckets", "_handle", "_loop", "now")

    def __init__(self) -> None:
        self.now = 0  # seconds since the start, whole
        self._buckets: dict[int, set[Connection]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is None:
            self._loop = loop
            self._handle = loop.call_later(1.0, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._loop = self._handle = None

    def add(self, connection: "Connection", at: int) -> None:
        bucket = self._buckets.get(at)
        if bucket is None:
            bucket = self._buckets[at] = set()
        bucket.add(connection)

    def remove(self, connection: "Connection", at: int) -> None:
        bucket = self._buckets.get(at)
        if bucket is not None:
            bucket.discard(connection)

    def advance(self, seconds: int = 1) -> None:
        """Move the clock on and look at what is due."""
        for _ in range(seconds):
            self.now += 1
            due = self._buckets.pop(self.now, None)
            if due:
                self._check(list(due))

    def _check(self, due: "list[Connection]") -> None:
        for connection in due[:WHEEL_SLICE]:
            connection.check_timer()
        rest = due[WHEEL_SLICE:]
        if rest:
            if self._loop is not None:
                self._loop.call_soon(self._check, rest)
            else:
                self._check(rest)

    def _tick(self) -> None:
        assert self._loop is not None
        self._handle = self._loop.call_later(1.0, self._tick)
        self.advance()


class Hub:
    """What all connections of a process share: the count, the count per peer, the wheel."""

    __slots__ = ("connections", "connections_max", "connections_per_peer", "handshake_s", "peers", "stopping", "wheel")

    def __init__(
        self, *, connections_max: int = 20_000, connections_per_peer: int = 256, handshake_s: int = 30
    ) -> None:
        self.connections: set[Connection] = set()
        self.peers: Counter[str] = Counter()
        self.connections_max = connections_max
        self.connections_per_peer = connections_per_peer
        self.handshake_s = handshake_s
        self.wheel = Wheel()
        self.stopping = False

    def admit(self, connection: "Connection") -> str | None:
        """Count the connection; the reason when it must be refused."""
        if self.stopping:
            return "stopping"
        if len(self.connections) >= self.connections_max:
            return "connections_max"
        if not connection.is_loopback:
            key = peer_key(connection.peer)
            if self.peers[key] >= self.connections_per_peer:
                return "connections_per_peer"
            self.peers[key] += 1
        self.connections.add(connection)
        return None

    def release(self, connection: "Connection") -> None:
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        if not connection.is_loopback:
            key = peer_key(connection.peer)
            self.peers[key] -= 1
            if self.peers[key] <= 0:
                del self.peers[key]

    async def shutdown(self, grace_s: float = 10.0) -> None:
        """Ask every session to end, wait for them, then cut what is left. Listeners must be closed before."""
        self.stopping = True
        for number, connection in enumerate(list(self.connections)):
            connection.shutdown()
            if number % 100 == 99:
                await asyncio.sleep(0)
        end = asyncio.get_running_loop().time() + grace_s
        while self.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await asyncio.sleep(0)
        self.wheel.stop()


def peer_key(peer: str) -> str:
    """The unit that limits count: an IPv4 address, or an IPv6 /64 (one customer owns at least that)."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return peer


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


class Connection(asyncio.Protocol):
    """One socket, plain or TLS, and the session that speaks on it. See the module's docstring."""

    __slots__ = (
        "_closing",
        "_deadline",
        "_drainers",
        "_flushing",
        "_hub",
        "_in_batch",
        "_incoming",
        "_name",
        "_out",
        "_out_size",
        "_outgoing",
        "_paused",
        "_reading",
        "_refusal",
        "_seen",
        "_session",
        "_session_factory",
        "_timeout",
        "_timeout_before",
        "_tls",
        "_tls_config",
        "_tls_material",
        "_tls_ready",
        "_transport",
        "is_loopback",
        "is_tls",
        "local",
        "peer",
    )

    def __init__(
        self,
        session_factory: Callable[["Connection"], Session],
        hub: Hub,
        *,
        tls: TlsConfig | None = None,
        implicit_tls: bool = False,
        name: str = "",
        refusal: bytes = b"",
    ) -> None:
        self._session_factory: Callable[[Connection], Session] | None = session_factory
        self._session: Session | None = None
        self._hub = hub
        self._transport: asyncio.Transport | None = None
        self._tls_config = tls
        self._tls_material: TlsMaterial | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._tls_ready = not implicit_tls
        self._name = name
        self._refusal = refusal
        self._out: list[bytes] = []
        self._out_size = 0
        self._in_batch = False
        self._flushing = False
        self._paused = False
        self._reading = True
        self._closing = False
        self._drainers: list[asyncio.Future[None]] = []
        self._timeout = 0
        self._timeout_before = 0  # the session's own, while a handshake runs
        self._deadline = 0  # the bucket of the wheel it sits in; 0: none
        self._seen = 0
        self.peer = ""
        self.local = ""
        self.is_loopback = False
        self.is_tls = False

    # --- what a session calls ---

    def write(self, data: bytes) -> None:
        """Queue bytes. They leave with all others of this batch, or at the end of this round of the loop."""
        if self._closing or self._transport is None:
            return
        self._out.append(data)
        self._out_size += len(data)
        if not self._in_batch and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """As `write`, for several at once."""
        if self._closing or self._transport is None:
            return
        self._out += pieces
        self._out_size += sum(map(len, pieces))
        if not self._in_batch and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    @property
    def writable(self) -> bool:
        """False while the peer leaves more than 256 KiB unread."""
        return not self._paused and self._out_size < WRITE_HIGH

    @property
    def closing(self) -> bool:
        return self._closing or self._transport is None

    async def drain(self) -> None:
        """Send now; wait while the peer does not read. Returns as well when the connection is lost."""
        self._flush()
        if self._paused and self._transport is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drainers.append(future)
            await future

    def pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
            self._seen = self._hub.wheel.now

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS may be offered now."""
        return self._tls_config is not None and self._tls is None

    def start_tls(self) -> None:
        """Everything after what is written so far is TLS. Call it once the OK is written.

        The session must hold no unparsed clear text: what a man in the middle slipped in before the handshake would
        be taken for the client's own words (CVE-2011-0411). That is checked where the bytes are, in the codec.
        """
        if self._tls_config is None or self._tls is not None:
            raise ConfigError("TLS is not available here")
        self._flush()
        self._tls_ready = False
        self._open_tls()

    def channel_binding(self) -> dict[str, bytes]:
        """Channel bindings by name, for SCRAM-…-PLUS; empty without TLS.

        `tls-server-end-point` (RFC 5929 section 4) always, `tls-unique` with TLS 1.2 (it is not defined for 1.3).
        `tls-exporter` (RFC 9266) cannot be had: Python's ssl gives no access to exported keying material.
        """
        if not self.is_tls or self._tls is None or self._tls_material is None:
            return {}
        bindings = {}
        if self._tls_material.end_point is not None:
            bindings["tls-server-end-point"] = self._tls_material.end_point
        if self._tls.version() == "TLSv1.2":
            unique = self._tls.get_channel_binding("tls-unique")
            if unique:
                bindings["tls-unique"] = unique
        return bindings

    def tls_version(self) -> str | None:
        """E.g. `TLSv1.3`, for logs and trace headers."""
        return self._tls.version() if self.is_tls and self._tls is not None else None

    def set_timeout(self, seconds: float) -> None:
        """Call the session's `timed_out` when nothing is read for so long; 0: never."""
        wheel = self._hub.wheel
        self._seen = wheel.now
        self._timeout = int(seconds)
        # A later deadline is found when the old bucket comes round; only an earlier one must move.
        if self._timeout and (not self._deadline or self._deadline > wheel.now + self._timeout + 1):
            self._schedule(wheel.now + self._timeout + 1)

    def close(self, *, linger: bool = False) -> None:
        """Send what is written, then close. `linger`: the peer may still be sending (it broke a limit); closing at
        once would answer its bytes with a reset, which throws our last words away on its side. So only our half
        closes, the rest is read and dropped until it ends or 20 seconds are over."""
        if self._closing or self._transport is None:
            return
        self._flush()
        if self._tls is not None and self._tls_ready:
            # close_notify. The peer's own need not be waited for (RFC 8446 section 6.1).
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
            self._send_tls()
        self._closing = True
        self._wake_drainers()
        self._timeout = 0
        self._schedule(self._hub.wheel.now + int(LINGER_S))
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
            self.resume_reading()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close without sending what is left."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server stops."""
        if self._session is None or not self._tls_ready:
            self.abort()
        elif not self._closing:
            self._guarded(self._session.shutdown)

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only
        self._transport = transport
        self.peer, self.is_loopback = _peer_of(transport)
        self.local = _local_of(transport)
        refused = self._hub.admit(self)
        if refused is not None:
            _log.warning("refused", protocol=self._name, peer=self.peer, limit=refused)
            if self._refusal and self._tls_ready:
                transport.write(self._refusal)
            self._closing = True
            transport.close()
            return
        transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        if self._tls_ready:
            self._start_session()
        else:
            self._open_tls()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._seen = self._hub.wheel.now
        self._in_batch = True
        try:
            if self._tls is not None:
                self._receive_tls(data)
            elif self._session is not None:
                self._session.data_received(data)
        except Exception as error:
            self._failed(error)
        finally:
            self._in_batch = False
        if self._out:
            self._flush()
        elif self._transport is not None and not self._closing:
            self._acknowledge(self._transport)

    def _acknowledge(self, transport: asyncio.Transport) -> None:
        """Nothing to say yet: let the kernel acknowledge at once, not 40 ms later.

        Clients write the end of a literal apart from the literal, and their kernel (Nagle) keeps the second small
        write back until the first one is acknowledged. An answer would carry the acknowledgement; here is none.
        """
        sock = transport.get_extra_info("socket")
        if sock is not None and self.local != "local":
            with contextlib.suppress(OSError):  # the peer may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def eof_received(self) -> bool:
        if self._closing or self._session is None or not self._tls_ready:
            return False
        self._guarded(self._session.eof_received)
        return True  # our half stays open until the session closes it

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._seen = self._hub.wheel.now
        self._wake_drainers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._paused = False
        self._out.clear()
        self._out_size = 0
        self._hub.release(self)
        if self._deadline:
            self._hub.wheel.remove(self, self._deadline)
            self._deadline = 0
        self._wake_drainers()
        session, self._session, self._session_factory = self._session, None, None
        self._tls = self._incoming = self._outgoing = None
        if session is not None:
            try:
                session.connection_lost(exc)
            except Exception as error:
                _log.exception("session failed while closing", error, protocol=self._name, peer=self.peer)

    # --- the wheel ---

    def check_timer(self) -> None:
        """The wheel's bucket came round: has it really been quiet for so long?"""
        self._deadline = 0
        if self._closing:
            self.abort()
            return
        if not self._timeout:
            return
        due = self._seen + self._timeout + 1
        if due > self._hub.wheel.now:
            self._schedule(due)
        elif not self._tls_ready or self._session is None or self._paused:
            self.abort()  # half a handshake, or a peer that takes nothing: there is nobody to say it to
        else:
            self._guarded(self._session.timed_out)
            if not self._closing:
                self._seen = self._hub.wheel.now
                self._schedule(self._seen + self._timeout + 1)

    def _schedule(self, at: int) -> None:
        wheel = self._hub.wheel
        if self._deadline:
            wheel.remove(self, self._deadline)
        self._deadline = at
        wheel.add(self, at)

    # --- inside ---

    def _start_session(self) -> None:
        assert self._session_factory is not None
        self._in_batch = True
        try:
            self._session = self._session_factory(self)
        except Exception as error:
            self._failed(error)
        finally:
            self._in_batch = False
        self._session_factory = None
        self._flush()

    def _guarded(self, call: Callable[[], None]) -> None:
        self._in_batch = True
        try:
            call()
        except Exception as error:
            self._failed(error)
        finally:
            self._in_batch = False
        self._flush()

    def _failed(self, error: Exception) -> None:
        """A session let an exception out: our bug. It costs this connection, never the loop."""
        _log.exception("session failed", error, protocol=self._name, peer=self.peer)
        self.abort()

    def _wake_drainers(self) -> None:
        for future in self._drainers:
            if not future.done():
                future.set_result(None)
        self._drainers.clear()

    def _flush_later(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        out = self._out
        if not out or self._transport is None or self._closing:
            return
        if self._tls is not None and not self._tls_ready:
            return  # written while the handshake runs; goes out after it
        if self._tls is None and self._out_size > len(out) * PIECE_COPIED:
            self._out, self._out_size = [], 0
            self._transport.writelines(out)
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        self._send_tls()

    # --- TLS ---

    def _open_tls(self) -> None:
        assert self._tls_config is not None
        self._tls_material = self._tls_config.current
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = self._tls_material.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._timeout_before = self._timeout
        self.set_timeout(self._hub.handshake_s)

    def _receive_tls(self, data: bytes) -> None:
        assert self._tls is not None and self._incoming is not None
        self._incoming.write(data)
        if not self._tls_ready and not self._shake_hands():
            return
        plain: list[bytes] = []
        ended = False
        try:
            while True:
                chunk = self._tls.read(TLS_READ)
                if not chunk:
                    ended = True
                    break
                plain.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        self._send_tls()  # session tickets, key updates, alerts
        if plain and self._session is not None:
            self._session.data_received(plain[0] if len(plain) == 1 else b"".join(plain))
        if ended and self._session is not None and not self._closing:
            self._session.eof_received()

    def _shake_hands(self) -> bool:
        """One step of the handshake; True when it is done."""
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_tls()
            return False
        except ssl.SSLError as error:
            self._send_tls()  # the alert that says why
            self._tls_failed(error)
            return False
        self._send_tls()
        self._tls_ready = True
        self.is_tls = True
        self._timeout = 0
        if self._session is None:
            self._start_session()
            self._in_batch = True
        else:
            self.set_timeout(self._timeout_before)
            self._flush()
        return not self._closing

    def _send_tls(self) -> None:
        assert self._outgoing is not None
        data = self._outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def _tls_failed(self, error: ssl.SSLError) -> None:
        _log.info("tls failed", protocol=self._name, peer=self.peer, reason=error.reason or "")
        self._closing = True
        if self._transport is not None:
            self._transport.close()


def _peer_of(transport: asyncio.Transport) -> tuple[str, bool]:
    """Address and whether it is this machine. A Unix socket is."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple) and name:
        return str(name[0]), _is_loopback(str(name[0]))
    return "local", True


def _local_of(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple) and name:
        return str(name[0])
    return "local"


def bind_socket(address: str, *, reuse_port: bool = False, backlog: int = 1024) -> socket.socket:
    """A bound and listening socket for `HOST:PORT`, `[V6]:PORT`, `:PORT` (all addresses) or a Unix path.

    Raises ConfigError for an address that cannot be read, Unreachable for one that cannot be had.
    """
    try:
        if "/" in address:
            return _bind_unix(address, backlog)
        host, port = split_address(address)
        family, _, _, _, name = socket.getaddrinfo(
            host or "::", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not host else 1)
            sock.bind(name)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock
    except OSError as error:
        raise Unreachable(f"Cannot listen on {address}: {error.strerror or error}") from error


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:143` → ("127.0.0.1", 143). Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"Bad address {address!r}: HOST:PORT or a path is wanted")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bind_unix(path: str, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not stat.S_ISSOCK(os.stat(path).st_mode):
                raise
            # Left over from a killed server, or alive? Only a connection tells.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(path) == 0:
                    raise
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, 0o660)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class Listener:
    """One door's socket. Bound at once (so that a parent can bind and its workers inherit), accepting after `start`.

    When descriptors run out, libuv gives up a reserve one to accept and close: the queue empties, nothing spins.
    """

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        factory: Callable[[Connection], Session],
        *,
        hub: Hub,
        tls: TlsConfig | None = None,
        implicit_tls: bool = False,
        refusal: bytes = b"",
    ) -> None:
        if implicit_tls and tls is None:
            raise ConfigError(f"{name} needs a certificate")
        self.name = name
        self._sock = sock
        self._factory = factory
        self._hub = hub
        self._tls = tls
        self._implicit_tls = implicit_tls
        self._refusal = refusal
        self._server: asyncio.AbstractServer | None = None
        self._path, self._inode = _unix_file(sock)

    def address(self) -> str:
        """`HOST:PORT` with the real port, or the path."""
        name = self._sock.getsockname()
        if isinstance(name, tuple):
            return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        return str(name)

    async def start(self) -> None:
        """Accept from now on, on the running loop."""
        loop = asyncio.get_running_loop()
        self._hub.wheel.start(loop)
        if self._sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._connection, sock=self._sock)
        else:
            self._server = await loop.create_server(self._connection, sock=self._sock, backlog=1024)

    def _connection(self) -> Connection:
        return Connection(
            self._factory,
            self._hub,
            tls=self._tls,
            implicit_tls=self._implicit_tls,
            name=self.name,
            refusal=self._refusal,
        )

    def close(self, *, unlink: bool = True) -> None:
        """Accept no more. Connections stay; `Hub.shutdown` ends those. `unlink`: remove our Unix socket's file."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if unlink and self._path:
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
        self._sock.close()


def _unix_file(sock: socket.socket) -> tuple[str, int]:
    if sock.family != socket.AF_UNIX:
        return "", 0
    path = str(sock.getsockname())
    return path, os.stat(path).st_ino
