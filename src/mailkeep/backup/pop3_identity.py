"""Which message of a maildrop is which of those we saw before. Pure: no line, no store.

A UIDL is meant to name a message for good (RFC 1939 section 7). It is believed where it can be: it is there, no other
message of the listing has it, it is not merely the message's number, and the size is still what it was. All other
messages are told by content: the header that TOP gives together with the announced size, which costs little, else the
bytes themselves once they are fetched. A mistake on the careful side costs a download, never a message.

The hard idea: what we know is a set of rows, and each row can be met once in a session. So two equal messages stay
two, a maildrop whose UIDLs were all made anew is met row by row by its headers and is not fetched again, and a row
that nobody met belongs to a message that the server has no more.

Equal content means equal but for the fields that servers themselves change when a message is read.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from typing import Final

from mailkeep.backup.pop3_remote import Drop
from mailkeep.store.remote_rows import State, pop_origin_of

HEADER_MAX: Final = 10 << 20
SHORT_SLACK: Final = 256  # octets: dots, line ends and trace lines that a server counts or not
SHORT_PART: Final = 50  # … or a fiftieth of the size

# Kept by mbox servers (UW, Qpopper) in the message, and changed as it is read.
_CHANGING: Final = re.compile(rb"(?im)^(?:x-)?(?:status|uidl|keywords|imapbase|imap):[^\n]*\n(?:[ \t][^\n]*\n)*")
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(slots=True)
class Row:
    """A message that the server was seen to have. `number`: ours, for good. Sizes in octets, times in Unix seconds.

    key: "u" + UIDL (latin-1), or "c" + digest of its content + "." + which one of several equal ones.
    """

    number: int
    key: str
    size: int = 0  # as announced; 0: not said
    since: int = 0  # first seen
    state: State = State.KEPT
    gone: int | None = None
    tries: int = 0  # runs in which it failed
    short: bool = False  # fewer octets came than were announced: not to be deleted at the server
    header: str = ""  # fingerprint of the header, "" where none was seen
    content: str = ""  # digest of the content
    reason: str = ""  # for people, where it was not kept

    def detail(self) -> str:
        """What the store keeps of it: for people, a tab, for us."""
        mine = [self.key, self.size, self.since, self.tries, int(self.short), self.header, self.content]
        return f"{self.reason.translate(_ONE_LINE)}\t{json.dumps(mine, separators=(',', ':'))}"


_ONE_LINE: Final = str.maketrans("\t\r\n", "   ")


def read_row(number: int, state: State, gone: int | None, detail: str | None) -> Row | None:
    """The way back; None for a row that cannot be read."""
    reason, _, mine = (detail or "").partition("\t")
    try:
        key, size, since, tries, short, header, content = json.loads(mine)
    except ValueError:
        return None
    if not isinstance(key, str) or not all(isinstance(value, int) for value in (size, since, tries, short)):
        return None
    return Row(number, key, size, since, state, gone, tries, bool(short), str(header), str(content), reason)


def uidl_key(uidl: bytes) -> str:
    return "u" + uidl.decode("latin-1")


def content_key(content: str, nth: int) -> str:
    return f"c{content}.{nth}"


def origin(remote: int, key: str) -> bytes:
    """What our message of this key is known by. No UIDL has a NUL in it, so the two kinds of key never meet."""
    return pop_origin_of(remote, key[1:].encode("latin-1") if key[:1] == "u" else b"\0" + key.encode())


def trusted(drop: Drop) -> dict[int, bytes]:
    """The UIDLs that can be believed, by number."""
    uidls = drop.uidls or {}
    if uidls and all(uidl.isdigit() and int(uidl[:20]) == number for number, uidl in uidls.items()):
        return {}  # numbers in place of identifiers: they mean another message once one is deleted
    times = Counter(uidls.values())
    return {number: uidl for number, uidl in uidls.items() if times[uidl] == 1}


@dataclass(slots=True)
class Matched:
    """What a listing says, held against the rows. Every number of the listing is in exactly one of the first three."""

    known: dict[int, Row] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)  # a believable UIDL that we never saw
    unsure: list[int] = field(default_factory=list)  # told by content only
    open: dict[int, Row] = field(default_factory=dict)  # rows that nobody met, by their number; gone ones left out
    _by_header: dict[str, list[int]] = field(default_factory=dict)  # open rows when first asked
    _by_content: dict[str, list[int]] = field(default_factory=dict)

    def candidates(self, sizes: Mapping[int, int]) -> list[int]:
        """Of whom the header is worth asking for: an open row may be theirs, by the size."""
        there = {row.size for row in self.open.values() if row.header}
        if not there:
            return []
        return [number for number in (*self.fresh, *self.unsure) if sizes.get(number, 0) in there]

    def meet_header(self, number: int, header: str) -> Row | None:
        """The open row of this header, which is then met."""
        return self._meet_by(self._by_header, header, number)

    def meet_content(self, number: int, content: str) -> Row | None:
        """The open row of this content, which is then met."""
        return self._meet_by(self._by_content, content, number)

    def _meet_by(self, index: dict[str, list[int]], value: str, number: int) -> Row | None:
        if not self._by_header and self.open:
            for row in self.open.values():
                self._by_header.setdefault(row.header, []).append(row.number)
                self._by_content.setdefault(row.content, []).append(row.number)
        waiting = index.get(value, []) if value else []
        while waiting:
            row_or_none = self.open.get(waiting.pop(0))
            # A row without a message tells nothing about content: it is fetched again under its own key.
            if row_or_none is not None and row_or_none.state == State.KEPT:
                self.meet(number, row_or_none)
                return row_or_none
        return None

    def meet(self, number: int, row: Row) -> None:
        """This message is that row's."""
        self.open.pop(row.number, None)
        self.known[number] = row


def match(drop: Drop, rows: Iterable[Row]) -> Matched:
    """Hold a listing against what was seen before."""
    believed = trusted(drop)
    found = Matched()
    by_key: dict[str, Row] = {}
    for row in rows:
        if row.gone is None:
            found.open[row.number] = row
        if row.key[:1] == "u":
            by_key[row.key] = row
    for number in drop.numbers:
        uidl = believed.get(number)
        if uidl is None:
            found.unsure.append(number)
            continue
        row_or_none = by_key.get(uidl_key(uidl))
        if row_or_none is None:
            found.fresh.append(number)
        elif _same_size(row_or_none.size, drop.sizes.get(number, 0)):
            found.meet(number, row_or_none)
        else:
            found.unsure.append(number)  # the identifier was given to another message
    return found


def _same_size(before: int, now: int) -> bool:
    return not before or not now or before == now


def header_print(header: bytes, size: int) -> str:
    """A fingerprint of what TOP gave, with the announced size."""
    return hashlib.blake2b(_steady(header).rstrip(b"\r\n") + b"\0%d" % size, digest_size=16).hexdigest()


def header_of(data: bytes | mmap) -> bytes:
    """The header block of a message, with the blank line."""
    start = data[:HEADER_MAX]
    if start[:2] == b"\r\n":
        return start[:2]
    end = _HEADER_END.search(start)
    return start if end is None else start[: end.end()]


def content_digest(data: bytes | mmap, sha256: bytes) -> str:
    """What the bytes are known by. `sha256`: of `data`."""
    header = header_of(data)
    steady = _steady(header)
    if steady != header:
        digest = hashlib.sha256(steady)
        with memoryview(data) as view, view[len(header) :] as body:
            digest.update(body)
        sha256 = digest.digest()
    return sha256[:16].hex()


def _steady(header: bytes) -> bytes:
    return _CHANGING.sub(b"", header)


def is_short(received: int, announced: int) -> bool:
    """So many octets fewer than announced that something may be missing at the end."""
    return announced - received > max(SHORT_SLACK, announced // SHORT_PART)
