"""Another POP3 server as the backup sees it: one maildrop, its messages by number, and what deletes them.

`Pop3Connection` is one logged-in connection. It turns answers of `wire.pop3_client` into a few plain values; it knows
no store but `Staging`, into which messages flow, and no state of earlier sessions.

The one hard idea is the log-in. A password goes over TLS, or to this very machine where the user asked for no TLS, and
nowhere else in the clear; it is tried once. A mechanism that the server refuses by name, before anything secret was
said, may be followed by another; a refused password is final.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Password, Settings, Token
from mailkeep.backup.stream import TIMEOUT_S, Stream, open_stream
from mailkeep.errors import (
    BadCredentials,
    MailkeepError,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    TlsRequired,
    Unreachable,
)
from mailkeep.secret import hush
from mailkeep.store.staging import Staging
from mailkeep.wire import pop3_client, sasl_client
from mailkeep.wire.pop3_client import MULTI, Challenge, Chunk, End, Event, Pop3Client, Reply

SecretSource = Password | Token | Callable[[], Awaitable[Password | Token]]

DEPTH: Final = 32  # commands on their way, where the server takes them ahead (RFC 2449 section 6.6)
AHEAD_BYTES: Final = 4 << 20  # announced bytes on their way; a bigger message goes alone
LISTING_MAX: Final = 64 << 20  # bytes of LIST and UIDL: a million lines have room
MESSAGES_MAX: Final = 10_000_000
HEADER_MAX: Final = 10 << 20
DOT_WAIT_S: Final = 5.0  # for the final dot, when all octets announced are here
DOT_WAIT_AGAIN_S: Final = 0.5  # … of a server that sent none before
STALL_S: Final = 20.0  # for more of a message that is longer than announced
STEPS_MAX: Final = 20  # of a SASL exchange; none has more than four

# Said without a code, in many words: the password was not looked at.
_LATER: Final = re.compile(
    r"try (?:again )?later|temporar|too many|too frequent|in use|locked|\bbusy\b|rate limit|exceeded|unavailable"
    r"|login delay|maintenance",
    re.IGNORECASE,
)
_LATER_CODES: Final = {"IN-USE", "LOGIN-DELAY", "SYS/TEMP"}


@dataclass(frozen=True, slots=True)
class Drop:
    """A maildrop as the server lists it. `uidls` is None where it has no UIDL; numbers may be missing in both."""

    numbers: Sequence[int]
    sizes: dict[int, int]  # octets as announced
    uidls: dict[int, bytes] | None
    notes: tuple[str, ...] = ()  # what does not fit together


@dataclass(frozen=True, slots=True)
class Message:
    """An answer to RETR. `staging` is the caller's to finish or discard; None: refused, in `detail`'s words."""

    number: int
    staging: Staging | None
    size: int
    detail: str | None = None


@dataclass(slots=True)
class Pop3Connection:
    """See the module. Methods raise RemoteError, RemoteBusy, Unreachable, ProtocolError; after one, `abort`."""

    stream: Stream = field(repr=False)
    host: str
    quirks: Quirks
    capabilities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    greeting: str = ""
    codec: Pop3Client = field(default_factory=Pop3Client, repr=False)
    dotless: bool = False  # a message had no end

    # ---- what is there

    @property
    def depth(self) -> int:
        """Commands that may be on their way at once."""
        if "PIPELINING" not in self.capabilities:
            return 1
        return max(1, min(DEPTH, self.quirks.pipeline_depth or DEPTH))

    async def drop(self) -> Drop:
        """What the maildrop holds."""
        asked = [("STAT", pop3_client.SINGLE), ("LIST", MULTI), ("UIDL", MULTI)]
        ahead = self.depth >= len(asked)
        if ahead:
            for verb, awaits in asked:
                self._send(verb, awaits=awaits)
        else:
            self._send("STAT")
        stat = await self._reply()
        count = pop3_client.parse_stat(stat.text)[0] if stat.ok else 0
        if count > MESSAGES_MAX:
            raise ProtocolError(f"{self.host} says that it has {count} messages")
        if not ahead and stat.ok and not count:  # some answer LIST of an empty maildrop without an end
            return Drop((), {}, {})
        listed = await self._listing("LIST", sent=ahead)
        named = await self._listing("UIDL", sent=ahead)
        sizes = pop3_client.parse_list(listed) if listed is not None else {}
        uidls = pop3_client.parse_uidl(named) if named is not None else None
        numbers = sorted(sizes) if sizes else range(1, count + 1)
        notes = []
        if stat.ok and count != len(numbers):
            notes.append(f"STAT counts {count} messages, LIST {len(numbers)}")
        return Drop(numbers, sizes, uidls, tuple(notes))

    async def _listing(self, verb: str, *, sent: bool) -> bytes | None:
        """The lines of a listing; None when the server refuses the command."""
        if not sent:
            self._send(verb, awaits=MULTI)
        reply = await self._reply()
        return await self._gather(LISTING_MAX) if reply.ok else None

    async def header(self, number: int) -> bytes | None:
        """The header of a message (TOP), without marking it as read; None when the server cannot or will not."""
        return (await self.headers([number])).get(number)

    async def headers(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Headers of messages (TOP), as far as the server gives them."""
        found: dict[int, bytes] = {}
        waiting, flying = deque(numbers), deque[int]()
        while waiting or flying:
            while waiting and len(flying) < self.depth:
                flying.append(waiting.popleft())
                self._send("TOP", flying[-1], 0, awaits=MULTI)
            number = flying.popleft()
            if (await self._reply()).ok:
                found[number] = await self._gather(HEADER_MAX)
        return found

    # ---- messages

    async def messages(
        self, numbers: Iterable[int], *, sizes: dict[int, int], staging: Callable[[], Staging], lenient: bool = False
    ) -> AsyncGenerator[Message, None]:
        """Each of `numbers` once, in that order. `lenient`: for one tried again, see `Pop3Client.lenient_end`.

        Raises Unreachable when the line is cut in the middle of one, which is the one after those that were given.
        """
        self.codec.lenient_end = lenient
        waiting, flying = deque(numbers), deque[int]()
        ahead = 0
        while waiting or flying:
            while waiting and (
                not flying or (len(flying) < self.depth and ahead + sizes.get(waiting[0], AHEAD_BYTES) <= AHEAD_BYTES)
            ):
                number = waiting.popleft()
                flying.append(number)
                ahead += sizes.get(number, 0)
                self._send("RETR", number, awaits=MULTI)
            number = flying.popleft()
            ahead -= sizes.get(number, 0)
            yield await self._message(number, sizes.get(number), staging)

    async def _message(self, number: int, announced: int | None, staging: Callable[[], Staging]) -> Message:
        reply = await self._reply()
        if not reply.ok:
            return Message(number, None, 0, _words(reply))
        staged = staging()
        try:
            event = await self._event()
            while isinstance(event, Chunk):
                staged.write(event.data)
                came = staged.size + self.codec.buffered
                event = await (self._end(came == announced) if announced and came >= announced else self._event())
            assert isinstance(event, End)
            if not event.complete and event.size != announced:
                raise Unreachable(f"{self.host} cut the connection in the middle of message {number}")
        except BaseException:
            staged.discard()
            raise
        return Message(number, staged, event.size, None if event.complete else "the final dot is missing")

    async def delete(self, numbers: Iterable[int]) -> dict[int, str]:
        """Mark messages; the server deletes them at `quit`. Returns those refused, with the server's words."""
        refused: dict[int, str] = {}
        waiting, flying = deque(numbers), deque[int]()
        while waiting or flying:
            while waiting and len(flying) < self.depth:
                flying.append(waiting.popleft())
                self._send("DELE", flying[-1])
            number = flying.popleft()
            reply = await self._reply()
            if not reply.ok:
                refused[number] = _words(reply)
        return refused

    async def check(self) -> None:
        """Raises ProtocolError when what follows the last message is no answer: its end was none."""
        self._send("NOOP")
        await self._reply()

    async def quit(self) -> None:
        """End the session; what was marked is deleted when this returns. Raises RemoteError if it was not."""
        self._send("QUIT")
        try:
            reply = await self._reply()
            if not reply.ok:
                raise _refusal(reply, f"{self.host} did not delete: ")
        finally:
            await self.stream.close()

    async def leave(self) -> None:
        """End a session in which nothing is to be deleted. Never raises."""
        try:
            await self.quit()
        except (RemoteError, Unreachable, ProtocolError):
            self.abort()

    def abort(self) -> None:
        """Cut the line: nothing marked is deleted (RFC 1939 section 6)."""
        self.stream.abort()

    # ---- the codec and the line

    def _send(self, verb: str, *arguments: int | str | bytes, awaits: int = pop3_client.SINGLE) -> None:
        self.stream.write(self.codec.send(verb, *arguments, awaits=awaits))

    async def _event(self, *, patient: bool = False) -> Event:
        while (event := self.codec.next_event()) is None:
            data = await self.stream.read(patient=patient)
            if data:
                self.codec.receive(data)
            else:
                self.codec.end()
                event = self.codec.next_event()
                if event is None:
                    raise Unreachable(f"{self.host} cut the connection")
                return event
        return event

    async def _end(self, all_came: bool) -> Event:
        """What follows when all octets announced, or more, are here. Some servers never send the dot.

        With nothing else on its way the message ends then; else what came behind it cannot be told from it.
        """
        sure = all_came and not self.codec.awaited
        patience_s = STALL_S if not sure else DOT_WAIT_AGAIN_S if self.dotless else DOT_WAIT_S
        try:
            async with asyncio.timeout(patience_s):
                return await self._event(patient=True)
        except TimeoutError:
            if not sure:
                raise Unreachable(f"{self.host} does not end a message") from None
            self.dotless = True
            self.codec.give_up()
            return await self._event()

    async def _reply(self) -> Reply:
        event = await self._event()
        if not isinstance(event, Reply):
            raise ProtocolError(f"{self.host} sent something else than a reply")
        return event

    async def _gather(self, limit: int) -> bytes:
        """A multi-line response in memory. Raises Unreachable when it is cut, ProtocolError above the limit."""
        parts, size = list[bytes](), 0
        while isinstance(event := await self._event(), Chunk):
            size += len(event.data)
            if size > limit:
                raise ProtocolError(f"{self.host} sends a listing without end")
            parts.append(event.data)
        if not isinstance(event, End) or not event.complete:
            raise Unreachable(f"{self.host} cut the connection")
        return b"".join(parts)

    # ---- before anything else

    async def open(self, settings: Settings, secret: SecretSource) -> None:
        greeting = await self._reply()
        if not greeting.ok:
            raise _refusal(greeting, f"{self.host} says: ", login=True)
        self.greeting = greeting.text
        await self.ask_capabilities()
        if settings.tls == "starttls":
            self._send("STLS")
            reply = await self._reply()
            if not reply.ok:
                raise TlsRequired(f"{self.host} does not start TLS on this port ({_words(reply)}); nothing was sent")
            if self.codec.buffered:
                raise ProtocolError(f"{self.host} sent more than one answer before TLS began")
            await self.stream.start_tls()
            await self.ask_capabilities()  # what was said in the clear may be somebody else's
        given = await secret() if callable(secret) else secret
        try:
            await self._log_in(settings, given)
        except MailkeepError as error:
            hush(error, given.secret, user=settings.user)
            raise
        await self.ask_capabilities()  # RFC 2449 section 5: some hold only once logged in

    async def ask_capabilities(self) -> None:
        self._send("CAPA", awaits=MULTI)
        reply = await self._reply()
        if reply.ok:
            self.capabilities = pop3_client.parse_capabilities(await self._gather(1 << 16))

    async def _log_in(self, settings: Settings, secret: Password | Token) -> None:
        """One try. Raises BadCredentials, RemoteBusy, RemoteError; TlsRequired when nothing may be sent."""
        kind: sasl_client.SecretKind = "token" if isinstance(secret, Token) else "password"
        encrypted = self.stream.tls
        open_allowed = settings.tls == "none" and self.stream.loopback
        offered = {name.upper() for name in self.capabilities.get("SASL", ())}
        if kind == "token" and not offered:
            offered = {"XOAUTH2"}  # Outlook names its mechanisms only to those who are logged in
        # Without -PLUS, as over IMAP: servers that bind TLS 1.3 want tls-exporter, which Python does not give, and a
        # log-in that fails for it is a log-in refused. The certificate is checked in any case.
        name = sasl_client.choose(offered, kind, encrypted=encrypted, open_allowed=open_allowed)
        text = secret.secret.reveal()
        if name is not None:
            machine = sasl_client.make(
                name,
                settings.user,
                text,
                host=settings.host,
                port=settings.port,
            )
            if await self._exchange(machine):
                return
        if kind == "token":
            raise RemoteError(f"{self.host} takes no access tokens over POP3")
        if encrypted or open_allowed:
            await self._user_and_password(settings.user, text)
            return
        digest = pop3_client.apop_digest(self.greeting, text)
        if digest is None:
            raise TlsRequired(
                f"{self.host} takes passwords over an open line only, and this one was not sent; "
                "choose TLS with --pop3 HOST:995"
            )
        self._send("APOP", settings.user, digest)
        self._check(await self._reply())

    async def _exchange(self, machine: sasl_client.Mechanism) -> bool:
        """SASL (RFC 5034), without an initial response: RFC 1734's servers know none, and lines are short.

        False: the server refused the mechanism before anything was said.
        """
        self.stream.write(self.codec.send_auth(machine.name, None))
        begun = False
        for _ in range(STEPS_MAX):
            event = await self._event()
            if isinstance(event, Reply):
                if not event.ok and not begun and event.code != "AUTH" and not self._is_later(event):
                    return False
                self._check(event)
                if not machine.done:
                    raise RemoteError(f"{self.host} let us in without proving that it knows the password")
                return True
            assert isinstance(event, Challenge)
            try:
                # The first challenge of a mechanism that begins with the client is empty and no challenge.
                first = not begun and machine.client_first and not event.data
                response = machine.step(None if first else event.data)
            except ProtocolError:
                self.stream.write(self.codec.respond(None))
                raise
            begun = True
            self.stream.write(self.codec.respond(response))
        raise ProtocolError(f"{self.host} does not end the log-in")

    async def _user_and_password(self, user: str, password: str) -> None:
        self._send("USER", user)
        reply = await self._reply()
        if reply.ok:
            self._send("PASS", password)
            reply = await self._reply()
        self._check(reply)

    def _is_later(self, reply: Reply) -> bool:
        if reply.code:
            return reply.code in _LATER_CODES
        lower = reply.text.lower()
        return bool(_LATER.search(lower)) or any(words.lower() in lower for words in self.quirks.transient)

    def _check(self, reply: Reply) -> None:
        """What a reply to a log-in means."""
        if reply.ok:
            return
        said = f"{self.host} refused the log-in: {_words(reply)}"
        if self._is_later(reply):
            raise RemoteBusy(said)
        if reply.code == "SYS/PERM":
            raise RemoteError(said)
        help_text = f"; {self.quirks.password_help}" if self.quirks.password_help else ""
        raise BadCredentials(said + help_text)


def _words(reply: Reply) -> str:
    """What the server said, fit for a line of ours."""
    text = "".join(c if c.isprintable() else " " for c in reply.text)[:200].strip()
    return text or "no reason given"


def _refusal(reply: Reply, before: str, *, login: bool = False) -> RemoteError:
    said = before + _words(reply)
    later = reply.code in _LATER_CODES or (not reply.code and (login or _LATER.search(reply.text)))
    return RemoteBusy(said) if later else RemoteError(said)


async def open_pop3(
    settings: Settings, secret: SecretSource, quirks: Quirks, *, timeout_s: float = TIMEOUT_S
) -> Pop3Connection:
    """Connect, TLS, log in (one try).

    Raises Unreachable, Untrusted, TlsRequired, BadCredentials, RemoteBusy, RemoteError, ProtocolError, ConfigError.
    """
    stream = await open_stream(settings.host, settings.port, tls=settings.tls, ca=settings.ca, timeout_s=timeout_s)
    connection = Pop3Connection(stream, settings.host, quirks)
    try:
        await connection.open(settings, secret)
    except BaseException:
        stream.abort()
        raise
    return connection
