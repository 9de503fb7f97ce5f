"""Which mailboxes and which messages are meant: the filters that pull, push, migrate and every export share.

A selection is plain values, fit for a configuration and a command line. For messages it becomes one search tree (kinds
of items and the search text included), so that the store answers it with its search, and a program that knows little
of a message yet asks `decide`. Mailbox names are given as they are here: text, with "/" between levels. No clock.

The hard idea is deciding early. Flags, date and size come cheaply from any server, a header costs more, a body most.
`decide` computes with three values, yes, no and *cannot say*, so that a message is fetched only when what is known
already does not rule it out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Final, assert_never

from mailkeep.errors import UsageError
from mailkeep.mail.header import decode_words, header_end, iter_fields
from mailkeep.mail.mailbox_name import compile_pattern
from mailkeep.mail.mime import Part, scan
from mailkeep.mail.query import (
    All,
    And,
    Body,
    HasAttachment,
    HasFlag,
    Header,
    Internal,
    Larger,
    Matchable,
    ModSeqAtLeast,
    Not,
    Or,
    Query,
    SameEmail,
    SameThread,
    SavedSince,
    Sent,
    Smaller,
    Text,
    UIDs,
    matches,
)
from mailkeep.mail.search_text import kind_query, parse_flag, parse_search
from mailkeep.mail.text import Searchable, normalise, searchable

_EPOCH_DAY: Final = 719_163  # date(1970, 1, 1).toordinal()

SPECIAL_USES: Final = (
    "\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Memos", "\\Scheduled", "\\Sent",
    "\\Snoozed", "\\Trash", "\\Inbox",
)  # fmt: skip
_SPECIAL_USE: Final = {name.lower(): name for name in SPECIAL_USES}


class Need(IntEnum):
    """What must be known of a message to decide about it."""

    NOTHING = 0
    FACTS = 1  # flags, internal date, size
    HEADER = 2
    BODY = 3


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters; all of them must agree. The default one takes everything.

    folders, not_folders: patterns of names (`*` anything, `%` anything but "/", case does not matter) or special uses
    (`\\Sent`). since, before: by internal date in UTC, `since` itself included. larger, smaller: bytes, strictly.
    flags: `\\Seen`, `!\\Seen`, `unread`, `$Forwarded` …. kinds: of search_text.KINDS; none means every kind.
    query: a search text, see search_text. Bad values raise UsageError from `check` or from where they are first used.
    """

    folders: tuple[str, ...] = ()
    not_folders: tuple[str, ...] = ()
    since: date | None = None
    before: date | None = None
    larger: int | None = None
    smaller: int | None = None
    flags: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    query: str = ""

    def check(self) -> "Selection":
        """Raises UsageError for what cannot be meant."""
        for pattern in (*self.folders, *self.not_folders):
            if pattern.startswith("\\") and pattern.lower() not in _SPECIAL_USE:
                raise UsageError(f"{pattern[:40]}: no special use; give one of {', '.join(sorted(SPECIAL_USES))}")
        if self.since is not None and self.before is not None and self.since >= self.before:
            raise UsageError(f"nothing is both since {self.since} and before {self.before}; exchange the two")
        if self.larger is not None and self.smaller is not None and self.larger >= self.smaller:
            raise UsageError("nothing is both larger and smaller than these sizes; exchange the two")
        self.query_tree()
        return self

    @property
    def takes_all(self) -> bool:
        """No filter is set."""
        return self == Selection()

    @property
    def takes_all_messages(self) -> bool:
        """No filter on messages is set; there may be some on mailboxes."""
        return self.query_tree() is None

    def takes_mailbox(self, name: str, special_use: Iterable[str] = ()) -> bool:
        """Whether a mailbox is meant: named by `folders`, if there are any, and not by `not_folders`."""
        folded, uses = _fold(name), {use.lower() for use in special_use}
        if folded == "INBOX":
            uses.add("\\inbox")
        if any(_names(pattern, folded, uses) for pattern in self.not_folders):
            return False
        return not self.folders or any(_names(pattern, folded, uses) for pattern in self.folders)

    def query_tree(self) -> Query | None:
        """All that is asked of a message, cheap questions first; None when every message will do. Raises UsageError."""
        return _tree(self)

    def need(self) -> Need:
        """What deciding about any message may take."""
        tree = self.query_tree()
        return Need.NOTHING if tree is None else _need(tree)

    def decides_on_facts(self) -> bool:
        """Whether flags, internal date and size are enough."""
        return self.need() <= Need.FACTS

    def takes_facts(self, flags: frozenset[str] | None, internaldate: int | None, size: int | None) -> bool | None:
        """As far as these tell (None: not known, or a server that is not believed): yes, no, or None, cannot say."""
        return self.decide(Known(flags, internaldate, size))

    def decide(self, known: "Known") -> bool | None:
        """Whether the message is meant, as far as what is known of it tells. None: more must be known."""
        tree = self.query_tree()
        return True if tree is None else _decide(tree, known)

    def takes(self, subject: Matchable) -> bool:
        """Whether a message of which all is known is meant."""
        tree = self.query_tree()
        return tree is None or matches(tree, subject)

    def describe(self) -> str:
        """The filters in words, for plans and reports; "" when there are none."""
        parts = [f"folders {', '.join(self.folders)}"] if self.folders else []
        parts += [f"not {', '.join(self.not_folders)}"] if self.not_folders else []
        parts += [f"since {self.since}"] if self.since is not None else []
        parts += [f"before {self.before}"] if self.before is not None else []
        parts += [f"larger than {self.larger:,} bytes"] if self.larger is not None else []
        parts += [f"smaller than {self.smaller:,} bytes"] if self.smaller is not None else []
        parts += [f"flags {', '.join(self.flags)}"] if self.flags else []
        parts += [f"kind {', '.join(sorted(self.kinds))}"] if self.kinds else []
        parts += [f"search {self.query}"] if self.query.strip() else []
        return "; ".join(parts)


def _fold(name: str) -> str:
    return name.casefold().upper()  # INBOX comes out as LIST patterns have it


def _names(pattern: str, folded: str, uses: set[str]) -> bool:
    if pattern.startswith("\\"):
        return pattern.lower() in uses
    return _compiled(_fold(pattern.rstrip("/") or pattern))(folded)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Callable[[str], bool]:
    return compile_pattern("", pattern)


@lru_cache(maxsize=64)
def _tree(selection: Selection) -> Query | None:
    parts: list[Query] = [parse_flag(flag) for flag in selection.flags]
    if selection.since is not None or selection.before is not None:
        first = None if selection.since is None else selection.since.toordinal()
        end = None if selection.before is None else selection.before.toordinal()
        parts.append(Internal(first, end))
    if selection.larger is not None:
        parts.append(Larger(selection.larger))
    if selection.smaller is not None:
        parts.append(Smaller(selection.smaller))
    if selection.kinds:
        kinds = tuple(kind_query(kind) for kind in sorted(selection.kinds))
        parts.append(kinds[0] if len(kinds) == 1 else Or(kinds))
    asked = parse_search(selection.query)
    if asked != All():
        parts.append(asked)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _need(query: Query) -> Need:
    match query:
        case And(parts) | Or(parts):
            return max((_need(part) for part in parts), default=Need.NOTHING)
        case Not(part):
            return _need(part)
        case All():
            return Need.NOTHING
        case HasFlag() | Larger() | Smaller() | Internal():
            return Need.FACTS
        case Header() | Sent():
            return Need.HEADER
        case _:
            return Need.BODY


@dataclass(frozen=True)
class Known:
    """What is known of a message so far; None: not known. `header` and `data` are raw bytes, `data` the whole message.

    What `data` implies need not be given: its size and its header.
    """

    flags: frozenset[str] | None = None
    internaldate: int | None = None  # Unix seconds
    size: int | None = None
    header: bytes | None = None
    data: bytes | None = None

    @cached_property
    def fields(self) -> dict[str, list[str]] | None:
        """Decoded and normalised values by lower-case name."""
        raw = self.data[: header_end(self.data)] if self.header is None and self.data is not None else self.header
        if raw is None:
            return None
        found: dict[str, list[str]] = {}
        for name, value in iter_fields(raw):
            found.setdefault(name.decode("latin-1").lower(), []).append(normalise(decode_words(value)))
        return found

    @cached_property
    def searchable(self) -> Searchable | None:
        return None if self.data is None else searchable(self.data)

    @cached_property
    def has_attachment(self) -> bool | None:
        return None if self.data is None else _is_attached(scan(self.data))

    @property
    def bytes(self) -> int | None:
        return self.size if self.data is None else len(self.data)


def _all_of(answers: Iterable[bool | None]) -> bool | None:
    sure: bool | None = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            sure = None
    return sure


def _decide(query: Query, known: Known) -> bool | None:
    match query:
        case All():
            return True
        case And(parts):
            return _all_of(_decide(part, known) for part in parts)
        case Or(parts):
            return _opposite(_all_of(_opposite(_decide(part, known)) for part in parts))
        case Not(part):
            return _opposite(_decide(part, known))
        case HasFlag(flag):
            return None if known.flags is None else flag.lower() in {name.lower() for name in known.flags}
        case Larger(size):
            return None if known.bytes is None else known.bytes > size
        case Smaller(size):
            return None if known.bytes is None else known.bytes < size
        case Internal(first, end):
            if known.internaldate is None:
                return None
            day = known.internaldate // 86400 + _EPOCH_DAY
            return (first is None or day >= first) and (end is None or day < end)
        case Header(name, text):
            if known.fields is None:
                return None
            needle = normalise(text)
            return any(needle in value for value in known.fields.get(name.lower(), ()))
        case Body(text):
            return None if known.searchable is None else normalise(text) in known.searchable.body
        case Text(text):
            if known.searchable is None:
                return None
            needle = normalise(text)
            return needle in known.searchable.body or needle in known.searchable.headers
        case HasAttachment():
            return known.has_attachment
        case UIDs() | Sent() | ModSeqAtLeast() | SavedSince() | SameEmail() | SameThread():
            return None  # not in a selection's tree
        case _:
            assert_never(query)


def _is_attached(root: Part) -> bool:
    stack = [root]
    while stack:
        part = stack.pop()
        if part.disposition is not None and part.disposition.kind.lower() == b"attachment":
            return True
        stack += part.children
    return False


def _opposite(answer: bool | None) -> bool | None:
    return None if answer is None else not answer
