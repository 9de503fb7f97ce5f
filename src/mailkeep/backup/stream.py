"""A connection to another server: plain bytes in and out, whatever the socket carries (TLS, DEFLATE).

It knows no protocol, only `read` and `write`; IMAP and POP3 both stand on it. Certificates are always checked, against
the system's authorities or against those of one file of the user's own.

The one hard idea: the reader pulls. What the socket brings is queued up to a bound, then the socket is not read any
more, so a server that is faster than our disk waits in its own kernel. DEFLATE is undone inside `read`, a piece at a
time, or a few bytes could become gigabytes in our memory before anyone looks at them. TLS runs in a MemoryBIO of our
own: one way for both implicit TLS and STARTTLS.
"""

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from mailkeep.backup.settings import Tls, is_loopback
from mailkeep.errors import ConfigError, ProtocolError, Unreachable, Untrusted

QUEUE_MAX: Final = 1 << 20  # bytes received and not yet read; above, the socket waits
WRITE_HIGH: Final = 256 * 1024
TLS_READ: Final = 256 * 1024
INFLATE_MAX: Final = 256 * 1024  # of one read
ATTEMPT_DELAY_S: Final = 0.25  # RFC 8305 section 5: before the next address is tried as well
CLOSE_S: Final = 5.0
TIMEOUT_S: Final = 60.0


@functools.lru_cache(maxsize=8)
def _context(ca: str | None) -> ssl.SSLContext:
    """Checks name and chain; TLS 1.2 at least. With `ca`, that file's certificates alone are trusted."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates in {ca} cannot be read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """A short text of a foreign error, safe to show."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the connection failed"


class Stream(asyncio.Protocol):
    """One connection. `timeout_s` bounds each `read`, `drain` and handshake; it may be changed at any time."""

    def __init__(self, host: str, *, ca: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.host = host
        self.timeout_s = timeout_s
        self.bytes_in = 0  # on the wire
        self.bytes_out = 0
        self.connect_s = 0.0  # how long the TCP handshake took: about one round trip
        self._ca = ca
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._reading = True
        self._eof = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._paused = False
        self._out: list[bytes] = []
        self._flushing = False
        self._tls: ssl.SSLObject | None = None
        self._tls_in = ssl.MemoryBIO()
        self._tls_out = ssl.MemoryBIO()
        self._shaking: asyncio.Future[None] | None = None
        self._inflate: Any = None  # zlib's own types have no public name
        self._deflate: Any = None

    # --- what it is ---

    @property
    def tls(self) -> bool:
        """Whether what goes over it is encrypted."""
        return self._tls is not None and self._shaking is None

    @property
    def compressed(self) -> bool:
        return self._inflate is not None

    @property
    def loopback(self) -> bool:
        """Whether the other side is this very machine, by its address."""
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return isinstance(peer, tuple) and is_loopback(str(peer[0]).removeprefix("::ffff:"))

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def buffered(self) -> int:
        """Bytes received and not yet read."""
        return self._queued

    def channel_bindings(self) -> dict[str, bytes]:
        """For SCRAM-…-PLUS: `tls-server-end-point` (RFC 5929 section 4), and `tls-unique` below TLS 1.3."""
        if not self.tls or self._tls is None:
            return {}
        bindings = {}
        certificate = self._tls.getpeercert(binary_form=True)
        end_point = _end_point(certificate) if certificate else None
        if end_point is not None:
            bindings["tls-server-end-point"] = end_point
        unique = self._tls.get_channel_binding("tls-unique") if self._tls.version() == "TLSv1.2" else None
        if unique:
            bindings["tls-unique"] = unique
        return bindings

    # --- reading and writing ---

    async def read(self, *, patient: bool = False) -> bytes:
        """What came, b"" at the end of the stream. Raises Unreachable when cut, or when nothing comes in time.

        `patient`: wait without end; the caller has its own clock.
        """
        while True:
            data = self._take()
            if data:
                return data
            if not self._queue:
                if self._error is not None:
                    raise self._lost()
                if self._eof or self._transport is None:
                    return b""
                await self._wait_for_data(patient)

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave together at the end of this round of the loop. Dropped when the line is cut."""
        if self._transport is None or not data:
            return
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_later)

    async def drain(self) -> None:
        """Send now and wait while the other side does not take it. Raises Unreachable."""
        self._flush()
        if self._paused and self._transport is not None:
            self._drainer = self._drainer or self._loop.create_future()
            await self._bounded(self._drainer, "takes nothing any more")
        if self.closed:
            raise self._lost()

    async def start_tls(self) -> None:
        """Everything after this is TLS. Raises Untrusted, Unreachable; ProtocolError when bytes wait to be read:

        what a man in the middle slipped in before the handshake would be taken for the server's own words
        (CVE-2011-0411). The caller's codec must be empty as well.
        """
        if self._queue:
            raise ProtocolError(f"{self.host} sent more than one answer before TLS began")
        self._flush()
        self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = self.host.partition("%")[0]
        self._tls = _context(self._ca).wrap_bio(self._tls_in, self._tls_out, server_hostname=name)
        self._shaking = self._loop.create_future()
        self._shake_hands()
        waiting = self._shaking
        if waiting is not None:
            await self._bounded(waiting, "does not finish the TLS handshake")

    def start_compress(self) -> None:
        """Both ways are raw DEFLATE from here on (RFC 4978). Raises ProtocolError when bytes wait to be read."""
        if self._queue:
            raise ProtocolError(f"{self.host} sent more than one answer before compression began")
        self._flush()
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)

    async def close(self) -> None:
        """Send what is written, then close. Never raises."""
        transport = self._transport
        if transport is None:
            return
        self._flush()
        if self.tls and self._tls is not None:
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
            self._send_tls()
        transport.close()

    def abort(self) -> None:
        """Cut the line."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._tls is None:
            self._put(data)
        else:
            self._receive_tls(data)
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._paused = False
        if exc is not None and self._error is None:
            self._error = exc
        self._eof = True
        self._out.clear()
        self._wake()
        for waiting in (self._drainer, self._shaking):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._lost())
        self._drainer = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        drainer, self._drainer = self._drainer, None
        if drainer is not None and not drainer.done():
            drainer.set_result(None)

    # --- inside ---

    def _lost(self) -> Unreachable:
        error = self._error
        reason = f": {_reason(error)}" if error is not None else ""
        return Unreachable(f"{self.host} cut the connection{reason}")

    async def _bounded(self, future: "asyncio.Future[None]", what: str) -> None:
        try:
            async with asyncio.timeout(self.timeout_s):
                await future
        except TimeoutError:
            self._error = self._error or TimeoutError()
            self.abort()
            raise Unreachable(f"{self.host} {what} ({self.timeout_s:.0f} s)") from None

    async def _wait_for_data(self, patient: bool) -> None:
        assert self._reader is None, "two readers"
        self._reader = self._loop.create_future()
        try:
            if patient:
                await self._reader
            else:
                await self._bounded(self._reader, "does not answer")
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _put(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)
        if self._queued >= QUEUE_MAX and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _take(self) -> bytes:
        """The next piece, inflated; b"" when none is there, or when DEFLATE wants more first."""
        if not self._queue:
            return b""
        data = self._queue.popleft()
        self._queued -= len(data)
        if self._inflate is not None:
            data = self._inflated(data)
        if not self._reading and self._queued < QUEUE_MAX // 2 and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return data

    def _inflated(self, data: bytes) -> bytes:
        if self._inflate.eof:  # zlib would keep whatever follows, without end
            self.abort()
            raise ProtocolError(f"{self.host} sent more after the end of the compressed data")
        try:
            plain: bytes = self._inflate.decompress(data, INFLATE_MAX)
        except zlib.error:
            self.abort()
            raise ProtocolError(f"{self.host} sent damaged compressed data") from None
        rest: bytes = self._inflate.unconsumed_tail
        if rest:
            self._queue.appendleft(rest)
            self._queued += len(rest)
        elif len(plain) == INFLATE_MAX:
            # All input is consumed, but output may still be held back inside.
            plain += self._inflate.decompress(b"", INFLATE_MAX)
        return plain

    def _flush_later(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if not self._out or self._transport is None or self._shaking is not None:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if self._tls is None:
            self._send(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        self._send_tls()

    def _send(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self.bytes_out += len(data)
            self._transport.write(data)

    def _send_tls(self) -> None:
        self._send(self._tls_out.read())

    def _shake_hands(self) -> None:
        assert self._tls is not None and self._shaking is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_tls()
            return
        except ssl.SSLError as error:
            self._send_tls()  # the alert that says why
            self._tls_failed(error)
            return
        self._send_tls()
        shaking, self._shaking = self._shaking, None
        if not shaking.done():
            shaking.set_result(None)
        self._flush()

    def _receive_tls(self, data: bytes) -> None:
        assert self._tls is not None
        self._tls_in.write(data)
        if self._shaking is not None:
            self._shake_hands()
            if self._shaking is not None:
                return
        plain: list[bytes] = []
        try:
            while piece := self._tls.read(TLS_READ):  # a record at a time: 16 KiB at most
                plain.append(piece)
            self._eof = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._eof = True
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        finally:
            if plain:
                self._put(plain[0] if len(plain) == 1 else b"".join(plain))
        self._send_tls()  # key updates, alerts

    def _tls_failed(self, error: ssl.SSLError) -> None:
        self._error = error
        shaking, self._shaking = self._shaking, None
        if shaking is not None and not shaking.done():
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            text = (
                _untrusted(self.host, error) if untrusted else f"{self.host} does not speak TLS here: {_reason(error)}"
            )
            shaking.set_exception(Untrusted(text))
        self._wake()
        if self._transport is not None:
            self._transport.close()


def _untrusted(host: str, error: ssl.SSLError) -> str:
    return (
        f"the certificate of {host} does not hold: {_reason(error)}; nothing was sent to it. "
        "If it is your own server, name its authority's certificate with --ca FILE"
    )


def _end_point(certificate: bytes) -> bytes | None:
    """The certificate's hash, by its signature's hash, MD5 and SHA-1 raised to SHA-256 (RFC 5929 section 4.1)."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        chosen = parsed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if chosen is None:
        return None  # Ed25519 names no hash: undefined, so no binding
    if isinstance(chosen, hashes.MD5 | hashes.SHA1):
        chosen = hashes.SHA256()
    return parsed.fingerprint(chosen)


async def open_stream(
    host: str, port: int, *, tls: Tls = "tls", ca: str | None = None, timeout_s: float = TIMEOUT_S
) -> Stream:
    """Connect; `tls="tls"`: with the handshake done; "starttls": plain, until `start_tls`; "none": plain for good.

    Raises Unreachable, Untrusted (the certificate or the server's TLS), ConfigError for a `ca` that cannot be read.
    """
    if tls != "none":
        _context(ca)  # a file that cannot be read is said before anybody is called
    stream = Stream(host, ca=ca, timeout_s=timeout_s)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            began = loop.time()
            sock = await _first([functools.partial(_try, info) for info in _interleaved(addresses)])
            stream.connect_s = loop.time() - began
    except TimeoutError:
        raise Unreachable(f"{host} port {port} does not answer ({timeout_s:.0f} s)") from None
    except OSError as error:
        raise Unreachable(f"{host} port {port} cannot be reached: {_reason(error)}") from None
    try:
        await loop.create_connection(lambda: stream, sock=sock)
        if tls == "tls":
            await stream.start_tls()
    except BaseException:
        stream.abort()
        raise
    return stream


Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The families by turns, the resolver's favourite first (RFC 8305 section 4)."""
    first = [info for info in addresses if info[0] == addresses[0][0]]
    other = [info for info in addresses if info[0] != addresses[0][0]]
    mixed = []
    for index in range(max(len(first), len(other))):
        mixed += first[index : index + 1] + other[index : index + 1]
    return mixed[:8]


async def _try(info: Address) -> socket.socket:
    sock = socket.socket(info[0], info[1], info[2])
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, info[4])
    except BaseException:
        sock.close()
        raise
    return sock


async def _first(attempts: list[Callable[[], Coroutine[Any, Any, socket.socket]]]) -> socket.socket:
    """The first attempt that succeeds; each next one starts a moment after the last, or when that one has failed."""
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError = OSError(errno.EHOSTUNREACH, "no address")
    waiting = deque(attempts)
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.popleft()()))
            delay = ATTEMPT_DELAY_S if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            winners = []
            for task in done:
                error = task.exception()
                if error is None:
                    winners.append(task.result())
                elif isinstance(error, OSError):
                    failure = error
                else:
                    raise error
            for late in winners[1:]:
                late.close()
            if winners:
                return winners[0]
        raise failure
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)


def _close_late(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
