"""Commands out, answers in: one IMAP connection on which many commands are under way at once (RFC 9051 section 5.5).

It joins a `Stream` and the sans-IO `ImapClient`, and knows tags, time limits and errors; mailboxes and messages it does
not know. An untagged answer belongs to the oldest command under way, as servers answer in order; commands that are
pipelined and whose answers tell by themselves whose they are (FETCH, STATUS) therefore share one sink.

The one hard idea: when the line is cut, nobody may be left waiting. Every way out of the pump goes through `_fail`,
which gives all that wait the same error and lets nothing new begin.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from mailkeep import log
from mailkeep.backup.pace import PIPELINE_MAX, is_passing, refusal
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.stream import Stream
from mailkeep.errors import MailkeepError, ProtocolError, RemoteError, Unreachable
from mailkeep.wire.imap_answer import (
    Answer,
    BodyChunk,
    Capability,
    Continue,
    Enabled,
    Exists,
    Expunged,
    Fetched,
    Status,
    Vanished,
)
from mailkeep.wire.imap_client import ImapClient, ToSend
from mailkeep.wire.imap_command import ClientCommand

_log = log.get("backup")

ANSWERS_MAX: Final = 2_000_000  # of one command that has no sink: a server must not fill our memory
COLLECTED_MAX: Final = 128 << 20  # octets of them; SEARCH in a mailbox of millions has half of it
Sink = Callable[[Answer], None]


@dataclass(slots=True)
class Reply:
    """How a command ended, and what was said meanwhile (empty where a sink took it)."""

    status: Status
    answers: list[Answer] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.status.kind == "OK"

    @property
    def code(self) -> str | None:
        return self.status.code.name if self.status.code is not None else None


@dataclass(slots=True)
class _Pending:
    future: "asyncio.Future[Reply]"
    sink: Sink
    answers: list[Answer]
    on_continue: Callable[[bytes], None] | None
    what: str
    patient: bool  # it may take any time (IDLE)


class ImapLink:
    """One connection, from the greeting on. `quirks` and `capabilities` change as the server tells more of itself."""

    def __init__(self, stream: Stream, quirks: Quirks, *, timeout_s: float) -> None:
        self.stream = stream
        self.client = ImapClient()
        self.quirks = quirks
        self.timeout_s = timeout_s
        self.capabilities: frozenset[str] = frozenset()
        self.enabled: frozenset[str] = frozenset()
        self._rtt_s: float | None = None
        self.exists = 0  # messages of the selected mailbox, as far as told
        self.pipeline_max = PIPELINE_MAX
        self.received = 0  # octets of answers, as they are when nothing is compressed
        self.cut_with = 0  # commands that were under way when the other side ended it
        self.ahead: tuple[ClientCommand, asyncio.Future[Reply]] | None = None  # a question that was put early
        self.on_news: Sink | None = None  # what comes while nothing is asked
        self._loop = asyncio.get_running_loop()
        self._pending: dict[bytes, _Pending] = {}
        self._head: _Pending | None = None
        self._queue: deque[tuple[ClientCommand, _Pending, bool]] = deque()  # not sent yet
        self._error: MailkeepError | None = None
        self._bye: Status | None = None
        self._seen = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._held: asyncio.Future[None] | None = None
        self._last = False
        self._greeting: asyncio.Future[Status] | None = self._loop.create_future()
        self._pump_task: asyncio.Task[None] = asyncio.ensure_future(self._pump())
        self._arm()

    @property
    def host(self) -> str:
        return self.stream.host

    @property
    def rtt_s(self) -> float:
        """The shortest time that a small command took. That of the TCP handshake only where there is no other: the one
        who answers it may be a gate that stands before the server."""
        return self.stream.connect_s if self._rtt_s is None else self._rtt_s

    def measured(self, seconds: float) -> None:
        """A small command has taken so long."""
        self._rtt_s = seconds if self._rtt_s is None else min(self._rtt_s, seconds)

    @property
    def alive(self) -> bool:
        return self._error is None

    @property
    def pending(self) -> int:
        """Commands under way, or waiting to be."""
        return len(self._pending) + len(self._queue)

    # --- asking ---

    def start(
        self,
        command: ClientCommand,
        *,
        sink: Sink | None = None,
        on_continue: Callable[[bytes], None] | None = None,
        patient: bool = False,
        last: bool = False,
    ) -> "asyncio.Future[Reply]":
        """Send a command; the future gives its Reply, NO and BAD included, or the error that cut the line.

        `last`: after its OK the bytes mean something else, so nothing is read until `secure` or `compress`.
        """
        if self._error is not None:
            return self._failed()
        pending = self._made(type(command).__name__.upper(), sink=sink, on_continue=on_continue, patient=patient)
        if len(self._pending) >= self.depth:
            self._queue.append((command, pending, last))
        else:
            self._send(command, pending, last)
        return pending.future

    @property
    def depth(self) -> int:
        """How many commands may be under way; what is started beyond that goes out later, in order."""
        return min(self.pipeline_max, self.quirks.pipeline_depth or PIPELINE_MAX)

    async def room(self) -> None:
        """Wait until a command may go out at once. For those that are made by hand. Raises what cut the line."""
        while self._error is None and (self._queue or len(self._pending) >= self.depth):
            last = self._queue[-1][1] if self._queue else next(iter(self._pending.values()))
            await asyncio.wait((last.future,))
        if self._error is not None:
            raise self._error

    def _send(self, command: ClientCommand, pending: _Pending, last: bool) -> None:
        self._last = last
        data = self.client.send(command)
        self._enter(pending)
        self.stream.write(data)

    def expect(
        self,
        what: str,
        *,
        sink: Sink | None = None,
        on_continue: Callable[[bytes], None] | None = None,
        patient: bool = False,
    ) -> "asyncio.Future[Reply]":
        """A future for the command that `client` has just made, by hand."""
        if self._error is not None:
            return self._failed()
        pending = self._made(what, sink=sink, on_continue=on_continue, patient=patient)
        self._enter(pending)
        return pending.future

    def _made(
        self, what: str, *, sink: Sink | None, on_continue: Callable[[bytes], None] | None, patient: bool
    ) -> _Pending:
        answers: list[Answer] = []
        taken = sink or self._collector(answers)
        return _Pending(self._loop.create_future(), taken, answers, on_continue, what, patient)

    def _enter(self, pending: _Pending) -> None:
        """The command that `client` has just made is under way."""
        if self._head is None:
            self._head = pending
            self._seen = self._loop.time()
        self._pending[self.client.tag] = pending
        self._arm()

    async def run(
        self, command: ClientCommand, *, sink: Sink | None = None, on_continue: Callable[[bytes], None] | None = None
    ) -> Reply:
        """As `start`, waited for. Raises RemoteError or RemoteBusy for NO and BAD, Unreachable, ProtocolError."""
        return self.checked(await self.start(command, sink=sink, on_continue=on_continue), type(command).__name__)

    def checked(self, reply: Reply, what: str) -> Reply:
        """The reply if it is OK, else its error."""
        if not reply.ok:
            raise self.error_of(reply, what)
        return reply

    def error_of(self, reply: Reply, what: str) -> RemoteError:
        status = reply.status
        return refusal(f"{self.host} refused {what.upper()}", code=reply.code, text=status.text, quirks=self.quirks)

    async def secure(self) -> None:
        """TLS from here on, after the OK to STARTTLS. Raises Untrusted, Unreachable, ProtocolError."""
        await self.stream.start_tls()
        self.enabled = frozenset()  # nothing that was said in clear counts
        self._last = False
        self.release()

    def compress(self) -> None:
        """DEFLATE from here on, after the OK to COMPRESS. Raises ProtocolError."""
        self.stream.start_compress()
        self._last = False
        self.release()

    async def greeting(self) -> Status:
        """The first line. Raises what cut the line."""
        assert self._greeting is not None
        return await self._greeting

    # --- not being too fast ---

    def hold(self) -> None:
        """Read nothing more until `release`: whoever takes the answers is behind."""
        if self._held is None:
            self._held = self._loop.create_future()

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None and not held.done():
            held.set_result(None)

    # --- ending ---

    async def close(self) -> None:
        """Close without ado; never raises."""
        await self.stream.close()
        self._fail(Unreachable(f"the connection to {self.host} was closed"))

    def abort(self, error: MailkeepError | None = None) -> None:
        self._fail(error or Unreachable(f"the connection to {self.host} was given up"))

    # --- inside ---

    def _collector(self, answers: list[Answer]) -> Sink:
        began = self.received

        def collect(answer: Answer) -> None:
            if len(answers) >= ANSWERS_MAX or self.received - began > COLLECTED_MAX:
                raise ProtocolError(f"{self.host} answers without end")
            answers.append(answer)

        return collect

    def _failed(self) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = self._loop.create_future()
        assert self._error is not None
        _give(future, self._error)
        return future

    async def _pump(self) -> None:
        try:
            while True:
                data = await self.stream.read(patient=True)
                if not data:
                    raise self._ended()
                self._seen = self._loop.time()
                self.received += len(data)
                self.client.receive(data)
                self._dispatch()
                if self._bye is not None and not any(each.what == "LOGOUT" for each in self._pending.values()):
                    raise self._ended()  # some say BYE and keep the line
                if self._held is not None:
                    await self._held
                    self._seen = self._loop.time()
        except MailkeepError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(Unreachable(f"the connection to {self.host} was given up"))
            raise
        except Exception as error:  # our own bug: it costs this connection, and is told
            _log.exception("link failed", error, host=self.host)
            self._fail(ProtocolError(f"An answer of {self.host} could not be handled"))

    def _dispatch(self) -> None:
        next_event = self.client.next_event
        while (event := next_event()) is not None:
            kind = type(event)
            if kind is Fetched or kind is BodyChunk:
                self._untagged(event)  # type: ignore[arg-type]  # by its class, faster than isinstance
            elif isinstance(event, Status):
                self._status(event)
                if self._last and self._held is not None:
                    return  # what stands behind it was said too early, and must be seen to be there
            elif isinstance(event, ToSend):
                self.stream.write(event.data)
            elif isinstance(event, Continue):
                self._continue(event)
            else:
                self._note(event)
                self._untagged(event)

    def _untagged(self, answer: Answer) -> None:
        if self._head is not None:
            self._head.sink(answer)
        elif self.on_news is not None:
            self.on_news(answer)

    def _note(self, answer: Answer) -> None:
        if isinstance(answer, Capability):
            self._capable(answer.names)
        elif isinstance(answer, Enabled):
            self.enabled |= answer.names
        elif isinstance(answer, Exists):
            self.exists = answer.count
        elif isinstance(answer, Expunged):
            self.exists -= 1
        elif isinstance(answer, Vanished) and not answer.earlier:
            self.exists -= len(answer.uids)

    def _capable(self, names: frozenset[str]) -> None:
        self.capabilities = names
        self.client.literal_plus = "LITERAL+" in names
        self.client.literal_minus = "LITERAL-" in names

    def _status(self, status: Status) -> None:
        code = status.code
        if code is not None and code.name == "CAPABILITY" and isinstance(code.value, frozenset):
            self._capable(code.value)
        if status.tag is None:
            if status.kind == "BYE":
                self._bye = status
            if self._greeting is not None and not self._greeting.done():
                self._greeting.set_result(status)
            else:
                self._untagged(status)
            return
        pending = self._pending.pop(status.tag, None)
        if pending is None:
            raise ProtocolError(f"{self.host} answered a command that was not given")
        if pending is self._head:
            self._head = next(iter(self._pending.values()), None)
        while self._queue and len(self._pending) < self.depth:
            self._send(*self._queue.popleft())
        if self._last and status.kind == "OK":
            self.hold()
        if not pending.future.done():
            pending.future.set_result(Reply(status, pending.answers))

    def _continue(self, event: Continue) -> None:
        for pending in self._pending.values():
            if pending.on_continue is not None:
                pending.on_continue(event.text)
                return

    def _ended(self) -> MailkeepError:
        """Why the stream has come to its end."""
        self.cut_with = len(self._pending)
        bye = self._bye
        if bye is None:
            return Unreachable(f"{self.host} cut the connection")
        code = bye.code.name if bye.code is not None else None
        if is_passing(code, bye.text, self.quirks):
            return refusal(f"{self.host} closed the connection", code=code, text=bye.text, quirks=self.quirks)
        return Unreachable(
            refusal(f"{self.host} closed the connection", code=code, text=bye.text, quirks=self.quirks).text
        )

    def _fail(self, error: MailkeepError) -> None:
        if self._error is None:
            self._error = error
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self.stream.abort()
        self._head = None
        pending, self._pending = self._pending, {}
        for each in (*pending.values(), *(waiting for _, waiting, _ in self._queue)):
            _give(each.future, self._error)
        self._queue.clear()
        if self._greeting is not None and not self._greeting.done():
            _give(self._greeting, self._error)
        self.release()

    def _arm(self) -> None:
        if self._watch is None and self._error is None:
            self._watch = self._loop.call_later(self.timeout_s, self._look)

    def _look(self) -> None:
        """The watch rang: has the server been silent for so long although it was asked?"""
        self._watch = None
        waiting = self._head is not None or (self._greeting is not None and not self._greeting.done())
        if not waiting or self._error is not None:
            return
        quiet = self._loop.time() - self._seen
        patient = self._held is not None or (self._head is not None and self._head.patient)
        if not patient and quiet >= self.timeout_s:
            asked = f" to {self._head.what}" if self._head is not None else ""
            self._fail(Unreachable(f"{self.host} does not answer{asked} ({self.timeout_s:.0f} s)"))
            return
        self._watch = self._loop.call_later(self.timeout_s if patient else self.timeout_s - quiet, self._look)


def _give(future: "asyncio.Future[Reply] | asyncio.Future[Status]", error: MailkeepError) -> None:
    """Fail it, and count it as seen: of many that are pipelined one is awaited, the others may be let go."""
    if not future.done():
        future.set_exception(error)
        future.exception()


async def quietly(work: Awaitable[object]) -> None:
    """Await and forget: for good-byes on a line that may be gone."""
    with contextlib.suppress(MailkeepError, TimeoutError):
        await work
