"""Another IMAP server as the backup sees it: mailboxes, UIDs, facts, bodies, and what changes them.

`ImapConnection` is one logged-in connection; `Pool` is as many of them as pace and provider allow. It speaks commands of
`wire.imap_command` through `imap_link` and turns answers into a few plain values; it knows no store but `Staging`,
into which large messages flow.

The one hard idea: nothing here waits for one answer before the next question goes out. All listing is done in slices
that are pipelined, what comes is handed on slice by slice, and reading stops when the caller is behind.
"""

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Password, Settings, Token
from mailkeep.mail.numset import NumSet
from mailkeep.store.staging import Staging

SecretSource = Password | Token | Callable[[], Awaitable[Password | Token]]


@dataclass(frozen=True, slots=True)
class RemoteMailbox:
    """One line of LIST with what else the server said of it."""

    name: str  # as the server names it, decoded; its separator is still in it
    raw: bytes
    separator: str | None  # None: a flat name
    attributes: frozenset[str]  # lower case, with the backslash
    special_use: str | None  # "\\Sent", as RFC 6154 spells it
    subscribed: bool
    selectable: bool
    status: Mapping[str, int] | None = None  # MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ SIZE, as far as it said


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT or EXAMINE said."""

    name: str
    uidvalidity: int
    uidnext: int  # 0: not said
    exists: int
    highestmodseq: int | None
    permanentflags: frozenset[str]
    changed: list[tuple[int, frozenset[str], int]]  # QRESYNC: uid, flags, modseq
    vanished: NumSet | None  # None: the server did not resynchronise (no QRESYNC, or it was not asked)
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a message without its bytes. None: the server did not say."""

    uid: int
    flags: frozenset[str]
    modseq: int | None = None
    size: int | None = None
    internaldate: int | None = None  # Unix seconds
    values: Mapping[str, Any] = field(default_factory=dict)  # X-GM-…, EMAILID, ENVELOPE


@dataclass(frozen=True, slots=True)
class Listing:
    """A slice of a long listing: arrays side by side, since a million objects would not fit."""

    uids: "array[int]"  # "I", rising within the slice
    flags: "array[int]"  # "I", indexes into `flagsets`
    modseqs: "array[int]"  # "Q"; 0: not said
    flagsets: Sequence[frozenset[str]]  # shared by all slices of a listing, only grows


@dataclass(frozen=True, slots=True)
class Body:
    """One message. `data` is None where there is a `problem`; a Staging is the caller's to finish or discard.

    problem: "vanished" (expunged meanwhile), "empty" (answered with nothing), "failed" (refused each way we asked;
    `detail` has the server's words).
    """

    uid: int
    flags: frozenset[str]
    modseq: int | None
    internaldate: int | None  # Unix seconds
    size: int | None  # what the server said, which may be wrong
    data: bytes | Staging | None
    values: Mapping[str, Any]
    problem: str | None = None
    detail: str | None = None  # also a note on data that is there: "size differs", "fetched by parts"


class ImapConnection:
    """One logged-in connection. Methods raise RemoteError, RemoteBusy, Unreachable, ProtocolError."""

    capabilities: frozenset[str]
    quirks: Quirks
    prefix: str  # of the personal namespace, "" as a rule
    separator: str | None
    selected: Selected | None

    async def list_mailboxes(self, *, status: bool = False) -> list[RemoteMailbox]:
        """All mailboxes, in the server's order."""
        raise NotImplementedError

    async def select(
        self, name: str, *, writable: bool = False, since: tuple[int, int, NumSet | None] | None = None
    ) -> Selected:
        """`since`: (uidvalidity, modseq, known UIDs) for QRESYNC; without it, or where not trusted, a plain SELECT."""
        raise NotImplementedError

    async def uids(self) -> "array[int]":
        """All UIDs of the selected mailbox, rising ("I")."""
        raise NotImplementedError

    def facts(
        self, uids: NumSet, *, changed_since: int | None = None, envelope: bool = False
    ) -> AsyncIterator[list[Facts]]:
        """In slices. UIDs that are gone are not among them."""
        raise NotImplementedError

    def listing(self, uids: NumSet, *, changed_since: int | None = None) -> AsyncIterator[Listing]:
        """UIDs, flags and modseqs only, for mailboxes of any size."""
        raise NotImplementedError

    def bodies(
        self, uids: Sequence[int], *, staging: Callable[[], Staging], items: Iterable[str] = ()
    ) -> AsyncIterator[Body]:
        """Every UID of `uids` exactly once, window by window as given, within a window in the server's order."""
        raise NotImplementedError

    async def idle(self, timeout_s: float) -> bool:
        """Wait for news of the selected mailbox; False when the time is over."""
        raise NotImplementedError

    async def logout(self) -> None:
        """Say good-bye; never raises."""
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


async def open_imap(
    settings: Settings, secret: SecretSource, quirks: Quirks, *, timeout_s: float = 60
) -> ImapConnection:
    """Connect, TLS, log in (one try), ID, ENABLE, NAMESPACE. Raises Unreachable, RemoteError, BadCredentials."""
    raise NotImplementedError
