"""An in-memory transport: what a session says, without a socket and without waiting.

`connect` gives a connection whose bytes can be looked at; tests feed it with `data_received` as the loop would.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from mailkeep.serve.tls import TlsConfig
from mailkeep.serve.transport import Connection, Hub, Session


class MemoryTransport(asyncio.Transport):
    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__({"peername": (peer, 50000), "sockname": ("127.0.0.1", 143)})
        self.connection: Connection | None = None
        self.sends: list[bytes] = []  # one entry a send
        self.closed = False
        self.aborted = False
        self.eof_sent = False
        self.reading = True
        self.happened = asyncio.Event()  # something was sent, or it was closed

    @property
    def sent(self) -> bytes:
        return b"".join(self.sends)

    def take(self) -> bytes:
        """What was sent since the last call."""
        data = self.sent
        self.sends.clear()
        return data

    def write(self, data: Any) -> None:
        assert not self.closed
        assert not self.eof_sent
        self.sends.append(bytes(data))
        self.happened.set()

    def write_eof(self) -> None:
        self.eof_sent = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.happened.set()
            assert self.connection is not None
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


def connect(
    factory: Callable[[Connection], Session],
    *,
    hub: Hub | None = None,
    peer: str = "127.0.0.1",
    tls: TlsConfig | None = None,
    implicit_tls: bool = False,
) -> tuple[Connection, MemoryTransport]:
    connection = Connection(factory, hub or Hub(), tls=tls, implicit_tls=implicit_tls, refusal=b"busy\r\n")
    transport = MemoryTransport(peer)
    transport.connection = connection
    connection.connection_made(transport)
    return connection, transport
