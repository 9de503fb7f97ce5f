"""IMAP4rev1 and IMAP4rev2, the session: bytes in, commands in their order, one write for all answers of one read.

This file knows when things run; what a command does is in the `imap_*` files beside it, what it looks like is in
`wire`, and what the client knows is in `imap_view`. A command is a function that answers at once, or yields its
answer in pieces, or is a coroutine. The session runs pieces on the spot while they fit into a slice of time, and makes
a task of the rest; while a task runs no other command of this session starts (RFC 9051 section 5.5 would allow it for
some; strict order is simpler and no slower, since commits are grouped across sessions).

The hard idea is fairness: one client may pipeline ten thousand commands or ask for a million rows. Nothing here holds
the loop for longer than SLICE_S, and nothing is produced faster than the client reads it.
"""

import asyncio
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any

from mailkeep import log
from mailkeep.errors import AccountReadOnly, MailkeepError
from mailkeep.serve import imap_login
from mailkeep.serve.imap_append import Incoming
from mailkeep.serve.imap_commands import COMMANDS, Entry, State
from mailkeep.serve.imap_peer import Peer
from mailkeep.serve.imap_quick import quick
from mailkeep.serve.imap_reply import Reply, from_error, no, ok
from mailkeep.serve.services import Services
from mailkeep.serve.transport import Connection
from mailkeep.wire import imap_server
from mailkeep.wire.imap_command import Append, Authenticate, Command, Idle, Logout
from mailkeep.wire.imap_server import ImapServer

_log = log.get("imap")

SLICE_S = 0.0003
SLICE_SIZE = 256 * 1024
CROWDED_SLICE_S = 0.00005
CROWDED = 20  # turns of the loop after one in which another session had something to say
QUICK = 16  # answers, of 2 µs each, between two looks at the clock
BUFFERED_MAX = 128 * 1024  # what a client may send ahead while a command runs
_SERVER_BUG = no(b"Internal error, the log has the details", b"SERVERBUG")


class Answered:
    """The type of the event that is none: commands were answered, and there may be more."""

    __slots__ = ()


class _Traffic:
    """Reads of all sessions of this process, so that a long answer notices the others.

    An object of its own: each write to a class makes the interpreter forget what it knows of the class's methods.
    """

    __slots__ = ("heard",)

    def __init__(self) -> None:
        self.heard = 0


_ANSWERED = Answered()
_traffic = _Traffic()


class ImapSession:
    """One connection. Implements `transport.Session`."""

    __slots__ = (
        "_again",
        "_append",
        "_bads",
        "_conn",
        "_due",
        "_ended",
        "_held",
        "_idle",
        "_line",
        "_loop",
        "_peer",
        "_stopping",
        "_task",
        "_telling",
        "_wire",
    )

    def __init__(self, conn: Connection, services: Services) -> None:
        self._conn = conn
        self._wire = ImapServer(imap_login.limits_before(services))
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None  # the command that runs
        self._telling = False  # the task tells news to an idling client; no command runs
        self._line: asyncio.Future[bytes] | None = None  # somebody waits for a raw line
        self._idle: bytes | None = None  # tag of the IDLE that runs
        self._append: Incoming | None = None
        self._again = False  # `_pump` is scheduled
        self._due = False  # a turn to tell news is waiting
        self._held = False  # the peer sends too far ahead: reading is paused
        self._ended = False  # the peer sends no more
        self._stopping = False
        self._bads = 0  # in a row
        self._peer = peer = Peer(conn, services, self._wire)
        peer.line = self._next_line
        peer.stream = self._stream
        peer.moved = self._stirred
        peer.flush = self._flush
        conn.set_timeout(services.limits.login_timeout_s)
        peer.write(b"* OK [CAPABILITY %b] Mailkeep ready\r\n" % imap_login.capabilities(peer))
        self._flush()

    # --- what the connection calls ---
    def data_received(self, data: bytes) -> None:
        _traffic.heard += 1
        wire = self._wire
        wire.receive(data)
        if not self._again:
            self._pump()
        if (self._again or self._task is not None) and wire.buffered > BUFFERED_MAX:
            self._held = True
            self._conn.pause_reading()

    def eof_received(self) -> None:
        self._ended = True
        self._settle()

    def connection_lost(self, error: Exception | None) -> None:
        peer = self._peer
        peer.closed = True
        if self._task is not None:
            self._task.cancel()
        if self._line is not None and not self._line.done():
            self._line.cancel()
        if self._append is not None:
            self._append.discard()
            self._append = None
        imap_login.leave(peer)

    def timed_out(self) -> None:
        if self._task is None or self._line is not None or self._telling:
            self._bye(b"Idle for too long")

    def shutdown(self) -> None:
        self._stopping = True
        self._settle()

    # --- events ---
    def _pump(self) -> None:
        """Handle what has arrived, until a command needs a task or the slice of time is over."""
        self._again = False
        peer = self._peer
        if not self._conn.writable and self._task is None and not peer.closed:
            # Answers made on the spot cost a few bytes to ask for: who does not read them gets no more.
            self._start(self._conn.drain())
            return
        deadline = perf_counter() + SLICE_S
        while not peer.closed and (self._task is None or self._line is not None):
            event = self._next()
            if event is None:
                if self._stopping or self._ended:
                    self._settle()
                break
            if type(event) is imap_server.CommandReceived:
                self._command(event.tag, event.command)
            elif not isinstance(event, Answered):
                self._other(event)
            if perf_counter() > deadline:
                self._again = True
                self._loop.call_soon(self._pump)
                break
        if self._held and self._wire.buffered <= BUFFERED_MAX:
            self._held = False
            self._conn.resume_reading()
        self._flush()

    def _next(self) -> "imap_server.Event | Answered | None":
        """What comes next and was not answered on the spot (`imap_quick`)."""
        wire, peer = self._wire, self._peer
        take, answers = wire.next_whole, peer.out
        for _ in range(QUICK):
            whole = take()
            if whole is None:
                return wire.next_event()
            answer = quick(peer, whole)
            if answer is None:
                return wire.read(whole)
            answers.append(answer)
            self._bads = 0
        return _ANSWERED

    def _other(self, event: imap_server.Event) -> None:
        match event:
            case imap_server.AppendData(data):
                if self._append is not None:
                    self._append.write(data)
            case imap_server.Continue(data):
                self._peer.write(data)
            case imap_server.AppendStart(tag, command):
                self._append_start(tag, command)
            case imap_server.AppendEnd():
                self._append_end()
            case imap_server.Line(data):
                self._raw_line(data)
            case imap_server.Bad():
                self._bad(event)
            case imap_server.Fatal(text):
                self._bye(text.encode("ascii", "replace"), linger=True)
            case imap_server.CommandReceived():
                raise AssertionError("handled by the caller")

    def _settle(self) -> None:
        """Nothing is left to do at the moment: end what was asked to end."""
        if self._task is not None and not self._telling and self._line is None:
            return
        if self._again and not self._stopping:
            return  # more has arrived than one slice of time could take
        if self._stopping:
            self._bye(b"Server is stopping")
        elif self._ended:
            self._close()

    def _bad(self, event: imap_server.Bad) -> None:
        if self._append is not None:  # what followed the message spoiled the command
            self._append.discard()
            self._append = None
        self._peer.write(event.reply)
        self._misdeed()

    def _misdeed(self) -> None:
        """A command that made no sense: a few are a client's mistake, many in a row are no mail client at all."""
        self._bads += 1
        if self._bads >= self._peer.services.limits.protocol_errors_max:
            self._bye(b"Too many bad commands", linger=True)

    def _raw_line(self, data: bytes) -> None:
        if self._line is not None:
            if not self._line.done():
                self._line.set_result(data)
            self._line = None
        elif self._idle is not None:
            tag, self._idle = self._idle, None
            if data.strip().upper() == b"DONE":
                self._finish(tag, ok(b"IDLE completed"))
            else:
                self._peer.write(b"%b BAD Expected DONE\r\n" % tag)
                self._misdeed()

    async def _next_line(self) -> bytes:
        self._wire.expect_line()
        self._line = self._loop.create_future()
        self._flush()
        if not self._again:
            self._again = True
            self._loop.call_soon(self._pump)  # the line may be here already
        return await self._line

    # --- commands ---
    def _command(self, tag: bytes, command: Command) -> None:
        peer = self._peer
        entry = COMMANDS[type(command)]
        peer.tag = tag
        if not self._fits(tag, entry.state):
            return
        view = peer.view
        if view is not None and entry.state is State.SELECTED:
            if view.index.deleted:
                self._mailbox_deleted()
                return
            if view.pending and entry.fresh(command):
                # Commands that name UIDs may learn of everything first, and then mean what is there now.
                news = view.news(expunge=True)
                if not self._advance(news)[0]:
                    self._start(self._command_later(tag, command, entry, news))
                    return
        self._perform(tag, command, entry)

    def _fits(self, tag: bytes, state: "State") -> bool:
        peer = self._peer
        if state is State.ANY:
            return True
        if state is State.NOT_AUTHENTICATED:
            wrong = b"Already logged in" if peer.account_open is not None else b""
        elif peer.account_open is None:
            wrong = b"Log in first"
        else:
            wrong = b"Select a mailbox first" if state is State.SELECTED and peer.view is None else b""
        if wrong:
            peer.write(b"%b BAD %b\r\n" % (tag, wrong))
            self._misdeed()
        return not wrong

    def _perform(self, tag: bytes, command: Command, entry: "Entry") -> None:
        """Run a command on the spot as far as that goes."""
        peer = self._peer
        if entry.writes and peer.account.info.read_only:
            self._finish(tag, from_error(AccountReadOnly()), renumbers=entry.renumbers(command))
            return
        try:
            result = entry.run(peer, command)
            if not isinstance(result, Reply):
                if isinstance(result, Generator):
                    done, reply = self._advance(result)
                    if not done:
                        self._start(self._steps_later(tag, command, entry, result))
                        return
                    result = reply
                else:
                    self._start(self._coroutine_later(tag, command, entry, result))
                    return
        except MailkeepError as error:
            result = from_error(error)
        except Exception as error:
            result = self._bug(error)
        if type(command) is Idle:  # before the news, which an idling client may always be told
            self._idle = tag
            self._wire.expect_line()
        self._finish(tag, result, renumbers=entry.renumbers(command))
        if type(command) is Logout:
            self._close()

    def _finish(self, tag: bytes, reply: Reply, *, renumbers: bool = True) -> None:
        """Tell what is new, then the tagged line."""
        view = self._peer.view
        if view is not None and view.pending:
            news = view.news(expunge=renumbers)
            if not self._advance(news)[0]:
                self._start(self._news_later(tag, reply, news))
                return
        self._reply(tag, reply)

    def _reply(self, tag: bytes, reply: Reply) -> None:
        """The tagged line. IDLE has none yet."""
        if reply.status == b"BAD":
            self._peer.write(reply.line(tag))
            self._misdeed()
            return
        self._bads = 0
        if reply.status:
            self._peer.write(reply.line(tag))

    def _bug(self, error: Exception) -> Reply:
        """Our own bug costs one command; inside a literal it costs the connection, or bytes would be misread."""
        _log.exception("command failed", error, peer=self._conn.peer)
        if self._peer.in_literal:
            self._conn.abort()
        return _SERVER_BUG

    # --- pieces and tasks ---
    def _advance(self, steps: Generator[bytes, None, Any]) -> tuple[bool, Any]:
        """Write pieces for a slice of time: whether that was all, and what the generator returned."""
        out = self._peer.out
        start = perf_counter()
        end = start + (SLICE_S if not self._peer.crowded else CROWDED_SLICE_S)
        size = 0
        try:
            while True:
                piece = next(steps)
                out.append(piece)
                size += len(piece)
                now = perf_counter()
                if size > SLICE_SIZE or now + (now - start) > end:  # another one like this would take too long
                    return False, None
                start = now
        except StopIteration as stop:
            return True, stop.value

    async def _stream(self, steps: Generator[bytes, None, Any]) -> Any:
        """Write all pieces, giving way between slices and waiting while the client does not read."""
        conn, peer = self._conn, self._peer
        while True:
            done, value = self._advance(steps)
            self._flush()
            if done:
                return value
            if conn.writable:
                heard = _traffic.heard
                await asyncio.sleep(0)
                # Others want the loop: smaller portions for a while, so that they wait less.
                peer.crowded = CROWDED if _traffic.heard != heard else max(peer.crowded - 1, 0)
            else:
                await conn.drain()
            if self._stopping and not self._peer.in_literal:
                steps.close()
                return no(b"Server is stopping", b"UNAVAILABLE")

    async def _command_later(
        self, tag: bytes, command: Command, entry: "Entry", news: Generator[bytes, None, None]
    ) -> None:
        await self._stream(news)
        self._task = None  # so that `_perform` may start the next one
        self._perform(tag, command, entry)

    async def _steps_later(
        self, tag: bytes, command: Command, entry: "Entry", steps: Generator[bytes, None, Reply]
    ) -> None:
        await self._guarded(tag, self._stream(steps), renumbers=entry.renumbers(command))

    async def _coroutine_later(
        self, tag: bytes, command: Command, entry: "Entry", work: Coroutine[Any, Any, Reply]
    ) -> None:
        await self._guarded(tag, work, renumbers=entry.renumbers(command))
        if type(command) is Authenticate and self._line is not None:
            self._line = None

    async def _guarded(self, tag: bytes, work: Coroutine[Any, Any, Reply], *, renumbers: bool) -> None:
        try:
            reply = await work
        except MailkeepError as error:
            reply = from_error(error)
            if self._peer.in_literal:
                self._conn.abort()
        except Exception as error:
            reply = self._bug(error)
        await self._finish_later(tag, reply, renumbers=renumbers)

    async def _news_later(self, tag: bytes, reply: Reply, news: Generator[bytes, None, None]) -> None:
        await self._stream(news)
        self._reply(tag, reply)

    async def _finish_later(self, tag: bytes, reply: Reply, *, renumbers: bool = True) -> None:
        view = self._peer.view
        if view is not None and view.pending:
            await self._stream(view.news(expunge=renumbers))
        self._reply(tag, reply)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Make a task of it. No other command starts before it is done."""
        self._task = task = self._loop.create_task(work)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        self._telling = False
        if self._peer.closed:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.exception("session failed", error, peer=self._conn.peer)
            self._conn.abort()
            return
        if self._task is None:
            if not self._again:
                self._pump()
            if self._idle is not None:
                self._moved()

    # --- news while idling ---
    def _stirred(self) -> None:
        """The selected mailbox has news: look at it when it is this session's turn."""
        view = self._peer.view
        if view is not None and not self._due and (self._idle is not None or view.index.deleted):
            self._due = True
            self._peer.services.turns.add(self._my_turn)

    def _my_turn(self) -> None:
        self._due = False
        if not self._peer.closed:
            self._moved()

    def _moved(self) -> None:
        """The selected mailbox has news. Only an idling client may hear of it now."""
        view = self._peer.view
        if self._task is not None or view is None:
            return
        if view.index.deleted:
            self._mailbox_deleted()
            self._flush()
        elif self._idle is not None and view.pending:
            news = view.news(expunge=True)
            if not self._conn.writable or not self._advance(news)[0]:
                self._telling = True
                self._start(self._tell(news))
            self._flush()

    async def _tell(self, news: Generator[bytes, None, None]) -> None:
        await self._conn.drain()
        await self._stream(news)

    def _mailbox_deleted(self) -> None:
        """RFC 2180 section 3.3: the numbers that the client has mean nothing any more."""
        self._bye(b"The selected mailbox was deleted")

    # --- APPEND ---
    def _append_start(self, tag: bytes, command: Append) -> None:
        peer = self._peer
        peer.tag = tag
        self._append = None
        try:
            if not self._fits(tag, State.AUTHENTICATED):
                self._wire.refuse_append()
                return
            self._append = Incoming(peer, tag, command)
        except MailkeepError as error:
            self._wire.refuse_append()
            reply = Incoming.refusal(error)
            self._reply(tag, reply)
            return
        peer.write(self._wire.accept_append())

    def _append_end(self) -> None:
        incoming, self._append = self._append, None
        if incoming is not None:
            self._start(self._guarded(incoming.tag, incoming.finish(), renumbers=True))

    # --- the end ---
    def _flush(self) -> None:
        out = self._peer.out
        if out:
            if len(out) == 1:
                self._conn.write(out[0])
            else:
                self._conn.write_all(out)
            out.clear()

    def _bye(self, text: bytes, *, linger: bool = False) -> None:
        if not self._peer.in_literal:
            self._peer.write(b"* BYE %b\r\n" % text)
        self._close(linger=linger)

    def _close(self, *, linger: bool = False) -> None:
        self._flush()
        self._peer.closed = True
        self._conn.close(linger=linger)


def imap_session(conn: Connection, services: Services) -> ImapSession:
    """The door: one session for one connection."""
    return ImapSession(conn, services)
