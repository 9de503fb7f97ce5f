"""Servers to push to and to migrate from, and what can be seen in them: folders, flags, dates and bytes, by imaplib.

`contents` asks a server as a stranger would; `contents_of` asks an account's store; both give the same shape, so that a
test compares message for message.
"""

import calendar
import imaplib
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mailkeep.backup.settings import Remote, Settings, find_remote, pack
from mailkeep.mail.mailbox_name import decode_utf7, encode_utf7
from mailkeep.store.account import Account
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from mailkeep.testing import Faulty

Message = tuple[frozenset[str], int, bytes]  # flags, internal date, bytes
IGNORED = {"\\recent", "$gone"}


@dataclass(frozen=True)
class Login:
    """Where a server is and who we are there."""

    port: int
    user: str
    password: str
    host: str = "127.0.0.1"

    def connect(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4(self.host, self.port)
        client.login(self.user, self.password)
        return client


def add_remote(store: Store, name: str, account: Account, login: Login, **settings: object) -> Remote:
    """A remote of the store that logs in there."""
    made = Settings(
        "imap",
        login.host,
        login.port,
        login.user,
        tls="none",
        secret="command",
        command=f"echo {shlex.quote(login.password)}",
        **settings,  # type: ignore[arg-type]
    )
    store.remotes.add(name, account.info.id, settings=pack(made))
    return find_remote(store, name)


def folders(client: imaplib.IMAP4) -> list[str]:
    """All that can be selected."""
    status, lines = client.list()
    assert status == "OK"
    names = []
    for line in lines:
        if isinstance(line, tuple):  # a literal
            names.append(line[1].decode())
            continue
        match = re.match(rb'\(([^)]*)\) (?:"[^"]*"|NIL) (.*)', line or b"")
        assert match is not None, line
        if b"\\noselect" in match[1].lower() or b"\\nonexistent" in match[1].lower():
            continue
        raw = match[2]
        if raw.startswith(b'"'):
            raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
        names.append(decode_utf7(raw))
    return names


def quoted(name: str) -> str:
    escaped = encode_utf7(name).decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def messages(client: imaplib.IMAP4, folder: str) -> list[Message]:
    """By UID."""
    status, data = client.select(quoted(folder), readonly=True)
    assert status == "OK", (folder, data)
    if data == [b"0"]:
        return []
    status, answers = client.fetch("1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")
    assert status == "OK"
    found: list[Message] = []
    heads = [(each[0], each[1]) for each in answers if isinstance(each, tuple)]
    tails = [each for each in answers if isinstance(each, bytes)]
    for (head, body), tail in zip(heads, tails, strict=True):
        text = head + tail
        match = re.search(rb"FLAGS \(([^)]*)\)", text)
        assert match is not None
        flags = {flag.decode() for flag in match[1].split()}
        when = imaplib.Internaldate2tuple(text)
        assert when is not None
        found.append((clean(flags), int(_epoch(text)), body))
    return found


def _epoch(text: bytes) -> int:
    match = re.search(rb'INTERNALDATE "([ \d]\d)-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)"', text)
    assert match is not None, text
    day, month, year, hour, minute, second, sign, zone_h, zone_m = (each.decode() for each in match.groups())
    number = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].index(month) + 1
    seconds = calendar.timegm((int(year), number, int(day), int(hour), int(minute), int(second)))
    return seconds - int(sign + "1") * (int(zone_h) * 3600 + int(zone_m) * 60)


def clean(flags: Iterable[str]) -> frozenset[str]:
    return frozenset(flag for flag in flags if flag.lower() not in IGNORED)


def contents(login: Login) -> dict[str, Counter[Message]]:
    """Folder → its messages."""
    client = login.connect()
    try:
        return {name: Counter(messages(client, name)) for name in folders(client)}
    finally:
        client.logout()


def subscriptions(login: Login) -> set[str]:
    client = login.connect()
    try:
        _, lines = client.lsub()
        return {line.rsplit(b" ", 1)[1].strip(b'"').decode() for line in lines if line}
    finally:
        client.logout()


def contents_of(account: Account) -> dict[str, Counter[Message]]:
    """Mailbox → its messages."""
    found = {}
    for box in account.mailboxes():
        rows = account.fetch(box.id, account.snapshot(box.id).uids, ("uid", "flags", "internaldate", "email"))
        found[box.name] = Counter(
            (clean(account.flagset(flags).flags), internaldate, account.read(email))
            for _, flags, internaldate, email in rows
        )
    return found


def without_empty(found: dict[str, Counter[Message]]) -> dict[str, Counter[Message]]:
    return {name: each for name, each in found.items() if each}


def fill(account: Account, mailbox: str, bodies: Iterable[bytes], *, start: int = 1_600_000_000) -> None:
    """Messages with flags and dates that differ."""
    flags = [
        frozenset[str](),
        frozenset({"\\Seen"}),
        frozenset({"\\Seen", "\\Answered", "$Forwarded"}),
        frozenset({"\\Flagged", "Work"}),
        frozenset({"\\Draft"}),
    ]
    if mailbox not in {box.name for box in account.mailboxes()}:
        with account.transaction() as transaction:
            transaction.create_mailbox(mailbox, subscribe=True)
    box = account.mailbox(mailbox)
    with account.transaction() as transaction:
        for number, data in enumerate(bodies):
            staged = Staged.of(data)
            transaction.append(box.id, staged, flags=flags[number % 5], internaldate=start + number * 3601)


def faulty_login(server: Faulty) -> Login:
    return Login(server.imap_port, server.user, server.password)


def contents_of_faulty(server: Faulty) -> dict[str, Counter[Message]]:
    """Folder → its messages, as the server has them."""
    return {
        name: Counter((clean(each.flags), each.mail.date, each.mail.data) for each in box)
        for name, box in server.mailboxes.items()
        if box.selectable
    }
