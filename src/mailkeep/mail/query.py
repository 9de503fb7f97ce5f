"""What a client searches for: one tree, whatever protocol it came by (RFC 9051 section 6.4.4).

The tree speaks UIDs and days only; sequence numbers and `$` are resolved by the session before the tree is built.
Every node is immutable and hashable. The store plans with it; `matches` decides for one message.
"""

from typing import Protocol, assert_never

from msgspec import Struct

from mailkeep.mail.numset import NumSet
from mailkeep.mail.text import Searchable, normalise


class All(Struct, frozen=True):
    """Every message."""


class And(Struct, frozen=True):
    parts: tuple["Query", ...]


class Or(Struct, frozen=True):
    parts: tuple["Query", ...]


class Not(Struct, frozen=True):
    part: "Query"


class UIDs(Struct, frozen=True):
    """Messages whose UID is in the (resolved) set."""

    uids: NumSet


class HasFlag(Struct, frozen=True):
    """Messages that carry a system flag or keyword. \\Recent is resolved by the session into UIDs."""

    flag: str


class Larger(Struct, frozen=True):
    size: int  # bytes; strictly larger


class Smaller(Struct, frozen=True):
    size: int  # bytes; strictly smaller


class Internal(Struct, frozen=True):
    """Internal date, by day as the server's UTC calendar has it: `first` ≤ day < `end` (ordinals, None = open)."""

    first: int | None
    end: int | None


class Sent(Struct, frozen=True):
    """The Date header's day, its own time zone disregarded (RFC 9051: SENTBEFORE …): `first` ≤ day < `end`."""

    first: int | None
    end: int | None


class Header(Struct, frozen=True):
    """A header field of this name holds the text (decoded, case-insensitive substring); "" = the field is there."""

    name: str
    text: str


class Body(Struct, frozen=True):
    text: str


class Text(Struct, frozen=True):
    """Header or body holds the text."""

    text: str


class ModSeqAtLeast(Struct, frozen=True):
    modseq: int


class SavedSince(Struct, frozen=True):
    """Save date (when it came into this mailbox), by day as in `Internal`."""

    first: int | None
    end: int | None


class SameEmail(Struct, frozen=True):
    """The very content that the store knows by this number (RFC 8474: EMAILID)."""

    email: int


class SameThread(Struct, frozen=True):
    """Of this thread (RFC 8474: THREADID)."""

    thread: int


class HasAttachment(Struct, frozen=True):
    """A part says of itself that it is an attachment (RFC 2183)."""


Query = (
    All
    | And
    | Or
    | Not
    | UIDs
    | HasFlag
    | Larger
    | Smaller
    | Internal
    | Sent
    | Header
    | Body
    | Text
    | ModSeqAtLeast
    | SavedSince
    | SameEmail
    | SameThread
    | HasAttachment
)


class Matchable(Protocol):
    """What `matches` asks of one message. The store has it from rows, a test from literals."""

    @property
    def uid(self) -> int: ...
    @property
    def email(self) -> int: ...
    @property
    def thread(self) -> int: ...
    @property
    def flags(self) -> frozenset[str]: ...
    @property
    def size(self) -> int: ...
    @property
    def internaldate(self) -> int: ...  # seconds since 1970, UTC
    @property
    def savedate(self) -> int: ...
    @property
    def modseq(self) -> int: ...
    @property
    def sent_day(self) -> int | None: ...
    @property
    def has_attachment(self) -> bool: ...
    def header(self, name: str) -> list[str]:
        """The decoded values of all fields of this name."""

    def searchable(self) -> Searchable: ...


_EPOCH_DAY = 719_163  # date(1970, 1, 1).toordinal()


def _within(day: int | None, first: int | None, end: int | None) -> bool:
    return day is not None and (first is None or day >= first) and (end is None or day < end)


def _has_flag(flag: str, flags: frozenset[str]) -> bool:
    # Keywords compare without case; the common case is an exact hit.
    return flag in flags or flag.lower() in {name.lower() for name in flags}


def _in_header(node: Header, subject: Matchable) -> bool:
    values = subject.header(node.name)
    needle = normalise(node.text)
    return any(needle in normalise(value) for value in values)


def matches(query: Query, subject: Matchable) -> bool:
    """Whether one message is what the query asks for. Cheap tests of an And or Or run in the order they are given."""
    match query:
        case All():
            return True
        case And(parts):
            return all(matches(part, subject) for part in parts)
        case Or(parts):
            return any(matches(part, subject) for part in parts)
        case Not(part):
            return not matches(part, subject)
        case UIDs(uids):
            return subject.uid in uids
        case HasFlag(flag):
            return _has_flag(flag, subject.flags)
        case Larger(size):
            return subject.size > size
        case Smaller(size):
            return subject.size < size
        case Internal(first, end):
            return _within(subject.internaldate // 86400 + _EPOCH_DAY, first, end)
        case Sent(first, end):
            return _within(subject.sent_day, first, end)
        case SavedSince(first, end):
            return _within(subject.savedate // 86400 + _EPOCH_DAY, first, end)
        case Header():
            return _in_header(query, subject)
        case Body(text):
            return normalise(text) in subject.searchable().body
        case Text(text):
            needle = normalise(text)
            found = subject.searchable()
            return needle in found.body or needle in found.headers
        case ModSeqAtLeast(modseq):
            return subject.modseq >= modseq
        case SameEmail(email):
            return subject.email == email
        case SameThread(thread):
            return subject.thread == thread
        case HasAttachment():
            return subject.has_attachment
        case _:
            assert_never(query)
