"""What an IMAP client can ask: one frozen class per command (RFC 3501, RFC 9051 and the extensions we speak).

Mailbox names are already decoded to text (modified UTF-7 or UTF-8). Sets hold whatever the client wrote: sequence
numbers or UIDs as `uid` says, the star unresolved; `SAVED` stands for `$`.
"""

from typing import Final, Literal

from msgspec import Struct

from mailkeep.mail.numset import NumSet


class Saved:
    """The type of `SAVED`: the search result variable `$` (RFC 5182)."""

    __slots__ = ()


SAVED: Final = Saved()
MessageSet = NumSet | Saved


class RawName(str):
    """A mailbox name that goes out as the octets `raw`: some servers list names that are no valid modified UTF-7, and
    know them only as they wrote them. The text is for people. A `str`, so that any command takes it.
    """

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, text: str, raw: bytes) -> "RawName":
        name = cls(text)
        name.raw = raw
        return name


# --- any state ---
class Capability(Struct, frozen=True):
    pass


class Noop(Struct, frozen=True):
    pass


class Logout(Struct, frozen=True):
    pass


class Id(Struct, frozen=True):
    fields: tuple[tuple[str, str | None], ...] | None  # None for ID NIL


# --- not authenticated ---
class StartTls(Struct, frozen=True):
    pass


class Login(Struct, frozen=True):
    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


class Authenticate(Struct, frozen=True):
    mechanism: str  # upper case
    initial: bytes | None  # decoded initial response (SASL-IR); b"" for "="

    def __repr__(self) -> str:
        return f"Authenticate(mechanism={self.mechanism!r})"


# --- authenticated ---
class Enable(Struct, frozen=True):
    names: tuple[str, ...]  # upper case


class Select(Struct, frozen=True):
    mailbox: str
    read_only: bool  # EXAMINE
    condstore: bool = False
    qresync: "QResync | None" = None


class QResync(Struct, frozen=True):
    """RFC 7162 section 3.2.5."""

    uidvalidity: int
    modseq: int
    known_uids: NumSet | None = None
    match_seqs: NumSet | None = None
    match_uids: NumSet | None = None


class Create(Struct, frozen=True):
    mailbox: str
    special_use: tuple[str, ...] = ()  # CREATE-SPECIAL-USE, e.g. "\\Sent"


class Delete(Struct, frozen=True):
    mailbox: str


class Rename(Struct, frozen=True):
    old: str
    new: str


class Subscribe(Struct, frozen=True):
    mailbox: str


class Unsubscribe(Struct, frozen=True):
    mailbox: str


class List(Struct, frozen=True):
    """LIST in its basic and extended form (RFC 5258, 5819, 6154); LSUB is `kind="LSUB"`."""

    kind: Literal["LIST", "LSUB", "XLIST"]  # XLIST: Gmail's own, before SPECIAL-USE; only a client's
    reference: str
    patterns: tuple[str, ...]
    extended: bool = False
    select: frozenset[str] = frozenset()  # SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE
    returns: frozenset[str] = frozenset()  # SUBSCRIBED CHILDREN SPECIAL-USE
    status: tuple[str, ...] = ()  # LIST-STATUS items


class Namespace(Struct, frozen=True):
    pass


class Status(Struct, frozen=True):
    mailbox: str
    # upper case: MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ MAILBOXID APPENDLIMIT
    items: tuple[str, ...]


class Append(Struct, frozen=True):
    """The head of APPEND; the message itself follows as literal events."""

    mailbox: str
    flags: tuple[str, ...]  # as written, not yet canonical
    date: int | None  # seconds since 1970, UTC
    size: int  # octets announced
    utf8: bool = False  # APPEND … UTF8 (~{n}) of RFC 6855
    binary: bool = False  # literal8


class Idle(Struct, frozen=True):
    pass


# --- selected ---
class Check(Struct, frozen=True):
    pass


class Close(Struct, frozen=True):
    pass


class Unselect(Struct, frozen=True):
    pass


class Expunge(Struct, frozen=True):
    uids: MessageSet | None = None  # UID EXPUNGE (UIDPLUS)


class Search(Struct, frozen=True):
    uid: bool
    program: "SearchKey"
    returns: frozenset[str] | None = None  # None: old form; else MIN MAX ALL COUNT SAVE (RETURN () means ALL)
    charset: str | None = None


class SearchKey(Struct, frozen=True):
    """One search key as written; `name` upper case.

    arguments by name: AND/OR/NOT → SearchKeys; SET/UID → MessageSet; strings → str (decoded by charset);
    HEADER → (name, text); KEYWORD/UNKEYWORD → str; dates → int (proleptic ordinal of the day, `date.toordinal`);
    LARGER/SMALLER/OLDER/YOUNGER → int; MODSEQ → int; EMAILID/THREADID → str.
    """

    name: str
    arguments: tuple[object, ...] = ()


class Section(Struct, frozen=True):
    """BODY[…] and BINARY[…]: path of part numbers, then what of that part (RFC 9051 section 6.4.5)."""

    path: tuple[int, ...] = ()
    text: Literal["", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"] = ""
    fields: tuple[bytes, ...] = ()  # header names, as written


class FetchBody(Struct, frozen=True):
    """A body section to fetch."""

    section: Section
    peek: bool
    partial: tuple[int, int] | None = None  # (first octet, octets)
    kind: Literal["BODY", "BINARY", "BINARY.SIZE", "RFC822", "RFC822.HEADER", "RFC822.TEXT"] = "BODY"
    label: bytes = b""  # how the answer names it, e.g. b"BODY[1.MIME]<0>"


# FLAGS UID ENVELOPE INTERNALDATE RFC822.SIZE BODY BODYSTRUCTURE MODSEQ EMAILID THREADID SAVEDATE PREVIEW
FetchAttribute = str
FetchItem = FetchAttribute | FetchBody


class Fetch(Struct, frozen=True):
    uid: bool
    messages: MessageSet
    items: tuple[FetchItem, ...]  # macros expanded; UID added for UID FETCH
    changed_since: int | None = None
    vanished: bool = False


class Store(Struct, frozen=True):
    uid: bool
    messages: MessageSet
    mode: Literal["=", "+", "-"]
    silent: bool
    flags: tuple[str, ...]
    unchanged_since: int | None = None


class Copy(Struct, frozen=True):
    uid: bool
    messages: MessageSet
    mailbox: str


class Move(Struct, frozen=True):
    uid: bool
    messages: MessageSet
    mailbox: str


Command = (
    Capability
    | Noop
    | Logout
    | Id
    | StartTls
    | Login
    | Authenticate
    | Enable
    | Select
    | Create
    | Delete
    | Rename
    | Subscribe
    | Unsubscribe
    | List
    | Namespace
    | Status
    | Append
    | Idle
    | Check
    | Close
    | Unselect
    | Expunge
    | Search
    | Fetch
    | Store
    | Copy
    | Move
)


# --- what only a client of other servers says; our own server does not know it ---
class Compress(Struct, frozen=True):
    algorithm: str = "DEFLATE"  # RFC 4978


class NotifyGroup(Struct, frozen=True):
    """event-group of RFC 5465: which mailboxes, and what of them."""

    mailboxes: Literal["SELECTED", "SELECTED-DELAYED", "INBOXES", "PERSONAL", "SUBSCRIBED", "SUBTREE", "MAILBOXES"]
    events: tuple[str, ...]  # as RFC 5465 spells them; none: NONE
    names: tuple[str, ...] = ()  # for SUBTREE and MAILBOXES
    fetch: tuple[FetchItem, ...] = ()  # of MessageNew


class Notify(Struct, frozen=True):
    """NOTIFY SET [STATUS] …; without groups NOTIFY NONE."""

    groups: tuple[NotifyGroup, ...] = ()
    status: bool = False


class GetQuotaRoot(Struct, frozen=True):
    mailbox: str  # RFC 9208


class StoreLabels(Struct, frozen=True):
    """STORE of X-GM-LABELS: Gmail's labels are set like flags, and named like mailboxes."""

    uid: bool
    messages: MessageSet
    mode: Literal["=", "+", "-"]
    silent: bool
    labels: tuple[str, ...]  # text; system labels with the backslash: "\\Inbox"


ClientCommand = Command | Compress | Notify | GetQuotaRoot | StoreLabels
