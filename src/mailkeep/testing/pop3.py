"""One POP3 connection to a scripted server, over its INBOX; with the faults that plain old servers have.

Built on `wire.pop3`, whose formatting is strict; where a fault says that lines end badly or dots are not stuffed, that
is undone here.
"""

import asyncio
import base64
import hashlib
import re
from typing import Final

from mailkeep.errors import ProtocolError
from mailkeep.mail.header import header_end
from mailkeep.testing.line import Closed, Line
from mailkeep.testing.mailboxes import Message
from mailkeep.testing.shown import replacement
from mailkeep.testing.state import State
from mailkeep.wire import pop3

_SECRET: Final = re.compile(rb"(?i)^(PASS|AUTH +\S+) +.+")
_REFUSED: Final = "Invalid credentials"


class PopSession:
    """Call `run`: it ends when the connection does."""

    def __init__(self, server: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.line = Line(server, reader, writer)
        self.write = self.line.write
        self.wire = pop3.Pop3Server()
        self._name: bytes | None = None
        self._open = False  # in the transaction state
        self._messages: list[Message] = []
        self._deleted: set[int] = set()
        self._salt = 0

    async def run(self) -> None:
        """Serve until the end of the connection."""
        self.server.connections += 1
        self.server.open += 1
        try:
            await self.write(pop3.ok(self.server.faults.greeting))
            while True:
                await self._event(await self._next())
        except (Closed, asyncio.CancelledError):
            pass
        finally:
            self.server.open -= 1
            await self.line.close()

    async def _next(self) -> pop3.Event:
        while True:
            event = self.wire.next_event()
            if event is not None:
                if not self.server.faults.pop.pipelining and self.wire.buffered:
                    self.wire = pop3.Pop3Server()  # what was sent ahead is lost, as with servers that flush their input
                return event
            await self.line.flush()
            self.wire.receive(await self.line.read())

    async def _event(self, event: pop3.Event) -> None:
        if not isinstance(event, pop3.Command):
            await self.write(pop3.err(event.text if isinstance(event, pop3.Bad) else "Unexpected line"))
            return
        server = self.server
        words = [event.verb.encode(), *(b"%d" % number for number in event.numbers), *filter(None, [event.text])]
        text = b" ".join(words)
        server.log.append(_SECRET.sub(rb"\1 ...", text))
        if server.faults.delay_s:
            await asyncio.sleep(server.faults.delay_s)
        strike = server.breaks(text)
        if strike is not None:
            await self.line.flush()
            if strike.when == "before":
                await self._end(strike.bye)
            self.line.muted, self.line.halved = strike.when == "after", strike.when == "middle"
        busy = server.busy(text) if self._open else None
        if busy is not None:
            reply = busy.reply if busy.reply.startswith(b"-ERR") else b"-ERR [SYS/TEMP] Try again later"
            await self.write(reply + b"\r\n")
        else:
            await self._command(event)
        if strike is not None:
            await self.line.flush()
            self.line.muted = False
            await self._end(strike.bye)

    async def _end(self, bye: bool) -> None:
        if bye:
            await self.write(pop3.err("Server is shutting down", "SYS/TEMP"))
            await self.line.flush()
        raise Closed

    async def _command(self, command: pop3.Command) -> None:
        match command.verb:
            case "CAPA":
                await self._capa()
            case "USER":
                self._name = command.text
                await self.write(pop3.ok("Send PASS"))
            case "PASS":
                await self._enter(self._name or b"", command.text)
            case "AUTH":
                await self._auth(command.text)
            case "QUIT":
                await self._quit()
            case "NOOP":
                await self.write(pop3.ok())
            case _ if not self._open:
                await self.write(pop3.err("Log in first"))
            case "STAT":
                live = self._live()
                size = sum(self._size(message) for _, message in live)
                await self.write(pop3.ok(f"{len(live) + self.server.faults.pop.stat_error} {size}"))
            case "LIST" | "UIDL":
                await self._listing(command)
            case "RETR" | "TOP":
                await self._retrieve(command)
            case "DELE":
                number = self._number(command)
                self._deleted |= {number} if number else set()
                await self.write(pop3.ok("Deleted") if number else pop3.err("No such message"))
            case "RSET":
                self._deleted.clear()
                await self.write(pop3.ok())
            case _:
                await self.write(pop3.err("Unknown command"))

    # --- log-in ---

    async def _capa(self) -> None:
        faults = self.server.faults.pop
        if not faults.capa:
            await self.write(pop3.err("Unknown command"))
            return
        lines = ["USER", "SASL PLAIN XOAUTH2", "RESP-CODES"]
        lines += ["PIPELINING"] if faults.pipelining else []
        lines += ["TOP"] if faults.top else []
        lines += ["UIDL"] if faults.uidl != "missing" else []
        lines += [f"LOGIN-DELAY {faults.login_delay_s}"] if faults.login_delay_s is not None else []
        await self.write(pop3.multi_line("Capabilities", lines))

    async def _auth(self, text: bytes) -> None:
        try:
            mechanism, response = pop3.parse_auth(text)
            if response is None:
                response = pop3.decode_response(await self._ask(b""))
        except ProtocolError as error:
            await self.write(pop3.err(error.text))
            return
        if mechanism == "PLAIN" and response.count(b"\0") == 2:
            _, user, password = response.split(b"\0")
            await self._enter(user, password)
            return
        match = re.search(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01", response)
        if mechanism != "XOAUTH2" or match is None or match[2].decode() != self.server.token:
            if mechanism == "XOAUTH2":
                await self._ask(b'{"status":"401"}')
            await self.write(pop3.err(_REFUSED, "AUTH"))
            return
        await self._enter(match[1], self.server.password.encode())

    async def _ask(self, challenge: bytes) -> bytes:
        await self.write(b"+ %b\r\n" % base64.b64encode(challenge))
        self.wire.expect_line()
        while (event := self.wire.next_event()) is None:
            await self.line.flush()
            self.wire.receive(await self.line.read())
        return event.data if isinstance(event, pop3.Line) else b""

    async def _enter(self, user: bytes, password: bytes) -> None:
        server, faults = self.server, self.server.faults
        if server.first("pop", faults.pop.in_use):
            await self.write(pop3.err("Mailbox is locked by another session", "IN-USE"))
        elif server.first("login_unavailable", faults.login_unavailable):
            await self.write(pop3.err("Temporary failure", "SYS/TEMP"))
        elif faults.login_refused is not None:
            await self.write(pop3.err(faults.login_refused))
        elif (user.decode(errors="replace"), password.decode(errors="replace")) != (server.user, server.password):
            await self.write(pop3.err(_REFUSED, "AUTH"))
        else:
            self._open = True
            server.counts["logins"] += 1
            self._salt = server.counts["logins"]
            self._messages = server.account.mailboxes["INBOX"].visible(faults.folder_cap)
            await self.write(pop3.ok("Logged in"))

    async def _quit(self) -> None:
        box = self.server.account.mailboxes["INBOX"]
        if self._open and not self.server.faults.pop.forgets_deletions:
            for number in self._deleted:
                uid = self._messages[number - 1].uid
                if uid in box.messages:
                    box.remove(uid)
        await self.write(pop3.ok("Bye"))
        await self.line.flush()
        raise Closed

    # --- messages ---

    def _live(self) -> list[tuple[int, Message]]:
        return [(n, m) for n, m in enumerate(self._messages, 1) if n not in self._deleted]

    def _number(self, command: pop3.Command) -> int:
        """The message number of a command; 0 when there is no such message."""
        number = command.numbers[0]
        return number if 1 <= number <= len(self._messages) and number not in self._deleted else 0

    def _size(self, message: Message) -> int:
        return max(len(message.data) + self.server.faults.pop.size_error, 0)

    def _uidl(self, number: int, message: Message) -> str:
        name = hashlib.sha256(b"%d" % message.mail.id).hexdigest()[:20]
        match self.server.faults.pop.uidl:
            case "repeated":
                name = hashlib.sha256(b"%d" % ((number - 1) // 2)).hexdigest()[:20]
            case "changing":
                name = f"{self._salt}.{number}"
            case "empty":
                name = ""
            case "long":
                name = f"{name} é {'x' * 180}"
        return name

    async def _listing(self, command: pop3.Command) -> None:
        faults = self.server.faults.pop
        if command.verb == "UIDL" and faults.uidl == "missing":
            await self.write(pop3.err("Unknown command"))
            return

        def value(number: int, message: Message) -> str:
            if command.verb == "UIDL":
                return self._uidl(number, message)
            return str(self._size(message) if faults.list_sizes else 0)

        if not command.numbers:
            await self.write(pop3.multi_line("Follows", [f"{n} {value(n, m)}" for n, m in self._live()]))
            return
        number = self._number(command)
        if not number:
            await self.write(pop3.err("No such message"))
            return
        await self.write(pop3.ok(f"{number} {value(number, self._messages[number - 1])}"))

    async def _retrieve(self, command: pop3.Command) -> None:
        faults = self.server.faults.pop
        if command.verb == "TOP" and not faults.top:
            await self.write(pop3.err("Unknown command"))
            return
        number = self._number(command)
        if not number:
            await self.write(pop3.err("No such message"))
            return
        message = self._messages[number - 1]
        data, item = message.data, "TEXT" if command.verb == "TOP" else "BODY[]"
        ill, mail = message.mail.ill, message.mail
        if ill is not None and item in ill.items and (ill.times is None or mail.ill_count < ill.times):
            mail.ill_count += 1
            if ill.kind in ("no", "bad", "missing"):
                await self.write(pop3.err("Unable to open message", "SYS/PERM"))
                return
            if ill.kind in ("hangup", "bye"):
                await self.line.flush()
                await self._end(ill.kind == "bye")
            if ill.kind == "short":
                await self.write(pop3.ok(f"{len(data)} octets") + data[: len(data) // 2])
                await self.line.flush()
                raise Closed
            data = replacement(number) if ill.kind == "replaced" else b""
        if command.verb == "TOP":
            end = header_end(data)
            lines = data[end:].splitlines(keepends=True)[: command.numbers[1]]
            data = data[:end] + b"".join(lines)
        await self.write(pop3.ok(f"{self._size(message)} octets") + self._stuffed(data))
        self.server.body_bytes += len(data)

    def _stuffed(self, data: bytes) -> bytes:
        faults = self.server.faults.pop
        body, end = pop3.stuffed(data)
        if not faults.stuffing:
            body = data
        if faults.bare_lf:
            body = body.replace(b"\r\n", b"\n")
        return body + (end if faults.dot else end.removesuffix(b".\r\n"))
