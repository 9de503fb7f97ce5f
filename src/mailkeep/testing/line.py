"""What both protocols of a scripted server share: a line that may be slow, cut, or compressed.

Knows octets and the faults of the line; the sessions above write whole answers and read what there is. Answers are
gathered and go out together when the session waits, as good servers do, so that a pipelined exchange is as fast here.
"""

import asyncio
import contextlib
import zlib
from typing import Final

from mailkeep.testing.state import State

GATHERED_MAX: Final = 64 * 1024  # octets of answers held back
SLOW_PIECE: Final = 4096


class Closed(Exception):
    """The connection is over, by whose wish ever."""


class Line:
    """One connection. `sent` counts octets to the client, before compression."""

    def __init__(self, server: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.sent = 0
        self.muted = False  # the answer to this command is lost
        self.halved = False  # the answer to this command breaks off in its middle
        self.last_words = b""  # … after a whole line, and with this
        self._gathered: list[bytes] = []
        self._size = 0
        self._deflate: zlib._Compress | None = None
        self._inflate: zlib._Decompress | None = None

    async def write(self, data: bytes) -> None:
        """Say this, now or with what follows."""
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= GATHERED_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Send what is gathered. Raises Closed when a fault cuts the line there."""
        data, self._gathered, self._size = b"".join(self._gathered), [], 0
        if not data or self.muted:
            return
        faults = self.server.faults
        if self.halved:
            half = len(data) // 2
            if self.last_words:
                half = data.rfind(b"\r\n* ", 0, half + 1) + 2 if b"\r\n* " in data[: half + 1] else 0
            await self._send(data[:half] + self.last_words)
            raise Closed
        limit = faults.cut_after_bytes
        if limit is not None and self.sent + len(data) >= limit:
            counts = self.server.counts
            if faults.cut_times is None or counts["cut_after_bytes"] < faults.cut_times:
                counts["cut_after_bytes"] += 1
                await self._send(data[: max(limit - self.sent, 0)])
                raise Closed
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        self.sent += len(data)
        rate = self.server.faults.bytes_per_s
        pieces = [data] if rate is None else [data[i : i + SLOW_PIECE] for i in range(0, len(data), SLOW_PIECE)]
        for piece in pieces:
            wire = piece
            if self._deflate is not None:
                wire = self._deflate.compress(piece) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            self.writer.write(wire)
            try:
                await self.writer.drain()
            except ConnectionError:
                raise Closed from None
            if rate is not None:
                await asyncio.sleep(len(piece) / rate)

    async def read(self) -> bytes:
        """What the client sends next. Raises Closed at its end."""
        while True:
            try:
                data = await self.reader.read(256 * 1024)
            except (ConnectionError, OSError):
                raise Closed from None
            if not data:
                raise Closed
            if self._inflate is None:
                return data
            plain = self._inflate.decompress(data)
            if plain:
                return plain

    def compress(self) -> None:
        """From here on DEFLATE both ways (RFC 4978)."""
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        self._inflate = zlib.decompressobj(-15)

    @property
    def compressed(self) -> bool:
        return self._deflate is not None

    async def close(self) -> None:
        """Close; what was sent still arrives."""
        self.writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await self.writer.wait_closed()
