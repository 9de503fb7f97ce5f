"""Talking to an IMAP session in memory, on a real store: `Desk` holds the store, `Talk` is one client's connection.

A client that believes only what it is told is here as well (`Belief`): it replays untagged responses, so that a test
can compare what it must think of the mailbox with what the store says.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mailkeep.secret import Secret
from mailkeep.serve.auth import Authenticator, make_credentials
from mailkeep.serve.imap import imap_session
from mailkeep.serve.services import Limits, Services
from mailkeep.store import Account, AccountInfo, Offload, Store
from tests.serve.memory import MemoryTransport, connect

USER, PASSWORD = "ann@example.org", "correct horse"
_CREDENTIALS = make_credentials(Secret(PASSWORD))  # 50 ms: once

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")


def message(number: int = 1, *, subject: str = "Hello", body: str = "Hi there.\r\n") -> bytes:
    """A small message of its own."""
    return (
        f"From: Bob <bob@example.net>\r\nTo: ann@example.org\r\nSubject: {subject} {number}\r\n"
        f"Date: Mon, 02 Feb 2026 10:00:{number % 60:02d} +0000\r\nMessage-ID: <m{number}@example.net>\r\n\r\n{body}"
    ).encode()


class Desk:
    """A store with one account, and sessions on it."""

    def __init__(self, store: Store, offload: Offload, services: Services, info: AccountInfo) -> None:
        self.store = store
        self.offload = offload
        self.services = services
        self.info = info
        self.account: Account = store.account(info.id)
        self.talks: list[Talk] = []

    def talk(self, *, peer: str = "127.0.0.1") -> "Talk":
        """A new connection, greeted."""
        talk = Talk(self, peer)
        self.talks.append(talk)
        return talk

    async def user(self, mailbox: str | None = None, *, enable: str = "") -> "Talk":
        """A connection that has logged in, and selected a mailbox if one is named."""
        talk = self.talk()
        await talk.ok(f"LOGIN {USER} {{{len(PASSWORD)}+}}\r\n{PASSWORD}")
        if enable:
            await talk.ok(f"ENABLE {enable}")
        if mailbox is not None:
            await talk.ok(f"SELECT {mailbox}")
        return talk

    async def fill(self, count: int, mailbox: str = "INBOX", *, flags: Iterable[str] = (), first: int = 1) -> list[int]:
        """Put messages there without any session."""
        staged = []
        for number in range(first, first + count):
            staging = self.store.stage()
            staging.write(message(number))
            staged.append(staging.finish())
        target = self.account.mailbox(mailbox).id
        uids = await self.offload.write(
            self.account, lambda t: [t.append(target, one, flags=frozenset(flags)).uid for one in staged]
        )
        for one in staged:
            one.close()
        return uids


@asynccontextmanager
async def desk(root: Path, *, quota: int | None = None, limits: Limits | None = None) -> AsyncIterator[Desk]:
    """A fresh store with one account."""
    store = Store.open(root / "data")
    loop = asyncio.get_running_loop()
    offload = Offload(store, loop)
    info = store.directory.add(USER, credentials=_CREDENTIALS, quota=quota)
    auth = Authenticator(store)
    services = Services(store, offload, auth, "mail.example.org", limits=limits or Limits())
    opened = Desk(store, offload, services, info)
    try:
        yield opened
    finally:
        for talk in opened.talks:
            await talk.hang_up()
        auth.close()
        await offload.close()
        store.close()


class Talk:
    """One client. `ok`, `no` and `bad` send a command and return its untagged lines, literals inlined."""

    def __init__(self, desk: Desk, peer: str) -> None:
        self.desk = desk
        self._tags = itertools.count(1)
        self.transport: MemoryTransport
        self.conn, self.transport = connect(lambda conn: imap_session(conn, desk.services), peer=peer)
        self.tagged = b""  # the last tagged line
        self._data = b""
        self.greeting = self.heard()

    def heard(self) -> bytes:
        """What was sent since the last look."""
        return self.transport.take()

    def send(self, data: bytes | str) -> None:
        """Raw bytes to the server."""
        self.conn.data_received(data.encode() if isinstance(data, str) else data)

    async def settle(self) -> bytes:
        """Let the loop turn until nothing moves; what was said meanwhile."""
        said = b""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            more = self.heard()
            said += more
            quiet = 0 if more else quiet + 1
        return said

    async def until(self, mark: bytes) -> bytes:
        """What is said up to the line that starts with `mark`, that line included."""
        data, self._data = self._data, b""
        done = 0  # lines before this do not start with it
        async with asyncio.timeout(20):
            while True:
                self.transport.happened.clear()
                data += self.heard()
                done, found = _line_starting(data, mark, done)
                if found:
                    self._data = data[done:]
                    return data[:done]
                if self.transport.closed:
                    raise ConnectionError(data)
                await self.transport.happened.wait()

    async def command(self, text: str | bytes) -> tuple[bytes, list[bytes]]:
        """Send one command; its status and its untagged lines."""
        tag = b"t%d" % next(self._tags)
        self.send(tag + b" " + (text.encode() if isinstance(text, str) else text) + b"\r\n")
        *lines, self.tagged = _lines(await self.until(tag + b" "))
        return self.tagged.split()[1], lines

    async def ok(self, text: str | bytes) -> list[bytes]:
        status, lines = await self.command(text)
        assert status == b"OK", self.tagged
        return lines

    async def no(self, text: str | bytes) -> list[bytes]:
        status, lines = await self.command(text)
        assert status == b"NO", self.tagged
        return lines

    async def bad(self, text: str | bytes) -> list[bytes]:
        status, lines = await self.command(text)
        assert status == b"BAD", self.tagged
        return lines

    async def append(self, data: bytes, mailbox: str = "INBOX", *, flags: str = "") -> bytes:
        """APPEND without waiting; the tagged line."""
        await self.ok(f"APPEND {mailbox} {flags}{{{len(data)}+}}\r\n".encode() + data)
        return self.tagged

    async def hang_up(self) -> None:
        if not self.transport.closed:
            self.transport.close()
        await asyncio.sleep(0)


def _line_starting(data: bytes, mark: bytes, pos: int = 0) -> tuple[int, bool]:
    """Where the first line from `pos` on that starts with `mark` ends, or where the first unfinished line starts.

    Lines inside literals do not count.
    """
    while True:
        start = pos
        while True:
            end = data.find(b"\r\n", pos)
            if end < 0:
                return start, False
            pos = end + 2
            literal = _LITERAL.search(data[max(start, pos - 30) : pos])
            if literal is None:
                break
            pos += int(literal[1])
        if data.startswith(mark, start):
            return pos, True


def _lines(data: bytes) -> list[bytes]:
    """Whole responses, their literals inside."""
    lines = []
    at = 0
    while at < len(data):
        end, found = _line_starting(data, b"", at)
        assert found, data[at:]
        lines.append(data[at : end - 2])
        at = end
    return lines


_EXISTS = re.compile(rb"\* (\d+) EXISTS")
_EXPUNGE = re.compile(rb"\* (\d+) EXPUNGE")
_VANISHED = re.compile(rb"\* VANISHED (?!\(EARLIER\))([\d:,]+)")
_FETCH = re.compile(rb"\* (\d+) FETCH \(")
_UID = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")


class Belief:
    """What a client must think of its mailbox: rows in sequence order, each UID (if told) and flags (if told)."""

    def __init__(self) -> None:
        self.rows: list[list[object]] = []

    def hear(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if match := _EXISTS.match(line):
                assert int(match[1]) >= len(self.rows), "EXISTS may not shrink"
                self.rows += [[None, None] for _ in range(int(match[1]) - len(self.rows))]
            elif match := _EXPUNGE.match(line):
                assert 1 <= int(match[1]) <= len(self.rows)
                del self.rows[int(match[1]) - 1]
            elif match := _VANISHED.match(line):
                self._vanish(match[1])
            elif match := _FETCH.match(line):
                row = self.rows[int(match[1]) - 1]
                if uid := _UID.search(line):
                    assert row[0] in (None, int(uid[1]))
                    row[0] = int(uid[1])
                if flags := _FLAGS.search(line):
                    row[1] = frozenset(flags[1].split()) - {b"\\Recent"}

    def _vanish(self, known: bytes) -> None:
        for part in known.split(b","):
            low, _, high = part.partition(b":")
            for uid in range(int(low), int(high or low) + 1):
                known = [at for at, row in enumerate(self.rows) if row[0] == uid]
                # Told by EXISTS just before and gone before its UID was asked for: it is one of those at the end.
                (at,) = known or [at for at, row in enumerate(self.rows) if row[0] is None][:1]
                del self.rows[at]


def on_desk(
    test: Callable[[Desk], Coroutine[Any, Any, None]],
) -> Callable[[Path], None]:
    """Run an async test on a fresh desk."""

    def run(tmp_path: Path) -> None:
        async def scenario() -> None:
            async with desk(tmp_path) as opened:
                await test(opened)

        asyncio.run(scenario())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
