"""An account here and one there for two-way tests: a scripted server or a real one, synchronised, and compared."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mailkeep.backup import seal
from mailkeep.backup import sync as syncing
from mailkeep.backup.context import Context
from mailkeep.backup.imap_bodies import Clock
from mailkeep.backup.settings import Settings, find_remote, pack
from mailkeep.backup.sync_ledger import SyncReport
from mailkeep.store.account import Account
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store

NAME = "there"
DEFAULTS = ("Drafts", "Sent", "Junk", "Trash", "Archive")
DATE = 1_600_000_000

Message = tuple[bytes, int, frozenset[str]]


class Impatient:
    """A clock on which all waiting is over at once: what hangs up is tried again without it."""

    def __init__(self) -> None:
        self.passed = 0.0

    async def sleep(self, seconds: float) -> None:
        self.passed += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(now=lambda: time.time() + self.passed, sleep=self.sleep)


class Here:
    """A store with one account and one remote. `close` it."""

    def __init__(self, root: Path, port: int, *, user: str, password: str, **settings: Any) -> None:
        self.store = Store.open(root)
        if self.store.directory.find("ann") is None:
            info = self.store.directory.add("ann")
            sealed = seal.seal(root, NAME, seal.Kept(password=password))
            made = Settings("imap", "127.0.0.1", port, user, **{"tls": "none", **settings})
            self.store.remotes.add(NAME, info.id, settings=pack(made), secret=sealed)

    @property
    def account(self) -> Account:
        return self.store.account("ann")

    def sync(self, *, plan: bool = False, allow_mass: bool = False, **given: Any) -> SyncReport:
        """One run."""
        context = Context(self.store, clock=Impatient().clock(), **given)
        remote = find_remote(self.store, NAME)
        return asyncio.run(syncing.sync(context, remote, plan=plan, allow_mass=allow_mass))

    def settle(self) -> SyncReport:
        """A run that must leave both sides the same."""
        report = self.sync()
        assert report.equal, report.facts()
        return report

    def id(self, name: str) -> int:
        return self.account.mailbox(name).id

    def create(self, name: str) -> None:
        with self.account.transaction() as tx:
            tx.create_mailbox(name, subscribe=True)

    def add(self, name: str, *bodies: bytes, flags: frozenset[str] = frozenset(), date: int = DATE) -> list[int]:
        with self.account.transaction() as tx:
            return [
                tx.append(self.id(name), Staged.of(data), flags=flags, internaldate=date + 60 * number).uid
                for number, data in enumerate(bodies)
            ]

    def uids(self, name: str) -> list[int]:
        return list(self.account.snapshot(self.id(name)).uids)

    def uid_of(self, name: str, data: bytes) -> int:
        box = self.id(name)
        rows = self.account.fetch(box, self.account.snapshot(box).uids, ("uid", "email"))
        return next(uid for uid, email in rows if self.account.read(email) == data)

    def flag(self, name: str, uid: int, mode: Any, *flags: str) -> None:
        with self.account.transaction() as tx:
            tx.store_flags(self.id(name), [uid], mode, frozenset(flags))

    def move(self, name: str, uid: int, target: str) -> int:
        with self.account.transaction() as tx:
            return tx.move(self.id(name), [uid], self.id(target))[0][1]

    def expunge(self, name: str, *uids: int) -> None:
        with self.account.transaction() as tx:
            tx.expunge(self.id(name), list(uids), only_deleted=False)

    def mailbox(self, name: str) -> Counter[Message]:
        account, box = self.account, self.id(name)
        rows = account.fetch(box, account.snapshot(box).uids, ("uid", "email", "internaldate", "flags"))
        return Counter((account.read(email), date, account.flagset(flags).flags) for _, email, date, flags in rows)

    def names(self) -> set[str]:
        return {box.name for box in self.account.mailboxes()}

    def contents(self) -> dict[str, Counter[Message]]:
        """Of all mailboxes that have messages."""
        found = {name: self.mailbox(name) for name in self.names()}
        return {name: counted for name, counted in found.items() if counted}

    def close(self) -> None:
        self.store.close()
