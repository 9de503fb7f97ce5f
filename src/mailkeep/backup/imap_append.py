"""Putting messages on another server: APPEND after APPEND without waiting, in bounded memory.

It knows literals that wait and those that do not (RFC 7888) through the codec, and nothing of which message is whose.
The one hard idea: two waits are kept apart. `append` returns when the message is handed to the line, so who calls it in
a loop is slowed down to the line's pace; what the server says of it comes later, by the future that it returned.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mailkeep.backup.imap_link import ImapLink, Reply
from mailkeep.errors import MailkeepError, Unreachable
from mailkeep.mail.numset import NumSet

PIECE: Final = 256 * 1024
FLYING_MAX: Final = 64  # appends without an answer yet
FLYING_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the message is now, if the server says so (UIDPLUS, RFC 4315)."""

    uid: int | None
    uidvalidity: int | None


class Appender:
    """The appends of one link."""

    __slots__ = ("_bytes", "_flying", "_link", "_room", "_turn")

    def __init__(self, link: ImapLink) -> None:
        self._link = link
        self._turn = asyncio.Lock()  # messages must not mix on the line
        self._flying = 0
        self._bytes = 0
        self._room = asyncio.Event()

    async def append(
        self, mailbox: str, data: bytes | Sequence[bytes], *, flags: Iterable[str], internaldate: int | None
    ) -> "asyncio.Future[Appended]":
        pieces: Sequence[bytes] = data if isinstance(data, list | tuple) else (data,)
        size = sum(map(len, pieces))
        async with self._turn:
            while self._flying >= FLYING_MAX or (self._flying and self._bytes + size > FLYING_BYTES):
                self._room.clear()
                await self._room.wait()
            with contextlib.suppress(MailkeepError):  # the future tells it
                await self._link.room()
            return await self._send(mailbox, pieces, size, flags=tuple(flags), internaldate=internaldate)

    async def _send(
        self, mailbox: str, pieces: Sequence[bytes], size: int, *, flags: tuple[str, ...], internaldate: int | None
    ) -> "asyncio.Future[Appended]":
        link = self._link
        client, stream = link.client, link.stream
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Appended] = loop.create_future()
        asked: asyncio.Event = asyncio.Event()
        head = client.start_append(mailbox, size, flags=flags, internaldate=internaldate) if link.alive else b""
        waits = client.append_waits
        future = link.expect("APPEND", on_continue=lambda _: asked.set())
        self._flying += 1
        self._bytes += size

        def ended(reply: "asyncio.Future[Reply]") -> None:
            self._flying -= 1
            self._bytes -= size
            self._room.set()
            asked.set()
            self._tell(result, reply)

        future.add_done_callback(ended)
        stream.write(head)
        if waits:
            await asked.wait()
        if future.done():
            return result  # refused before it was sent, or the line is gone
        try:
            for piece in pieces:
                view = memoryview(piece)
                for start in range(0, len(view), PIECE):
                    stream.write(bytes(view[start : start + PIECE]))
                    if size > PIECE:
                        await stream.drain()
            stream.write(client.end_append())
            await stream.drain()
        except Unreachable:
            await asyncio.wait((future,))  # what was answered before the cut is read first; then all futures tell
        return result

    def _tell(self, result: "asyncio.Future[Appended]", reply: "asyncio.Future[Reply]") -> None:
        if result.done():
            return
        try:
            done = self._link.checked(reply.result(), "APPEND")
        except MailkeepError as error:
            result.set_exception(error)
            result.exception()  # it may never be asked for, when an earlier one ended the run
            return
        except asyncio.CancelledError:
            result.cancel()
            return
        result.set_result(_appended(done))


def _appended(reply: Reply) -> Appended:
    code = reply.status.code
    if code is not None and code.name == "APPENDUID" and isinstance(code.value, tuple):
        uidvalidity, uids = code.value
        if isinstance(uids, NumSet) and len(uids) == 1 and 0 < uidvalidity < 1 << 32:
            return Appended(next(iter(uids)), uidvalidity)
    return Appended(None, None)
