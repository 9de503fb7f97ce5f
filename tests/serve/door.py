"""A store, its services and doors on loopback, for as long as a client in a thread runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from mailkeep.mail.ids import EmailId
from mailkeep.secret import Secret
from mailkeep.serve.auth import Authenticator, make_credentials
from mailkeep.serve.services import Limits, Services
from mailkeep.serve.tls import TlsConfig, make_self_signed
from mailkeep.serve.transport import Connection, Hub, Listener, Session, bind_socket, split_address
from mailkeep.store.offload import Offload
from mailkeep.store.store import Store

T = TypeVar("T")
PASSWORD = "correct horse"


@cache
def credentials() -> dict[str, bytes]:
    return make_credentials(Secret(PASSWORD))


async def no_delay(seconds: float) -> None:
    """In place of `asyncio.sleep` in the authenticator."""


@dataclass
class Door:
    """`run(factory, client)` serves `factory` on loopback while `client(host, port)` runs in a thread."""

    root: Path
    limits: Limits = field(default_factory=Limits)
    hub: Hub = field(default_factory=Hub)
    tls: TlsConfig | None = None
    quotas: dict[str, int] = field(default_factory=dict)
    wrap: Callable[[Services], None] | None = None  # breaks something in the services

    def __post_init__(self) -> None:
        store = Store.open(self.root)
        for name in ("demo", "anna@example.org"):
            if store.directory.find(name) is None:
                store.directory.add(name, credentials=credentials(), quota=self.quotas.get(name))
        store.close()

    def with_tls(self) -> "Door":
        self.tls = TlsConfig(*make_self_signed(self.root / "tls", hostname="localhost"))
        return self

    def loop(self, work: Callable[[Services], Awaitable[T]]) -> T:
        """Run `work` on a loop with everything a door has."""

        async def inside() -> T:
            store = Store.open(self.root)
            auth = Authenticator(store, sleep=no_delay)
            offload = Offload(store, asyncio.get_running_loop())
            services = Services(store, offload, auth, "mail.example", limits=self.limits, tls=self.tls)
            if self.wrap is not None:
                self.wrap(services)
            try:
                return await work(services)
            finally:
                auth.close()
                await offload.close()
                store.close()

        return uvloop.run(asyncio.wait_for(inside(), 60))

    def run(
        self,
        factory: Callable[[Connection, Services], Session],
        client: Callable[[str, int], T],
        *,
        implicit_tls: bool = False,
    ) -> T:
        self.hub = Hub()

        async def work(services: Services) -> T:
            listener = Listener(
                "test",
                bind_socket("127.0.0.1:0"),
                lambda conn: factory(conn, services),
                hub=self.hub,
                tls=self.tls,
                implicit_tls=implicit_tls,
            )
            await listener.start()
            try:
                host, port = split_address(listener.address())
                return await asyncio.get_running_loop().run_in_executor(None, client, host, port)
            finally:
                listener.close()
                await self.hub.shutdown(grace_s=5)

        return self.loop(work)

    def mailbox(self, name: str = "INBOX", user: str = "demo") -> list[bytes]:
        """All messages of a mailbox, read by a store of its own."""
        store = Store.open(self.root)
        try:
            account = store.account(user)
            mailbox = account.mailbox(name)
            index = account.index(mailbox.id)
            rows: list[tuple[Any, ...]] = account.fetch(mailbox.id, index.uids[:], ("uid", "email"))
            return [bytes(account.read(EmailId(email))) for _, email in rows]
        finally:
            store.close()
