"""One IMAP connection to a scripted server: greeting, log-in, what is allowed when, and the faults around a command.

Knows when things happen; what a command does is in `folders.py` (names) and `selected.py` (messages), and how bytes are
read in `wire.imap_server`, the same codec as the real server's. The codec knows no X-GM-…, XLIST or COMPRESS, as no
honest server of ours does; they are taken out of the line before it is read.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from mailkeep.errors import MailkeepError
from mailkeep.testing import folders, selected
from mailkeep.testing.line import Closed
from mailkeep.testing.peer import Peer
from mailkeep.testing.reply import OK, Refused, Reply
from mailkeep.testing.state import State
from mailkeep.wire import imap_command as commands
from mailkeep.wire import imap_response as say
from mailkeep.wire import imap_server as wire
from mailkeep.wire.imap_format import format_command

_SECRETS = re.compile(rb"(?i)^(\S+ +(?:LOGIN +\S+|AUTHENTICATE +\S+) +).+", re.DOTALL)
_TAGGED = re.compile(rb"(\S+) +(.+)", re.DOTALL)
_XLIST = re.compile(rb"(?i)^(\S+ +)XLIST( )")
_HANGING_UP = "Connection is closed"


class Session:
    """Call `run`: it ends when the connection does."""

    def __init__(self, server: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.peer = Peer(server, reader, writer)
        self.line = self.peer.line
        self.write = self.line.write
        self.wire = self.peer.wire
        self._waiting = 0  # command lines received and not yet looked at
        self._connected = True  # False: "authenticated but not connected"
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Serve until the end of the connection."""
        loop = asyncio.get_running_loop()
        wake = self._woken.set

        def watcher() -> None:
            loop.call_soon_threadsafe(wake)

        server = self.server
        server.connections += 1
        server.open += 1
        self.server.account.watchers.add(watcher)
        try:
            await self._greet()
            while True:
                await self._event(await self._next())
        except (Closed, asyncio.CancelledError):
            pass
        finally:
            self.server.account.watchers.discard(watcher)
            server.open -= 1
            await self.line.close()

    async def _greet(self) -> None:
        faults = self.server.faults
        if faults.connections_max is not None and self.server.open > faults.connections_max:
            await self.write(say.untagged("BYE", "Too many simultaneous connections", code="LIMIT"))
            await self.line.flush()
            raise Closed
        code = say.capability_code(self.peer.capabilities) if faults.tells_capabilities else None
        await self.write(say.untagged("OK", faults.greeting, code=code))

    # --- events ---

    async def _next(self) -> bytes | wire.Event:
        """The next command as it came, if it is one line, else the codec's event."""
        while True:
            line = self.wire.next_whole()
            if line is not None:
                self._waiting -= 1
                return line
            event = self.wire.next_event()
            if event is not None:
                return event
            await self.line.flush()
            data = await self.line.read()
            self._waiting += data.count(b"\n") if self.wire.buffered else data.count(b"\n") - self._waiting
            self.wire.receive(data)

    async def _event(self, event: bytes | wire.Event) -> None:
        if isinstance(event, bytes):
            await self._whole(event)
        elif isinstance(event, wire.CommandReceived):
            try:
                text = format_command(event.tag, event.command).removesuffix(b"\r\n")
            except (KeyError, ValueError):
                text = event.tag + b" " + type(event.command).__name__.upper().encode()
            await self._around(event.tag, text, lambda: self._execute(event.command))
        elif isinstance(event, wire.Continue):
            await self.write(event.data)
        elif isinstance(event, wire.AppendStart):
            await self._append(event)
        elif isinstance(event, wire.Bad):
            self.server.log.append(b"(bad) " + (event.tag or b"*"))
            await self.write(event.reply)
        elif isinstance(event, wire.Fatal):
            await self.peer.bye(event.text)

    async def _whole(self, line: bytes) -> None:
        faults = self.server.faults
        match = _TAGGED.match(line)
        tag, rest = (match[1], match[2]) if match is not None else (b"*", b"")
        if len(line) > faults.line_max:
            await self.write(b"%b %b\r\n" % (tag, faults.line_max_text.encode()))
            await self.peer.bye(_HANGING_UP)
        if faults.pipeline_max is not None and self._waiting > faults.pipeline_max and self.wire.buffered:
            await self.peer.bye("Too many commands at once")

        async def run() -> Reply:
            verb = rest.split(b" ", 1)[0].upper()
            if verb == b"COMPRESS" and self.peer.has("COMPRESS=DEFLATE"):
                return OK("DEFLATE active")
            self.peer.xlist = verb == b"XLIST" and self.peer.has("XLIST")
            readable = _XLIST.sub(rb"\1LIST\2", line) if self.peer.xlist else line
            if self.server.faults.labels:
                if (stored := await selected.store_labels(self.peer, rest)) is not None:
                    return stored
                readable, self.peer.gm_items = selected.take_gm_items(readable)
            event = self.wire.read(readable)
            if isinstance(event, wire.Bad):
                raise Refused("NO" if event.code else "BAD", event.text, event.code or None)
            return await self._execute(event.command)

        await self._around(tag, line, run)
        if rest.upper() == b"STARTTLS" and self.peer.tls and self.server.starttls is not None:
            await self.line.flush()
            await self.line.writer.start_tls(self.server.starttls)
        if rest.upper() == b"COMPRESS DEFLATE" and self.peer.has("COMPRESS=DEFLATE"):
            await self.line.flush()
            self.line.compress()

    async def _around(self, tag: bytes, line: bytes, run: Callable[[], Awaitable[Reply]]) -> None:
        """Do a command with the faults that lie around it, and answer its tag."""
        server = self.server
        server.log.append(_SECRETS.sub(rb"\1...", line))
        verb = line[len(tag) + 1 :].split(b" ", 1)[0].upper()
        if server.faults.delay_s:
            await asyncio.sleep(server.faults.delay_s)
        strike = server.breaks(line)
        if strike is not None:
            await self.line.flush()
            if strike.when == "before":
                await self._break(strike.bye)
            self.line.muted = strike.when == "after"
            self.line.halved = strike.when == "middle"
            self.line.last_words = say.untagged("BYE", "Server is shutting down") if strike.bye else b""
        busy = server.busy(line) if self.peer.user is not None else None
        try:
            if busy is not None:
                await self.write(b"%b %b\r\n" % (tag, busy.reply))
            elif not self._connected and verb not in (b"LOGOUT", b"CAPABILITY"):
                await self.write(b"%b BAD User is authenticated but not connected.\r\n" % tag)
            else:
                await self._answer(tag, run)
        finally:
            if strike is not None and strike.when != "before":
                self.line.muted = False
        if strike is not None:
            await self.line.flush()  # halved: ends here
            await self._break(strike.bye)

    async def _break(self, bye: bool) -> None:
        if bye:
            await self.peer.bye("Server is shutting down")
        raise Closed

    async def _answer(self, tag: bytes, run: Callable[[], Awaitable[Reply]]) -> None:
        try:
            reply = await run()
        except Refused as refused:
            reply = refused.reply
        except MailkeepError as error:
            reply = Reply("BAD", error.text)
        text = say.tagged(tag, reply.status, reply.text, code=reply.code)
        if self.server.faults.bare_ok and reply.status == "OK" and reply.code is None:
            text = tag + b" OK\r\n"
        await self.write(text)
        if reply.ends:
            await self.peer.bye(_HANGING_UP)

    # --- commands ---

    async def _execute(self, command: commands.Command) -> Reply:
        kind = type(command)
        needs = _CAPABILITY.get(kind)
        if needs is not None and not self.peer.has(needs):
            raise Refused("BAD", "Unknown command")
        if kind in _BEFORE_LOGIN:
            return await _BEFORE_LOGIN[kind](self, command)
        if self.peer.user is None:
            raise Refused("BAD", "Log in first")
        if kind is commands.Enable:
            return await self.enable(command)
        reply = await (self.idle() if kind is commands.Idle else _HANDLERS[kind](self.peer, command))
        numbers = kind in (commands.Fetch, commands.Store, commands.Search) and not getattr(command, "uid", True)
        if self.peer.view is not None:
            await self.peer.news(expunges=not numbers)
        return reply

    # --- before log-in ---

    async def capability(self, command: commands.Capability) -> Reply:
        await self.write(say.capability(self.peer.capabilities))
        return OK("CAPABILITY completed")

    async def noop(self, command: commands.Noop) -> Reply:
        for line in self.server.faults.junk_lines:
            await self.write(line + b"\r\n")
        await self.peer.news()
        return OK("NOOP completed")

    async def logout(self, command: commands.Logout) -> Reply:
        await self.write(say.untagged("BYE", "Logging out"))
        return Reply("OK", "LOGOUT completed", ends=True)

    async def id(self, command: commands.Id) -> Reply:
        await self.write(say.id_line(dict(self.server.faults.server_id)))
        return OK("ID completed")

    async def start_tls(self, command: commands.StartTls) -> Reply:
        if self.server.starttls is None or self.peer.tls:
            raise Refused("BAD", "STARTTLS is not offered")
        self.peer.tls = True
        return OK("Begin TLS")

    async def login(self, command: commands.Login) -> Reply:
        if not self.server.faults.password_login:
            raise Refused("NO", "Basic authentication is disabled", "AUTHENTICATIONFAILED")
        return self._enter(command.user, command.password)

    async def authenticate(self, command: commands.Authenticate) -> Reply:
        name = command.mechanism
        if f"AUTH={name}" not in self.peer.capabilities:
            raise Refused("NO", "Unknown mechanism")
        if name == "LOGIN":
            user = command.initial if command.initial is not None else await self.peer.ask(b"Username:")
            return self._enter(user, await self.peer.ask(b"Password:"))
        response = command.initial if command.initial is not None else await self.peer.ask(b"")
        if name == "PLAIN":
            parts = response.split(b"\0")
            if len(parts) != 3 or not self.server.faults.password_login:
                raise Refused("NO", "Log-in failed", "AUTHENTICATIONFAILED")
            return self._enter(parts[1], parts[2])
        match = re.search(rb"(?:user|n,a)=([^\x01,]*),?\x01(?:[^\x01]*\x01)*?auth=Bearer ([^\x01]*)\x01", response)
        if match is None or match[2].decode() != self.server.token:
            await self.peer.ask(b'{"status":"401","schemes":"bearer","scope":"mail"}')
            raise Refused("NO", "AUTHENTICATE failed", "AUTHENTICATIONFAILED")
        return self._enter(match[1], self.server.password.encode())

    def _enter(self, user: bytes, password: bytes) -> Reply:
        server, faults = self.server, self.server.faults
        if self.peer.user is not None:
            raise Refused("BAD", "Logged in already")
        if server.first("login_unavailable", faults.login_unavailable):
            raise Refused("NO", "Temporary authentication failure", "UNAVAILABLE")
        if faults.login_refused is not None:
            code = re.match(r"\[([^\]]+)\] +", faults.login_refused)
            text = faults.login_refused[code.end() :] if code is not None else faults.login_refused
            raise Refused("NO", text, code[1] if code is not None else None)
        if (user.decode(errors="replace"), password.decode(errors="replace")) != (server.user, server.password):
            raise Refused("NO", "Invalid credentials (Failure)", "AUTHENTICATIONFAILED")
        if faults.bytes_cap is not None and server.body_bytes >= faults.bytes_cap:
            raise Refused("NO", "Account exceeded command or bandwidth limits.", "OVERQUOTA")
        self.peer.user = server.user
        self._connected = not server.first("not_connected", faults.not_connected)
        return OK("Logged in", say.capability_code(self.peer.capabilities) if faults.tells_capabilities else None)

    # --- after log-in ---

    async def enable(self, command: Any) -> Reply:
        known = ("CONDSTORE", "QRESYNC", "UTF8=ACCEPT")
        names = [name for name in command.names if self.peer.has(name) and name in known]
        self.peer.enabled.update(names)
        self.wire.utf8 = self.peer.utf8
        await self.write(say.enabled(names))
        return OK("ENABLE completed")

    async def idle(self) -> Reply:
        if self.server.faults.bye_on_idle:
            await self.peer.bye("Idle is over")
        await self.write(b"+ idling\r\n")
        self.wire.expect_line()
        reading: asyncio.Task[bytes] | None = None
        try:
            while (event := self.wire.next_event()) is None:
                self._woken.clear()
                await self.peer.news()
                await self.line.flush()
                reading = reading or asyncio.create_task(self.line.read())
                waking = asyncio.create_task(self._woken.wait())
                await asyncio.wait({reading, waking}, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                if reading.done():
                    data, reading = reading.result(), None
                    self.wire.receive(data)
        finally:
            if reading is not None:
                reading.cancel()
        if not isinstance(event, wire.Line) or event.data.upper() != b"DONE":
            raise Refused("BAD", "Expected DONE")
        return OK("IDLE completed")

    async def _append(self, start: wire.AppendStart) -> None:
        """The message is taken whole: it is a test's."""
        line = format_command(start.tag, start.command).removesuffix(b"\r\n")
        strike = self.server.breaks(line)
        self.server.log.append(line)
        if strike is not None and strike.when == "before":
            await self.line.flush()
            await self._break(strike.bye)
        problem: Refused | None = Refused("BAD", "Log in first")
        if self.peer.user is not None:
            problem = folders.append_problem(self.peer, start.command)
        busy = self.server.busy(line)
        if busy is not None or problem is not None:
            self.wire.refuse_append()
            reply = busy.reply if busy is not None else problem.reply.line() if problem is not None else b""
            await self.write(b"%b %b\r\n" % (start.tag, reply))
            return
        await self.write(self.wire.accept_append())
        data = bytearray()
        while True:
            event = self.wire.next_event()
            if event is None:
                await self.line.flush()
                self.wire.receive(await self.line.read())
                self._waiting = 0
            elif isinstance(event, wire.AppendData):
                data += event.data
            else:
                break
        if strike is not None and strike.when == "middle":
            await self._break(strike.bye)
        if isinstance(event, wire.AppendEnd):
            self.line.muted = strike is not None
            await self._answer(start.tag, lambda: folders.append(self.peer, start.command, bytes(data)))
            await self.line.flush()
            self.line.muted = False
            if strike is not None:
                await self._break(strike.bye)
        else:
            await self._event(event)


_Handler = Callable[[Peer, Any], Awaitable[Reply]]

_CAPABILITY: dict[type, str] = {
    commands.Id: "ID",
    commands.Enable: "ENABLE",
    commands.Idle: "IDLE",
    commands.Namespace: "NAMESPACE",
    commands.Unselect: "UNSELECT",
    commands.Move: "MOVE",
}
_BEFORE_LOGIN: dict[type, Callable[[Session, Any], Awaitable[Reply]]] = {
    commands.Capability: Session.capability,
    commands.Noop: Session.noop,
    commands.Logout: Session.logout,
    commands.Id: Session.id,
    commands.StartTls: Session.start_tls,
    commands.Login: Session.login,
    commands.Authenticate: Session.authenticate,
}
_HANDLERS: dict[type, _Handler] = {
    commands.Select: selected.select,
    commands.Check: selected.check,
    commands.Close: selected.close,
    commands.Unselect: selected.unselect,
    commands.Expunge: selected.expunge,
    commands.Search: selected.search,
    commands.Fetch: selected.fetch,
    commands.Store: selected.store,
    commands.Copy: selected.copy,
    commands.Move: selected.move,
    commands.Create: folders.create,
    commands.Delete: folders.delete,
    commands.Rename: folders.rename,
    commands.Subscribe: folders.subscribe,
    commands.Unsubscribe: folders.subscribe,
    commands.List: folders.list_names,
    commands.Namespace: folders.namespace,
    commands.Status: folders.status,
}
