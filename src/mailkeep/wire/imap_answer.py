"""What an IMAP server can say: one class per answer, the mirror of imap_command (RFC 9051 section 7 and extensions).

Mailbox names are decoded to text where that is possible; `raw` beside them is what the server itself wrote, for a
server whose names are no valid modified UTF-7: hand it back in a `RawName`. Numbers that make no sense are None: what
servers say is never trusted, and never an exception either. Nothing here parses: see imap_answer_parse.
"""

from array import array
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from mailkeep.mail.numset import NumSet


class Streamed:
    """The type of `STREAMED`: this section went by as BodyChunks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "STREAMED"


STREAMED: Final = Streamed()
Section = bytes | Streamed | None


# --- status ---
class Code(Struct, frozen=True):
    """A response code; `name` upper case.

    value by name: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, UNSEEN → int; APPENDUID → (uidvalidity, NumSet); COPYUID →
    (uidvalidity, tuple of source UIDs, tuple of target UIDs), both in the order that says which became which;
    CAPABILITY, PERMANENTFLAGS → frozenset[str]; MODIFIED → NumSet; others, and these when they are malformed → the
    text after the name, or None.
    """

    name: str
    value: object = None


StatusKind = Literal["OK", "NO", "BAD", "BYE", "PREAUTH"]


class Status(Struct, frozen=True):
    tag: bytes | None  # None: untagged
    kind: StatusKind
    code: Code | None
    text: str  # may be empty


class Continue(Struct, frozen=True):
    """`+ text`: base64 for AUTHENTICATE, else a text for people; without the space."""

    text: bytes


class Capability(Struct, frozen=True):
    names: frozenset[str]  # upper case, e.g. "AUTH=PLAIN"


class Enabled(Struct, frozen=True):
    names: frozenset[str]  # upper case


class Id(Struct, frozen=True):
    fields: Mapping[str, str | None]  # names in lower case; empty for NIL


# --- mailboxes ---
class Listed(Struct, frozen=True):
    """LIST, LSUB, XLIST."""

    attributes: frozenset[str]  # lower case, with the backslash: "\\noselect"
    separator: str | None  # None: a flat name
    name: str  # decoded; a RawName where encoding it again would not give `raw`
    raw: bytes  # as the server wrote it, without quotes
    kind: Literal["LIST", "LSUB", "XLIST"] = "LIST"
    oldname: str | None = None
    childinfo: frozenset[str] = frozenset()  # upper case (RFC 5258)


class MailboxStatus(Struct, frozen=True):
    name: str
    raw: bytes
    items: Mapping[str, int | str]  # upper case; what is no number is text: MAILBOXID → "F1"


class Flags(Struct, frozen=True):
    names: frozenset[str]


class Exists(Struct, frozen=True):
    count: int


class Recent(Struct, frozen=True):
    count: int


class Expunged(Struct, frozen=True):
    seq: int


class Vanished(Struct, frozen=True):
    uids: NumSet
    earlier: bool = False


class Found(Struct, frozen=True):
    """SEARCH (`numbers` is an array, in the server's order) and ESEARCH (a NumSet, or None where ALL was not said)."""

    numbers: "array[int] | NumSet | None"
    modseq: int | None = None
    min: int | None = None
    max: int | None = None
    count: int | None = None
    uid: bool = False  # known from ESEARCH only
    tag: bytes | None = None  # ESEARCH only
    extended: bool = False  # it was ESEARCH


class NamespaceEntry(Struct, frozen=True):
    prefix: str
    separator: str | None


class Namespace(Struct, frozen=True):
    personal: tuple[NamespaceEntry, ...]
    others: tuple[NamespaceEntry, ...] = ()
    shared: tuple[NamespaceEntry, ...] = ()


class Quota(Struct, frozen=True):
    root: str
    resources: Mapping[str, tuple[int, int]]  # upper case: STORAGE (in KiB), MESSAGE → (used, limit)


class QuotaRoot(Struct, frozen=True):
    name: str
    roots: tuple[str, ...]


# --- messages ---
class Fetched(Struct):
    """FETCH. What the server did not say is None, or not in the mapping.

    sections: upper-case label without PEEK (b"BODY[]", b"BODY[HEADER]", b"BODY[HEADER.FIELDS (DATE FROM)]",
    b"BODY[]<0>", b"RFC822") → octets, None for NIL, STREAMED for what went by as BodyChunks.
    values: X-GM-MSGID, X-GM-THRID → int; X-GM-LABELS → tuple[str, …]; EMAILID, THREADID, PREVIEW → str | None;
    SAVEDATE → int | None; BINARY.SIZE[…] → int; ENVELOPE, BODY, BODYSTRUCTURE and the unknown → nested tuples of
    bytes, int, None.
    """

    seq: int  # 0 for UIDFETCH
    uid: int | None = None
    flags: frozenset[str] | None = None  # system flags in canonical spelling
    modseq: int | None = None
    internaldate: int | None = None  # Unix s; None as well when it makes no sense
    size: int | None = None
    sections: Mapping[bytes, Section] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)


class BodyStart(Struct, frozen=True):
    """A literal over `inline_max` begins; its octets follow as BodyChunk, then Fetched with all of it."""

    label: bytes
    size: int
    so_far: Fetched  # what the answer said before it: UID may come after


class BodyChunk(Struct):
    data: bytes


class Unknown(Struct, frozen=True):
    """An untagged answer that we have no use for, or cannot read (`problem`)."""

    line: bytes  # its beginning
    problem: str | None = None


Answer = (
    Status
    | Continue
    | Capability
    | Enabled
    | Id
    | Listed
    | MailboxStatus
    | Flags
    | Exists
    | Recent
    | Expunged
    | Vanished
    | Found
    | Namespace
    | Quota
    | QuotaRoot
    | Fetched
    | BodyStart
    | BodyChunk
    | Unknown
)
