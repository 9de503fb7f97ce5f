"""One message on its way in, whatever file it came from, and the rules that all readers share.

**The bytes.** The store keeps messages in the form of the wire, with CRLF at line ends. A message whose first line ends
in CRLF is in that form already and is taken exactly as it is. One whose first line ends in a bare LF was written by a
program that keeps lines the Unix way (mbox, Maildir): each bare LF becomes CRLF, and nothing else changes. So reading
back with LF gives the file's bytes again.

**The date.** INTERNALDATE is when the message came: what the file says beside the message (a From_ line, a plist, a
file name), else the topmost Received header, else Date, else the file's own time.

An Item's bytes come in slices, so a message of many megabytes is never in memory as a whole; they must be consumed
before the next item is asked for.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Final

from mailkeep.mail.dates import plausible
from mailkeep.mail.flags import is_keyword

SLICE: Final = 1 << 20
HEADER_MAX: Final = 10 << 20

Buffer = bytes | mmap.mmap


@dataclass(frozen=True, slots=True)
class Item:
    """A message found. `mailboxes` are relative to where the import goes; an empty name is that place itself."""

    source: str  # for the eyes of the user: file, and where in it
    size: int  # bytes in the file, at most what `chunks` gives without the CRs
    chunks: Iterator[bytes]
    mailboxes: tuple[str, ...] = ("",)
    flags: frozenset[str] = frozenset()
    internaldate: int | None = None
    note: str | None = None  # something that the user should know although the message is taken


@dataclass(frozen=True, slots=True)
class Bad:
    """Something that should have been a message and could not be read; the import goes on behind it."""

    source: str
    reason: str
    size: int = 0


@dataclass(slots=True)
class Skipped:
    """What was passed over on purpose, counted by reason, so that nothing is dropped without a word."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count


# --- bytes -----------------------------------------------------------------------------------------------------------

_FOLD = re.compile(rb"\n[ \t]+")
_BARE_LF = re.compile(rb"(?<!\r)\n")


def is_wire_form(head: bytes) -> bool:
    """Whether the first line ends in CRLF (or there is no line end at all)."""
    end = head.find(b"\n")
    return end < 0 or head[end - 1 : end] == b"\r"


def to_wire(data: bytes) -> bytes:
    """Bare LF to CRLF; a CRLF stays. `data` must not begin inside a line end."""
    if b"\r" not in data:  # by far the usual case, and ten times as fast
        return data.replace(b"\n", b"\r\n")
    return _BARE_LF.sub(b"\r\n", data)


def slices(data: Buffer, start: int, end: int, *, convert: bool | None = None) -> Iterator[bytes]:
    """The bytes of [start, end) in pieces of about SLICE that never cut a CRLF in two, in wire form.

    `convert`: whether a bare LF stands for CRLF; None lets the first line say it.
    """
    while start < end:
        stop = min(end, start + SLICE)
        piece = bytes(data[start:stop])
        if stop < end and piece[-1:] == b"\r":
            piece, stop = piece[:-1] or piece, stop - (len(piece) > 1)
        if convert is None:
            convert = not is_wire_form(piece)
        yield to_wire(piece) if convert else piece
        start = stop


def header_block(data: Buffer, start: int = 0, end: int | None = None) -> bytes:
    """The header of a message as LF text, for looking at: at most HEADER_MAX, without the blank line."""
    limit = min(len(data) if end is None else end, start + HEADER_MAX)
    step = 8192
    at = start
    while True:  # a growing window: most headers are small, and `data` may be a mapping of many gigabytes
        at = min(limit, start + step)
        head = bytes(data[start:at]).replace(b"\r\n", b"\n")
        if head.startswith(b"\n"):
            return b""
        cut = head.find(b"\n\n")
        if cut >= 0:
            return head[: cut + 1]
        if at >= limit:
            return head
        step *= 4


@cache
def _field_pattern(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?im)^" + re.escape(name) + rb"[ \t]*:[ \t]*(.*(?:\n[ \t].*)*)")


def field_values(header: bytes, name: bytes) -> list[bytes]:
    """The values of one header field in an LF header block, unfolded, first to last."""
    found = _field_pattern(name).findall(header)
    return [_FOLD.sub(b" ", value).strip() if b"\n" in value else value.strip() for value in found]


def field_value(header: bytes, name: bytes) -> bytes | None:
    values = field_values(header, name)
    return values[0] if values else None


# --- dates -----------------------------------------------------------------------------------------------------------

_ASCTIME = re.compile(
    r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+"
    r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\s+(?P<day>\d{1,2})\s+"
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?\s+(?P<rest>.*)",
    re.IGNORECASE,
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONE = re.compile(r"[+-]\d{4}")
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def asctime_date(text: str) -> int | None:
    """The date of a From_ line: `Fri Nov 26 21:40:36 2004`, with a zone or its name before or after the year.

    Without a numeric zone it is taken as UTC, as RFC 4155 demands; many writers meant local time, nobody can tell.
    """
    match = _ASCTIME.search(text)
    if match is None:
        return None
    rest = match["rest"]
    zone = _ZONE.search(rest)
    year = _YEAR.search(rest.replace(zone[0], " ") if zone else rest)
    if year is None:
        return None
    try:
        moment = datetime(
            int(year[0]),
            _MONTHS.index(match["month"].lower()) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(59, int(match["second"] or 0)),  # a leap second
            tzinfo=UTC,
        ).timestamp()
    except ValueError:
        return None
    if zone is not None:
        offset = int(zone[0][1:3]) * 3600 + int(zone[0][3:]) * 60
        moment += offset if zone[0][0] == "-" else -offset
    return plausible(moment)


# --- flags -----------------------------------------------------------------------------------------------------------

_NOT_KEYWORD = re.compile(r"[\x00-\x20\x7f-\U0010ffff(){%*\"\\\]]+")


def keyword(text: str) -> str | None:
    """A tag of another program as an IMAP keyword: what an atom cannot carry becomes `_`. None when nothing is left."""
    if is_keyword(text) and text.strip("_"):
        return text
    made = _NOT_KEYWORD.sub("_", text.strip()).strip("_")[:255]
    return made or None


def keywords(texts: list[str]) -> frozenset[str]:
    return frozenset(made for made in map(keyword, texts) if made)
