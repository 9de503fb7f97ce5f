"""A remote and its archive account for tests: made in one line, pulled, and compared message for message."""

import asyncio
import imaplib
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mailkeep.backup import pull as pulling
from mailkeep.backup import seal
from mailkeep.backup.context import Context
from mailkeep.backup.imap_bodies import Clock
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.proof import prove
from mailkeep.backup.settings import Settings, find_remote, pack
from mailkeep.mail.mailbox_name import decode_utf7, encode_utf7
from mailkeep.store.account import Account
from mailkeep.store.store import Store

NAME = "there"


def hurried() -> Clock:
    """Waits take no time; the clock says that they did."""
    passed = [time.time()]

    async def sleep(seconds: float) -> None:
        passed[0] += seconds
        await asyncio.sleep(0)

    return Clock(lambda: passed[0], sleep)


class Archive:
    """A store with one account and one remote. `close` it."""

    def __init__(self, root: Path, port: int, *, user: str, password: str, **settings: Any) -> None:
        self.root = root
        self.settings = Settings("imap", "127.0.0.1", port, user, **{"tls": "none", **settings})
        self.store = Store.open(root)
        if self.store.directory.find("ann") is None:
            info = self.store.directory.add("ann")
            sealed = seal.seal(root, NAME, seal.Kept(password=password))
            self.store.remotes.add(NAME, info.id, settings=pack(self.settings), secret=sealed)

    @property
    def account(self) -> Account:
        return self.store.account("ann")

    def change(self, **settings: Any) -> None:
        """Other settings of the remote."""
        self.settings = msgspec.structs.replace(self.settings, **settings)
        self.store.remotes.update(find_remote(self.store, NAME).id, settings=pack(self.settings))

    def context(self, **given: Any) -> Context:
        return Context(self.store, **{"clock": hurried(), **given})

    def pull(self, **given: Any) -> RemoteReport:
        """One run."""
        return asyncio.run(pulling.pull(self.context(**given), find_remote(self.store, NAME)))

    def prove(self) -> RemoteReport:
        """Ask the server again."""
        return asyncio.run(prove(self.context(), find_remote(self.store, NAME)))

    def mailbox(self, name: str) -> list[tuple[bytes, int, frozenset[str]]]:
        """(bytes, internal date, flags) of the live messages, in the order of UIDs."""
        account = self.account
        box = account.mailbox(name, hidden=True)
        rows = account.fetch(box.id, account.snapshot(box.id).uids, ("uid", "email", "internaldate", "flags"))
        return [(account.read(email), date, account.flagset(flags).flags) for _, email, date, flags in rows]

    def contents(self) -> dict[str, Counter[tuple[bytes, int, frozenset[str]]]]:
        """Of all mailboxes that have messages."""
        found = {box.name: Counter(self.mailbox(box.name)) for box in self.account.mailboxes()}
        return {name: counted for name, counted in found.items() if counted}

    def all_bytes(self) -> "Counter[bytes]":
        return Counter(data for counted in self.contents().values() for data, _, _ in counted.elements())

    def close(self) -> None:
        self.store.close()


class Source:
    """The other side, by the standard library's client: fill it, change it, list it."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.client = imaplib.IMAP4("127.0.0.1", port)
        # It writes an APPEND in three pieces, and the last would wait for an answer to the second.
        self.client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.login(user, password)

    def create(self, name: str) -> None:
        self._ok(self.client.create(quoted(name)))

    def add(self, name: str, messages: Iterable[bytes], *, flags: str = "", date: int = 1_600_000_000) -> None:
        """One minute after the other."""
        for number, data in enumerate(messages):
            self._ok(self.client.append(quoted(name), flags, imaplib.Time2Internaldate(date + 60 * number), data))

    def store(self, name: str, uids: str, what: str, flags: str) -> None:
        self._ok(self.client.select(quoted(name)))
        self._ok(self.client.uid("STORE", uids, what, flags))

    def expunge(self, name: str, uids: str) -> None:
        self.store(name, uids, "+FLAGS", r"(\Deleted)")
        self._ok(self.client.expunge())
        self.client.unselect()

    def names(self) -> list[str]:
        lines = self._ok(self.client.list())
        lines = [line for line in lines if isinstance(line, bytes) and b"noselect" not in line.lower()]
        found = [re.fullmatch(rb'\([^)]*\) "." (.*)', line) for line in lines]
        return [decode_utf7(match[1].strip(b'"')) for match in found if match is not None]

    def contents(self) -> dict[str, Counter[tuple[bytes, int, frozenset[str]]]]:
        """As `Archive.contents`."""
        found = {}
        for name in self.names():
            counted = self.mailbox(name)
            if counted:
                found[name] = counted
        return found

    def mailbox(self, name: str) -> Counter[tuple[bytes, int, frozenset[str]]]:
        self._ok(self.client.select(quoted(name), readonly=True))
        counted: Counter[tuple[bytes, int, frozenset[str]]] = Counter()
        answers = self._ok(self.client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])"))
        for each in answers:
            if isinstance(each, tuple):
                head, data = each
                date = imaplib.Internaldate2tuple(head)
                flags = {flag.decode() for flag in imaplib.ParseFlags(head)} - {"\\Recent"}
                assert date is not None
                counted[(data, int(time.mktime(date)), frozenset(flags))] += 1
        self.client.unselect()
        return counted

    def _ok(self, answer: Any) -> list[Any]:
        assert answer[0] == "OK", answer
        return [each for each in answer[1] if each is not None]

    def close(self) -> None:
        self.client.logout()


def quoted(name: str) -> str:
    return '"' + encode_utf7(name).decode("ascii").replace("\\", "\\\\").replace('"', '\\"') + '"'
