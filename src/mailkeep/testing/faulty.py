"""The scripted server: one user's mailboxes, an IMAP and a POP3 port on loopback, and the faults of a named kind.

    with Faulty("gmail", bytes_cap=1_000_000) as server:
        server.mailboxes["INBOX"].add(b"Subject: hello\\r\\n\\r\\nworld\\r\\n")
        imaplib.IMAP4("127.0.0.1", server.port).login(server.user, server.password)
        server.log                                   # the commands seen so far

Knows listeners, the thread, and the counts that belong to the server and not to a connection; what is said on a
connection is `session.py` and `pop3.py`. It runs in a thread with a loop of its own, so a test may be as blocking or
as asynchronous as it likes; `faults` may be replaced at any time and holds from the next command on.
"""

import asyncio
import dataclasses
import re
import ssl
import threading
from types import TracebackType
from typing import Any, Self, TextIO

from mailkeep.testing.aside import Aside
from mailkeep.testing.faults import Faults
from mailkeep.testing.kinds import KINDS
from mailkeep.testing.mailboxes import Account, Mailbox
from mailkeep.testing.pop3 import PopSession
from mailkeep.testing.session import Session
from mailkeep.testing.state import State


class Faulty:
    """A server of the named kind, changed by `changes` (fields of Faults, `pop` ones as `pop=PopFaults(…)`).

    `imap_port` and `pop3_port` are set once it runs; `port` is that of the kind's own protocol. `tls`: a context for
    TLS from the first octet; `starttls`: one for STARTTLS (IMAP only). `token` is what XOAUTH2 and OAUTHBEARER accept.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        kind: str = "plain",
        *,
        user: str = "ann@example.org",
        password: str = "secret",
        token: str = "token",
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        imap_port: int = 0,
        pop3_port: int = 0,
        faults: Faults | None = None,
        **changes: Any,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
        self.kind = KINDS[kind]
        self.user, self.password, self.token = user, password, token
        self.imap_port, self.pop3_port = imap_port, pop3_port
        self.account = Account()
        self.kind.furnish(self.account)
        chosen = dataclasses.replace(faults or self.kind.faults, **changes)
        self.state = State(chosen, self.account, user, password, token, tls, starttls)
        self._servers: list[asyncio.Server] = []
        self._aside: Aside | None = None

    @property
    def port(self) -> int:
        return self.pop3_port if self.kind.protocol == "pop3" else self.imap_port

    @property
    def mailboxes(self) -> dict[str, Mailbox]:
        """By name, as the server spells it."""
        return self.account.mailboxes

    @property
    def log(self) -> list[bytes]:
        """The commands as they came, log-ins without their secrets, in the order of arrival."""
        return self.state.log

    @property
    def faults(self) -> Faults:
        return self.state.faults

    @property
    def connections(self) -> int:
        """How many were accepted so far."""
        return self.state.connections

    @property
    def body_bytes(self) -> int:
        """Octets of messages sent in all. Set it to 0 for the next day."""
        return self.state.body_bytes

    @body_bytes.setter
    def body_bytes(self, value: int) -> None:
        self.state.body_bytes = value

    def create(self, name: str, *, special_use: str | None = None) -> Mailbox:
        """Make one more mailbox."""
        return self.account.create(name, special_use=special_use)

    def change(self, **changes: Any) -> None:
        """Replace some of the faults, from the next command on; their counts begin anew."""
        self.state.faults = dataclasses.replace(self.state.faults, **changes)
        counts = self.state.counts
        for rule in [rule for rule in counts if (rule if isinstance(rule, str) else rule[0]) in changes]:
            del counts[rule]

    def commands(self, pattern: bytes) -> list[bytes]:
        """The commands seen that match a regex, without regard to case."""
        wanted = re.compile(pattern, re.IGNORECASE)
        return [line for line in list(self.log) if wanted.search(line)]

    def follow(self, stream: TextIO | None) -> None:
        """Wait for ever, and write commands as they come. KeyboardInterrupt ends it."""
        seen, moment = 0, threading.Event()
        while not moment.wait(0.2):
            lines = self.log[seen:]
            seen += len(lines)
            for line in lines if stream is not None else ():
                print(line.decode("utf-8", "replace"), file=stream, flush=True)

    # --- listening ---

    async def listen(self) -> list[asyncio.Server]:
        """Begin to listen on the running loop. Sets the ports."""

        async def imap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Session(self.state, reader, writer).run()

        async def pop3(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await PopSession(self.state, reader, writer).run()

        first = await asyncio.start_server(imap, self.host, self.imap_port, ssl=self.state.tls, backlog=1024)
        second = await asyncio.start_server(pop3, self.host, self.pop3_port, ssl=self.state.tls, backlog=1024)
        self.imap_port = first.sockets[0].getsockname()[1]
        self.pop3_port = second.sockets[0].getsockname()[1]
        self._servers = [first, second]
        return self._servers

    def __enter__(self) -> Self:
        self._aside = Aside("faulty", self.listen, self._end)
        self._aside.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._aside is not None
        self._aside.stop()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
