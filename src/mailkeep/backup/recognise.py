"""Knowing messages again after the server numbered them anew (RFC 9051 section 2.3.1.1: another UIDVALIDITY). Pure.

What is ours stays ours whatever the server says: the mailbox of before is *retired*, its rows kept under a name that no
server can use, and each message that is met again moves from there to the new numbers. A kill in between leaves both
halves true. What is left in the end has vanished from the server.

The hard idea is when to be sure. An identity given by the server (EMAILID, X-GM-MSGID) is sure, if nothing else that
is known of the message speaks against it: some servers just count, and count anew on another machine. So is the same
second of arrival with the same size and the same Message-ID, taken in the order of UIDs where several are alike. A
Message-ID alone never is. Whoever is not sure is fetched, and then its content decides: equal bytes are the message
itself. So a mistake on the careful side costs a download, never a message and never a second copy.
"""

import re
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Place = tuple[int, int]  # our mailbox, our UID
_IDENTITY: Final = re.compile(r"E:[A-Za-z0-9_-]{1,255}|G:[0-9]{1,20}")  # objectid of RFC 8474 section 7; 64 bits


def retired_name(name: str, uidvalidity: int) -> str:
    """Under which the rows of an earlier UIDVALIDITY are kept. NUL cannot be in a server's name."""
    return f"{name}\0{uidvalidity}"


def unretired(name: str) -> tuple[str, int] | None:
    """The way back: (name, uidvalidity); None for a mailbox in use."""
    true_name, mark, number = name.partition("\0")
    return (true_name, int(number)) if mark else None


def identity_of(values: Mapping[str, Any]) -> str | None:
    """The server's own identity of a message, of what came with a FETCH: short, and like no other text of ours."""
    for mark, name in (("E", "EMAILID"), ("G", "X-GM-MSGID")):
        value = values.get(name)
        if value:
            return read_identity(f"{mark}:{value}")
    return None


def read_identity(detail: str | None) -> str | None:
    """One that was noted; None for any other text."""
    return detail if detail is not None and _IDENTITY.fullmatch(detail) else None


@dataclass(frozen=True, slots=True)
class Ours:
    """A message of ours that may be met again. `live` False: a tombstone, removed here, and it is to stay so."""

    place: Place
    old_uid: int  # on the server, before
    internaldate: int
    size: int
    message_id: str | None
    sha256: bytes
    identity: str | None = None  # see `identity_of`
    live: bool = True
    box: int = 0  # the retired mailbox that it waits in


@dataclass(frozen=True, slots=True)
class Theirs:
    """A message as the server lists it now."""

    uid: int
    internaldate: int | None
    size: int | None  # None as well where the server's sizes are not trusted
    message_id: str | None
    identity: str | None = None


def normal_id(message_id: str | None) -> str | None:
    """A Message-ID as compared: servers differ in blanks and brackets around it."""
    if not message_id:
        return None
    return message_id.strip().strip("<>").strip() or None


@dataclass(slots=True)
class Shelf:
    """Our messages that wait to be met again. Each is taken once."""

    _by_identity: dict[str, deque[Ours]] = field(default_factory=dict)
    _by_facts: dict[tuple[int, str | None, int], deque[Ours]] = field(default_factory=dict)
    _by_content: dict[bytes, deque[Ours]] = field(default_factory=dict)
    _taken: set[Place] = field(default_factory=set)
    _all: dict[Place, Ours] = field(default_factory=dict)

    @classmethod
    def of(cls, messages: Iterable[Ours]) -> "Shelf":
        """In the order of their old UIDs."""
        shelf = cls()
        for ours in sorted(messages, key=lambda each: each.old_uid):
            shelf._all[ours.place] = ours
            if ours.identity is not None:
                shelf._by_identity.setdefault(ours.identity, deque()).append(ours)
            facts = (ours.internaldate, normal_id(ours.message_id), ours.size)
            shelf._by_facts.setdefault(facts, deque()).append(ours)
            shelf._by_content.setdefault(ours.sha256, deque()).append(ours)
        return shelf

    def __len__(self) -> int:
        return len(self._all) - len(self._taken)

    def knows_any(self, identities: Iterable[str | None]) -> bool:
        """Whether at least one of these is an identity of ours."""
        return any(identity in self._by_identity for identity in identities)

    def take(self, theirs: Theirs) -> Ours | None:
        """The one that this surely is; None where that cannot be said without its bytes."""
        if theirs.identity is not None:
            found = self._peek(self._by_identity.get(theirs.identity))
            if found is not None and _may_be(found, theirs):
                self._taken.add(found.place)
                return found
        message_id = normal_id(theirs.message_id)
        if theirs.internaldate is None or theirs.size is None or message_id is None:
            return None
        found = self._peek(self._by_facts.get((theirs.internaldate, message_id, theirs.size)))
        # Two identities that differ are two messages, however alike the rest.
        if found is None or (theirs.identity and found.identity and theirs.identity != found.identity):
            return None
        self._taken.add(found.place)
        return found

    def take_content(self, sha256: bytes) -> Ours | None:
        """The one with exactly these bytes."""
        return self._first(self._by_content.get(sha256))

    def left(self) -> list[Ours]:
        """Those that were not met."""
        return [ours for place, ours in self._all.items() if place not in self._taken]

    def _peek(self, waiting: "deque[Ours] | None") -> Ours | None:
        while waiting:
            if waiting[0].place not in self._taken:
                return waiting[0]
            waiting.popleft()
        return None

    def _first(self, waiting: "deque[Ours] | None") -> Ours | None:
        found = self._peek(waiting)
        if found is not None:
            self._taken.add(found.place)
        return found


def _may_be(ours: Ours, theirs: Theirs) -> bool:
    """Nothing that both are known to have differs."""
    message_id, other_id = normal_id(ours.message_id), normal_id(theirs.message_id)
    return (
        theirs.internaldate in (None, ours.internaldate)
        and theirs.size in (None, ours.size)
        and (message_id is None or other_id is None or message_id == other_id)
    )


def sample(uids: Sequence[int], count: int = 40) -> "array[int]":
    """Some UIDs out of all, evenly: to see whether a mailbox of another name is the one that we know."""
    if len(uids) <= count:
        return array("I", uids)
    step = (len(uids) - 1) / (count - 1)
    return array("I", sorted({uids[round(index * step)] for index in range(count)}))
