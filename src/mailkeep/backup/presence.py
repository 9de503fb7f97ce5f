"""Which of our messages a folder of another server has already, told by content. Pure.

For a copy that must not double anything: after a kill, after an answer that was lost with its connection, or where
somebody copied before us. What is compared costs no bodies: Message-ID (without one: Date, sender and subject), size
and internal date.

The hard idea: one message there stands for one of ours and no more. So two of ours that look alike need two there; and
as both sides are in the order in which we copy, the first of them is the one that is there. Equal size and date are
looked for first; then, with a Message-ID, an equal size; last an equal date, for servers that rewrite what they are
given and so change its size. The Message-ID alone never suffices.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep.mail.dates import parse_date
from mailkeep.wire.imap_answer_fetch import read_value

SLACK: Final = 2  # octets: a CRLF that a server wants at the end, and gets
_ENVELOPE_DATE, _ENVELOPE_SUBJECT, _ENVELOPE_FROM, _ENVELOPE_ID = 0, 1, 2, 9


@dataclass(frozen=True, slots=True)
class Ours:
    """A message of ours. `key` is whatever the caller knows it by."""

    key: int
    identity: bytes
    size: int
    internaldate: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class Theirs:
    """A message there. None: not said, or not to be believed."""

    uid: int
    identity: bytes
    size: int | None
    internaldate: int | None


def identity_of(envelope: object, message_id: str | None = None, *, by_id: bool = True) -> bytes:
    """What stands for the Message-ID; without one, for Date, sender and subject. `envelope`: as FETCH is answered.

    `by_id` False: the server makes Message-IDs of its own (Domino), so these three are believed as much.
    """
    fields: tuple[Any, ...] = envelope if isinstance(envelope, tuple) and len(envelope) >= 10 else (None,) * 10
    found = message_id.encode("utf-8", "replace") if message_id else _octets(fields[_ENVELOPE_ID])
    found = b"".join(found.split()).strip(b"<>")
    if found and by_id:
        return b"I" + hashlib.blake2b(found, digest_size=8).digest()
    moment = parse_date(_octets(fields[_ENVELOPE_DATE]).decode("latin-1"))
    sender = fields[_ENVELOPE_FROM]
    address = sender[0] if isinstance(sender, tuple) and sender and isinstance(sender[0], tuple) else ()
    who = b"@".join(_octets(part).lower() for part in address[2:4])
    subject = b" ".join(_octets(fields[_ENVELOPE_SUBJECT]).split())
    # Raw 8-bit text is written in as many ways as there are servers.
    facts = b"\0".join((b"%d" % (moment or 0), who, subject if subject.isascii() else b""))
    return (b"D" if by_id else b"I") + hashlib.blake2b(facts, digest_size=8).digest()


def identity_of_bytes(envelope: bytes, message_id: str | None, *, by_id: bool = True) -> bytes:
    """As `identity_of`, of an ENVELOPE in the finished octets that the store keeps."""
    if message_id and by_id:
        return identity_of(None, message_id)
    return identity_of(read_value(envelope, 0, len(envelope))[0], by_id=by_id)


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value if isinstance(value, int) else b""


@dataclass(slots=True)
class Presence:
    """What a folder there has, by identity. Each message is taken once."""

    _waiting: dict[bytes, list[Theirs]] = field(default_factory=dict)

    def add(self, theirs: Theirs) -> None:
        self._waiting.setdefault(theirs.identity, []).append(theirs)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def match(self, ours: Iterable[Ours]) -> dict[int, int]:
        """key → UID there, of those that are there. What is found is taken."""
        found: dict[int, int] = {}
        doubtful: list[Ours] = []
        if not self._waiting:
            return found
        for each in ours:
            taken = self._take(each, found, size=True, date=True)
            if not taken and each.identity in self._waiting and each.identity.startswith(b"I"):
                doubtful.append(each)
        for size, date in ((True, False), (False, True)):
            doubtful = [each for each in doubtful if not self._take(each, found, size=size, date=date)]
        return found

    def _take(self, ours: Ours, found: dict[int, int], *, size: bool, date: bool) -> bool:
        waiting = self._waiting.get(ours.identity, [])
        for index, theirs in enumerate(waiting):
            if size and (theirs.size is None or not 0 <= theirs.size - ours.size <= SLACK):
                continue
            if date and theirs.internaldate != ours.internaldate:
                continue
            found[ours.key] = theirs.uid
            del waiting[index]
            return True
        return False
