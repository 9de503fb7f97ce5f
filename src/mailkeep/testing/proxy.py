"""A TCP proxy on loopback that makes a network of it: round trips that take time, little bandwidth, cut lines.

    with Proxy(("127.0.0.1", 1143), delay_ms=50, cuts=[Cut(after=100_000, times=1)]) as proxy:
        imaplib.IMAP4("127.0.0.1", proxy.port)

It knows bytes and clocks, and nothing of any protocol. It runs in a thread of its own, or as a process of its own by
`python -m mailkeep.testing proxy`, which a measurement wants.

The hard idea: a delay must not cost bandwidth. Whatever comes in is taken at once, stamped with the moment at which it
is due on the other side, and queued; many stamps are under way at a time, as bytes are in a long cable. Bandwidth is
a second stamp: no piece is due before all pieces before it have had their time on the wire.
"""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, cast

import uvloop

from mailkeep.testing.aside import Aside

Direction = Literal["up", "down"]  # from the client to the server; from the server to the client

PIECE: Final = 16 * 1024  # octets: how finely a bandwidth is dealt out
QUEUE_MAX: Final = 64 * 1024 * 1024  # octets under way in one direction: a cable is long, memory is not endless
EARLY_S: Final = 0.0005  # timers tick in milliseconds; a piece that is due by then goes
CARRY: Final = 1024  # octets of what went before in which a pattern may begin


@dataclass(frozen=True, slots=True)
class Cut:
    """When to cut a connection. Everything before the place is passed on, nothing after it.

    `after`: that many octets have gone in `direction`; `at`: a regex has matched there (what it matched is passed on).
    `connection`: the nth only, counted from 1; `times`: so often, then never again. With neither `after` nor `at` the
    connection is closed as soon as it is accepted.
    """

    after: int | None = None
    at: bytes | None = None
    direction: Direction = "down"
    connection: int | None = None
    times: int | None = None


class Proxy:
    """Listens on 127.0.0.1 and connects each caller to `to`. All settings may be changed while it runs.

    `delay_ms` is the whole round trip, half of it each way; `bytes_per_s` bounds each direction of each connection.
    `connections` counts callers, `cut_count` cut connections, `passed` octets by direction.
    """

    def __init__(
        self,
        to: tuple[str, int],
        *,
        delay_ms: float = 0,
        bytes_per_s: float | None = None,
        cuts: Sequence[Cut] = (),
        port: int = 0,
    ) -> None:
        self.to = to
        self.delay_ms = delay_ms
        self.bytes_per_s = bytes_per_s
        self.cuts = tuple(cuts)
        self.port = port
        self.connections = 0
        self.cut_count = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._uses: dict[int, int] = {}  # by identity of the Cut
        self._server: asyncio.Server | None = None
        self._aside: Aside | None = None
        self._open: set[_End] = set()

    async def listen(self) -> asyncio.Server:
        """Begin to listen, on the running loop. Sets `port`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _End(self, "up"), "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        return server

    def cut_now(self) -> None:
        """Cut every connection that is open. From any thread."""
        assert self._aside is not None, "not started"
        self._aside.loop.call_soon_threadsafe(self._abort_all)

    def takes(self, cut: Cut, connection: int) -> bool:
        """Whether a cut is for this connection, and still to be made."""
        if cut.connection is not None and cut.connection != connection:
            return False
        return cut.times is None or self._uses.get(id(cut), 0) < cut.times

    def use(self, cut: Cut) -> None:
        """Count a cut that is being made."""
        self._uses[id(cut)] = self._uses.get(id(cut), 0) + 1
        self.cut_count += 1

    def _abort_all(self) -> None:
        self.cut_count += len({end.connection for end in self._open})
        for end in list(self._open):
            end.abort()

    # --- in a thread ---

    def __enter__(self) -> Self:
        self._aside = Aside("proxy", self.listen, self._end, new_loop=uvloop.new_event_loop)
        self._aside.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._aside is not None
        self._aside.stop()

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for end in list(self._open):
            end.abort()
        await asyncio.sleep(0)


class _End(asyncio.Protocol):
    """One side of a connection: what it receives is due on the other side a while later.

    "up" is the caller's side; it makes the other one.
    """

    def __init__(self, proxy: Proxy, direction: Direction, other: "_End | None" = None) -> None:
        self.proxy = proxy
        self.direction = direction
        self.other = other
        self.connection: int = 0 if other is None else other.connection
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes]] = deque()  # (when due at the other side, what); b"" is the end
        self._queued = 0
        self._free_at = 0.0  # when the wire has sent all that is queued
        self._timer: asyncio.TimerHandle | None = None
        self._seen = 0
        self._carry = b""
        self._over = False
        self._blocked = False  # the other side does not take more for now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        proxy = self.proxy
        proxy._open.add(self)
        if self.other is not None:
            self.other._flush()
            return
        proxy.connections += 1
        self.connection = proxy.connections
        for cut in proxy.cuts:
            if cut.after is None and cut.at is None and proxy.takes(cut, self.connection):
                proxy.use(cut)
                self.abort()
                return
        # A caller far away would have waited for the handshake; here the kernel answered it.
        self._loop.call_later(proxy.delay_ms / 1000, self._connect)

    def _connect(self) -> None:
        if not self._over:
            task = self._loop.create_task(self._reach())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _reach(self) -> None:
        self.other = far = _End(self.proxy, "down", self)
        try:
            await self._loop.create_connection(lambda: far, *self.proxy.to)
        except OSError:
            self.abort()
            return
        if self._over:
            far.abort()

    # --- in ---

    def data_received(self, data: bytes) -> None:
        cut_at = self._cut_at(data) if self.proxy.cuts else None
        if cut_at is not None:
            data = data[:cut_at]
        self._seen += len(data)
        self.proxy.passed[self.direction] += len(data)
        self._put(data)
        if cut_at is not None:
            self._put(b"")
            self._over = True
            assert self.transport is not None
            self.transport.abort()

    def _put(self, data: bytes) -> None:
        proxy = self.proxy
        free = not self._queue and not self._blocked and not proxy.delay_ms and proxy.bytes_per_s is None
        if free and self._target() is not None:
            self._send(data)
            return
        now = self._loop.time()
        if proxy.bytes_per_s is None or not data:
            self._queue.append((max(now, self._free_at) + proxy.delay_ms / 2000, data))
        else:
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                self._free_at = max(now, self._free_at) + len(piece) / proxy.bytes_per_s
                self._queue.append((self._free_at + proxy.delay_ms / 2000, piece))
        self._queued += len(data)
        if self._queued > QUEUE_MAX and self.transport is not None:
            self.transport.pause_reading()
        self._flush()

    def _cut_at(self, data: bytes) -> int | None:
        """Where in this piece the connection is to be cut; None: nowhere."""
        places = []
        for cut in self.proxy.cuts:
            if cut.direction != self.direction or not self.proxy.takes(cut, self.connection):
                continue
            place = None
            if cut.after is not None and self._seen + len(data) >= cut.after:
                place = max(cut.after - self._seen, 0)
            elif cut.at is not None:
                match = re.compile(cut.at, re.DOTALL).search(self._carry + data)
                place = None if match is None else max(match.end() - len(self._carry), 0)
            if place is not None:
                places.append((place, cut))
        self._carry = (self._carry + data)[-CARRY:]
        if not places:
            return None
        place, cut = min(places, key=lambda found: found[0])
        self.proxy.use(cut)
        return place

    def eof_received(self) -> bool:
        if not self._over:
            self._put(b"")
        return True  # the other half stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy._open.discard(self)
        if not self._over:
            self._over = True
            self._put(b"")
        if self.other is not None:
            self.other._blocked = False
            self.other._queue.clear()  # nobody is there to take it
            if self.other.transport is not None and not self._queue:
                self.other.transport.close()

    # --- out ---

    def _target(self) -> asyncio.Transport | None:
        return self.other.transport if self.other is not None else None

    def _flush(self) -> None:
        """Send what is due to the other side, and come again when the next is."""
        if self._blocked or self._target() is None:
            return
        now = self._loop.time() + EARLY_S
        queue = self._queue
        while queue and queue[0][0] <= now and not self._blocked:
            _, data = queue.popleft()
            self._queued -= len(data)
            self._send(data)
        if self._queued < QUEUE_MAX // 2 and self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()
        if queue and not self._blocked and self._timer is None:
            self._timer = self._loop.call_at(queue[0][0], self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._flush()

    def _send(self, data: bytes) -> None:
        target = self._target()
        if target is None or target.is_closing():
            return
        if data:
            target.write(data)
        elif self._over or self.direction == "down":
            target.close()  # what is written goes out first; of a server that has closed nobody expects more
        elif target.can_write_eof():
            target.write_eof()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = True
            if self.other.transport is not None and not self.other.transport.is_closing():
                self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = False
            self.other._flush()

    def abort(self) -> None:
        """End both sides now; nothing more is passed on."""
        self._over = True
        self._queue.clear()
        if self.transport is not None:
            self.transport.abort()
        if self.other is not None and not self.other._over:
            self.other.abort()
