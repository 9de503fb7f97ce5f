"""What a client searches for: one tree, whatever protocol it came by (RFC 9051 section 6.4.4).

The tree speaks UIDs and days only; sequence numbers and `$` are resolved by the session before the tree is built.
Every node is immutable and hashable. The store plans with it; `matches` decides for one message.
"""

from dataclasses import dataclass

from mailkeep.mail.numset import NumSet


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Query"


@dataclass(frozen=True, slots=True)
class UIDs:
    """Messages whose UID is in the (resolved) set."""

    uids: NumSet


@dataclass(frozen=True, slots=True)
class HasFlag:
    """Messages that carry a system flag or keyword. \\Recent is resolved by the session into UIDs."""

    flag: str


@dataclass(frozen=True, slots=True)
class Larger:
    size: int  # bytes; strictly larger


@dataclass(frozen=True, slots=True)
class Smaller:
    size: int  # bytes; strictly smaller


@dataclass(frozen=True, slots=True)
class Internal:
    """Internal date, by day as the server's UTC calendar has it: `first` ≤ day < `end` (ordinals, None = open)."""

    first: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Sent:
    """The Date header's day, its own time zone disregarded (RFC 9051: SENTBEFORE …): `first` ≤ day < `end`."""

    first: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """A header field of this name holds the text (decoded, case-insensitive substring); "" = the field is there."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Header or body holds the text."""

    text: str


@dataclass(frozen=True, slots=True)
class ModSeqAtLeast:
    modseq: int


@dataclass(frozen=True, slots=True)
class SavedSince:
    """Save date (when it came into this mailbox), by day as in `Internal`."""

    first: int | None
    end: int | None


Query = (
    All | And | Or | Not | UIDs | HasFlag | Larger | Smaller | Internal | Sent | Header | Body | Text | ModSeqAtLeast | SavedSince
)
