"""An account on the server under test, and the plain dealings with it that tests need before and after a client ran.

The standard library's clients do the reading, so that what a stranger's client is compared with does not come from
code of ours.
"""

import imaplib
import poplib
import re
import smtplib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests import messages

HOST = "127.0.0.1"
FETCHED = re.compile(rb"^\d+ \(.*?UID (\d+).*?FLAGS \(([^)]*)\)|^\d+ \(.*?FLAGS \(([^)]*)\).*?UID (\d+)")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a client sees it."""

    uid: int
    flags: frozenset[str]
    data: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach one account."""

    user: str
    password: str
    ports: Mapping[str, int]

    @contextmanager
    def imap(self, mailbox: str = "", *, readonly: bool = False) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4(HOST, self.ports["imap"], timeout=60) as client:
            client.login(self.user, self.password)
            if mailbox:
                ok(client.select(quote(mailbox), readonly=readonly))
            yield client

    @contextmanager
    def pop3(self) -> Iterator[poplib.POP3]:
        client = poplib.POP3(HOST, self.ports["pop3"], timeout=60)
        client.user(self.user)
        client.pass_(self.password)
        try:
            yield client
        finally:
            client.close()

    def deliver(self, data: bytes, detail: str = "") -> None:
        """Over LMTP, as an MTA would."""
        recipient = self.user.replace("@", f"+{detail}@") if detail else self.user
        with smtplib.LMTP(HOST, self.ports["lmtp"], timeout=60) as client:
            refused = client.sendmail("sender@example.net", [recipient], data, mail_options=["BODY=8BITMIME"])
            assert not refused, refused

    def append(self, mailbox: str, data: Iterable[bytes], flags: str = "") -> None:
        with self.imap() as client:
            for one in data:
                # imaplib corrects line ends on its own; ours are right already, and it must not touch them.
                ok(client.append(quote(mailbox), flags or None, None, one))

    def create(self, *mailboxes: str) -> None:
        with self.imap() as client:
            for mailbox in mailboxes:
                ok(client.create(quote(mailbox)))
                ok(client.subscribe(quote(mailbox)))

    def read(self, mailbox: str = "INBOX") -> list[Message]:
        """Every message of a mailbox, in UID order; sets no flag."""
        with self.imap(mailbox, readonly=True) as client:
            answer = ok(client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])"))
        found = []
        for item in answer:
            if isinstance(item, tuple):
                match = FETCHED.search(item[0])
                assert match, item[0]
                flags = (match[2] if match[1] else match[3]).decode().split()
                found.append(Message(int(match[1] or match[4]), frozenset(flags) - {"\\Recent"}, item[1]))
        return sorted(found, key=lambda message: message.uid)

    def bodies(self, mailbox: str = "INBOX") -> Counter[bytes]:
        return Counter(message.data for message in self.read(mailbox))

    def mailboxes(self) -> set[str]:
        """Names as they stand on the wire (modified UTF-7)."""
        with self.imap() as client:
            lines = ok(client.list())
        return {re.sub(r'^\([^)]*\) (?:"."|NIL) ', "", line.decode()).strip('"') for line in lines if line}


def ok(answer: tuple[str, list]) -> list:  # type: ignore[type-arg]
    status, data = answer
    assert status == "OK", data
    return data


def quote(mailbox: str) -> str:
    return '"' + mailbox.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sample(count: int = 40) -> list[bytes]:
    """Mail that a client of any make can carry through a file: no bare CR, no NUL, an end of line at the end."""
    odd = [data for name, data in messages.ugly() if fit(data)]
    return [*odd, *messages.bulk(count, seed=5)]


def fit(data: bytes) -> bool:
    """Clients that keep files rewrite what is not a message with a header and lines of a common length."""
    head, blank, _ = data.partition(b"\r\n\r\n")
    return (
        bool(blank)
        and data.endswith(b"\r\n")
        and len(data) < 50_000
        and all(len(line) < 900 for line in data.split(b"\r\n"))
        and head.startswith((b"From:", b"Return-Path:"))
        and b"\r\n \r\n" not in head + b"\r\n"
    )


def difference(got: Counter[bytes], wanted: Counter[bytes]) -> str:
    """What is there too much and what is missing, short enough to read."""
    much, less = got - wanted, wanted - got
    lines = [f"{sum(got.values())} there, {sum(wanted.values())} wanted"]
    lines += [f"  unexpected: {data[:300]!r}…{data[-60:]!r} ({len(data)})" for data in list(much)[:3]]
    lines += [f"  missing:    {data[:300]!r}…{data[-60:]!r} ({len(data)})" for data in list(less)[:3]]
    return "\n".join(lines)


def same(got: Counter[bytes], wanted: Counter[bytes]) -> None:
    assert got == wanted, difference(got, wanted)
