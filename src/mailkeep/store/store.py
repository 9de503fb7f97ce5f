"""The store: one directory with all accounts, and how this process takes part in it.

    root/directory.db                 accounts, credentials, jobs
    root/accounts/<id>/mail.db packs/ one account; copying the directory moves it
    root/tmp                          messages on their way in, nameless
    root/run                          a socket per process, for wake-ups

Takes no exclusive lock: several processes share a store. Synchronous; `listen` is what an event loop needs to learn of
other processes' changes, and `offload` is how it writes.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from mailkeep.errors import AccountMissing, StoreError, StoreReadOnly
from mailkeep.mail.ids import AccountId
from mailkeep.store.account import Account, AccountInfo, Surroundings
from mailkeep.store.accounts import Directory
from mailkeep.store.failure import translated
from mailkeep.store.ledger import Outcome
from mailkeep.store.remotes import Remotes
from mailkeep.store.signals import Signals
from mailkeep.store.staging import Staging

POLL_S: Final = 2.0
SYNC_S: Final = 0.5  # a flag change is safe from a power cut within a second


class Store:
    """See the module. Open it after forking, once per process; `close` it."""

    def __init__(self, root: Path, *, create: bool) -> None:
        self.root = root
        self._tmp = root / "tmp"
        self._accounts: dict[int, Account] = {}
        self._accounts_lock = threading.Lock()
        self._background: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._poll: asyncio.TimerHandle | None = None
        self._sync: asyncio.TimerHandle | None = None
        self._directory_version = (0, 0)
        self._closed = False
        with translated():
            for path in (root, root / "accounts", self._tmp, root / "run"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory = Directory(root / "directory.db", root / "accounts", create=create)
            self.remotes = Remotes(self.directory)
            self._signals = Signals(root / "run")

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> "Store":
        """Open a store, made if need be. Raises StoreReadOnly, StoreFull; StoreError when there is none to open."""
        if not create and not (root / "directory.db").exists():
            raise StoreReadOnly("There is no mail store")
        return cls(root, create=create)

    def close(self) -> None:
        """End all that belongs to this process. Sessions and `Offload` are closed before."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self.stop_listening()
        if self._background is not None:
            self._background.shutdown(wait=True)
        for account in self._accounts.values():
            account.close()
        self._accounts.clear()
        self._signals.close()
        self.directory.close()

    # ---- accounts

    def account(self, name_or_id: str | int) -> Account:
        """By name, alias or id; one object per process. Raises AccountMissing."""
        directory = self.directory
        info = directory.find(name_or_id) if isinstance(name_or_id, str) else directory.find_id(name_or_id)
        if info is None:
            raise AccountMissing("No such account")
        with self._accounts_lock:
            account = self._accounts.get(info.id)
            if account is None:
                account = self._accounts[info.id] = self._make_account(info)
            account.info = info
        return account

    def _make_account(self, info: AccountInfo) -> Account:
        around = Surroundings(self.directory.quota, self._committed, self.in_background)
        return Account(info, self.directory.account_path(info.id), around)

    def close_idle(self) -> None:
        """Close handles of accounts that nobody used since the last call. On the loop's thread, now and then."""
        for account in list(self._accounts.values()):
            account.close_idle()

    def stage(self) -> Staging:
        """A message on its way in."""
        return Staging(self._tmp)

    def in_background(self, work: Callable[[], None]) -> None:
        """Run something small and optional in the one background thread. It handles its own errors."""
        if not self._closed:
            if self._background is None:
                self._background = ThreadPoolExecutor(1, "store-background")
            self._background.submit(work)

    # ---- what moved

    def tell(self, account: Account) -> None:
        """Wake other processes: this account moved."""
        self._signals.tell(account.info.id)

    def _committed(self, account: Account, outcome: Outcome) -> None:
        # After a transaction in the caller's own thread.
        if not outcome.moved:
            return
        self.tell(account)
        if self._loop is None or threading.get_ident() == self._loop_thread:
            account.apply(outcome)
        else:
            self._loop.call_soon_threadsafe(account.apply, outcome)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Learn of other processes' changes on this loop. Called on it."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        with translated():
            loop.add_reader(self._signals.listen(), self._woken)
        self._poll = loop.call_later(POLL_S, self._poll_all)
        self._sync = loop.call_later(SYNC_S, self._sync_all)

    def stop_listening(self) -> None:
        loop, self._loop = self._loop, None
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        if self._sync is not None:
            self._sync.cancel()
            self._sync = None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._signals.listen())

    def _woken(self) -> None:
        for id in self._signals.receive():
            account = self._accounts.get(id)
            if account is not None:
                self._refresh(account)

    def _poll_all(self) -> None:
        if self._loop is None:
            return
        with suppress(StoreError):
            self.refresh_infos()
        for account in list(self._accounts.values()):
            self._refresh(account)
        self._poll = self._loop.call_later(POLL_S, self._poll_all)

    def refresh_infos(self) -> None:
        """Take in what was changed in the directory about the accounts in use: who may write is asked of them."""
        version = self.directory.version()
        if version == self._directory_version:
            return
        self._directory_version = version
        infos = {info.id: info for info in self.directory.list()}
        for id, account in list(self._accounts.items()):
            account.info = infos.get(AccountId(id), account.info)

    def _sync_all(self) -> None:
        """Sync the flag changes of the last half second, in the background."""
        if self._loop is None:
            return
        for account in list(self._accounts.values()):
            if account.unsynced:
                self.in_background(partial(_sync_log, account))
        self._sync = self._loop.call_later(SYNC_S, self._sync_all)

    def _refresh(self, account: Account) -> None:
        # A full or broken disk: whoever uses the account is told, and the next poll tries again.
        with suppress(StoreError):
            account.refresh()


def _sync_log(account: Account) -> None:
    try:
        account.sync_log()
    except StoreError:
        account.unsynced = True  # tried again at the next turn
