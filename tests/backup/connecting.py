"""Our IMAP client on a test's server: settings, a clock that only the test moves, bodies gathered."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trustme

from mailkeep.backup.imap_bodies import Body, Clock
from mailkeep.backup.imap_remote import ImapConnection, open_imap
from mailkeep.backup.pace import Limits, Pace
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Password, Settings
from mailkeep.secret import Secret
from mailkeep.store.staging import Staging

HOST = "127.0.0.1"
USER = "ann@example.org"


class Time:
    """Sleeping takes no time, and is written down."""

    def __init__(self) -> None:
        self.now = 1_769_000_400.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


def settings(port: int, **changes: Any) -> Settings:
    return Settings(**{"protocol": "imap", "host": HOST, "port": port, "user": USER, "tls": "none", **changes})


async def connect(
    port: int,
    *,
    password: str = "secret",
    quirks: Quirks | None = None,
    limits: Limits | None = None,
    time: Time | None = None,
    compress: bool | None = None,
    timeout_s: float = 30,
    secret: Any = None,
    **changes: Any,
) -> ImapConnection:
    return await open_imap(
        settings(port, **changes),
        secret or Password(Secret(password)),
        quirks or Quirks(),
        timeout_s=timeout_s,
        pace=Pace(limits or Limits()),
        clock=(time or Time()).clock(),
        compress=compress,
    )


def tls_context(authority: trustme.CA, name: str = HOST) -> ssl.SSLContext:
    """For a server with a certificate of that name."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


class Bodies:
    """What a run over bodies brought."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.data: dict[int, bytes] = {}
        self.problems: dict[int, str] = {}
        self.all: dict[int, Body] = {}

    def take(self, body: Body) -> None:
        self.order.append(body.uid)
        self.all[body.uid] = body
        if body.problem is not None:
            assert body.data is None
            self.problems[body.uid] = body.problem
        elif isinstance(body.data, Staging):
            staged = body.data.finish()
            self.data[body.uid] = bytes(staged.data())
            staged.close()
        else:
            assert body.data is not None
            self.data[body.uid] = body.data

    async def fetch(self, connection: ImapConnection, uids: Sequence[int], tmp: Path, **options: Any) -> "Bodies":
        """All of them, each exactly once."""
        async with contextlib.aclosing(connection.bodies(uids, staging=lambda: Staging(tmp), **options)) as bodies:
            async for body in bodies:
                self.take(body)
        assert sorted(self.order) == sorted(uids)
        return self
