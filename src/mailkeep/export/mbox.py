"""One mbox file as a row of messages, whichever of its dialects it is.

mbox has no specification that its writers follow (RFC 4155 describes one of five). All agree that a message begins
with a line `From sender date`; they differ in how a line of the *text* that begins with `From ` is told from it:

    mboxo    `From ` in the text becomes `>From `                       (not reversible)
    mboxrd   `From `, `>From `, `>>From ` … each get one more `>`       (reversible)
    mboxcl   as mboxo, and a Content-Length header gives the body's size
    mboxcl2  nothing is quoted, only Content-Length tells

Which one it is, is decided once for a file, from the whole file:

1. *Content-Length is believed only when it holds for every message*: each has the header, and each length leads
   exactly to the next From_ line or to the end. One that lies (they do: a file converted from CRLF, an edited message)
   discredits all of them, and From_ lines decide alone.
2. In a file that (1) holds for, a body with an unquoted From_ line in it proves mboxcl2: nothing is unquoted. Otherwise
   one `>` is taken from every line that begins with `>`s and `From `, which undoes mboxrd exactly and mboxo as far
   as anybody can.
3. A From_ line stands at the start of the file or behind an empty line, and the line behind it looks like a header.
   When the file's first From_ line carries a date, all of them must; otherwise (`From -` of Mozilla) any will do. A
   sentence that begins with "From " is so not taken for a message.

The empty line before each From_ line belongs to the file, not to the message, and is taken away.

A file whose first message has the lines of our own export above it (stamp.py) is mboxrd, and its messages come out of
it exactly as they went in.

The hard part is doing this to files larger than memory: the file is mapped, found by `find` in C, and a message's bytes
are cut out in slices.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mailkeep.export import stamp
from mailkeep.export.item import (
    Bad,
    Buffer,
    Item,
    Skipped,
    asctime_date,
    field_value,
    field_values,
    header_block,
    is_wire_form,
    keywords,
    to_wire,
)
from mailkeep.mail.dates import header_date
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.header import decode_words

_FROM: Final = b"From "
_DATE = re.compile(
    rb"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\s+"
    rb"\d{1,2}\s+\d{1,2}:\d\d",
    re.IGNORECASE,
)
# `From -`, `From name@host`, `From 18443…@xxx`: one word and then nothing, or something that is not prose.
_LOOSE = re.compile(rb"From (?:-|\S+@\S+|MAILER-DAEMON)(?:[ \t].*)?\r?$")
_HEADER_LINE = re.compile(rb"(?:[!-9;-~]{1,200}[ \t]*:|>+From )")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_LINE_MAX: Final = 4096
_SLICE: Final = 1 << 20
_BEHIND_MAX: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """What was decided for a file."""

    by_length: bool  # Content-Length is believed
    quoted: bool  # take one `>` from `>From `
    dated: bool  # every From_ line has a date

    @property
    def name(self) -> str:
        if self.by_length:
            return "mboxcl" if self.quoted else "mboxcl2"
        return "mbox"


@dataclass(frozen=True, slots=True)
class Span:
    """One message in the file: its From_ line, where its own bytes begin and end, where the next From_ line is."""

    line: bytes
    start: int
    end: int
    after: int


def is_mbox(head: bytes) -> bool:
    """Whether a file that begins so is an mbox. Empty lines before the first From_ line happen."""
    stripped = head.lstrip(b"\r\n")
    line = stripped.partition(b"\n")[0].rstrip(b"\r")
    return stripped.startswith(_FROM) and bool(_DATE.search(line) or _LOOSE.fullmatch(line))


def read(data: Buffer, source: str, skipped: Skipped, *, size_max: int) -> Iterator[Item | Bad]:
    """All messages of a mapped file, in order."""
    dialect = detect(data)
    kept = 0  # everything before it was given back to the system
    for number, span in enumerate(spans(data, dialect), 1):
        kept = _give_back(data, kept, span.start)
        where = f"{source}#{number}"
        found = stamp.find(data, span.start, span.after)
        if found is not None:
            item = _stamped(data, span, where, *found)
            if item is None:
                skipped.add("deleted in Thunderbird (waiting for compaction)")
            elif item.size > size_max:
                yield Bad(where, f"{item.size} bytes, more than limits.message_size", item.size)
            else:
                yield item
            continue
        size = span.end - span.start
        if size > size_max:
            yield Bad(where, f"{size} bytes, more than limits.message_size", size)
            continue
        header = header_block(data, span.start, span.end)
        if not header.strip():
            if size > 2:
                yield Bad(where, "no header", size)
            else:
                skipped.add("empty message")
            continue
        flags = status_flags(header)
        if flags is None:
            skipped.add("deleted in Thunderbird (waiting for compaction)")
            continue
        chunks = _chunks(data, span.start, span.end, quoted=dialect.quoted)
        item = Item(where, size, chunks, flags=flags, internaldate=_line_date(span.line) or header_date(header))
        yield item if (labels := field_value(header, b"X-Gmail-Labels")) is None else _labelled(item, labels)


def _stamped(data: Buffer, span: Span, where: str, mark: stamp.Stamp, start: int) -> Item | None:
    """A message of our own export, without what was put around it; None when it is deleted."""
    flags = mark.flags if mark.flags is not None else status_flags(header_block(data, span.start, span.after))
    if flags is None:
        return None
    end = span.after
    if data[max(start - 1, end - 2) : end] == b"\n\n":
        end -= 1  # the empty line
    if mark.is_open and data[max(start, end - 1) : end] == b"\n":
        end -= 1
    return Item(
        where,
        end - start,
        _chunks(data, start, end, quoted=True, convert=not mark.as_is),
        ("",) if mark.folder is None else (mark.folder,),
        flags,
        mark.date if mark.date is not None else _line_date(span.line),
    )


def _labelled(item: Item, labels: bytes) -> Item:
    from mailkeep.export.gmail import place  # many thousand words of tables: only for those who need them

    placed = place(labels)
    return replace(item, mailboxes=placed.mailboxes, flags=item.flags | placed.flags)


def _line_date(line: bytes) -> int | None:
    """The From_ line's date; but git format-patch writes one fixed date in all of them, which says nothing."""
    return None if b"Mon Sep 17 00:00:00 2001" in line else asctime_date(line.decode("latin-1"))


# --- where messages begin and end ------------------------------------------------------------------------------------


def detect(data: Buffer) -> Dialect:
    """Decide the dialect of a file, from all of it."""
    start = _first(data)
    line = _line(data, start)
    dated = bool(_DATE.search(line))
    dialect = Dialect(by_length=False, quoted=True, dated=dated)
    if stamp.find(data, min(len(data), start + len(line) + 1), len(data)) is not None:
        return dialect
    inner = False
    at, kept = start, 0
    while at < len(data):
        kept = _give_back(data, kept, at)
        body, length = _declared(data, at)
        if length is None:
            return dialect
        after = _landing(data, body + length, dated)
        if after is None:
            return dialect
        inner = inner or next(_separators(data, body, body + length, dated), None) is not None
        at = after
    return replace(dialect, by_length=at > start, quoted=not inner)


def spans(data: Buffer, dialect: Dialect) -> Iterator[Span]:
    at = _first(data)
    separators = _separators(data, at, len(data), dialect.dated)
    following = next(separators, None)
    while at < len(data):
        line = _line(data, at)
        start = min(len(data), at + len(line) + 1)
        if dialect.by_length:
            body, length = _declared(data, at)
            end = body + (length or 0)
            after = _landing(data, end, dialect.dated) or len(data)
        else:
            while following is not None and following <= at:
                following = next(separators, None)
            after = len(data) if following is None else following
            end = _without_blank(data, start, after)
        yield Span(line, start, end, after)
        at = after


def _give_back(data: Buffer, kept: int, at: int) -> int:
    """Let go of the pages behind us: read once, they would count as our memory until the system wants them back."""
    if not isinstance(data, mmap.mmap) or at - kept < _BEHIND_MAX:
        return kept
    end = at & -mmap.PAGESIZE
    data.madvise(mmap.MADV_DONTNEED, kept, end - kept)
    return end


def _first(data: Buffer) -> int:
    at = 0
    while data[at : at + 1] in (b"\r", b"\n"):
        at += 1
    return at


def _line(data: Buffer, at: int) -> bytes:
    end = data.find(b"\n", at, at + _LINE_MAX)
    return data[at : end if end >= 0 else min(len(data), at + _LINE_MAX)]


def _separators(data: Buffer, start: int, end: int, dated: bool) -> Iterator[int]:
    """Offsets of From_ lines in [start, end) that begin a message."""
    at = start
    if start == 0 or data[start - 1 : start] == b"\n":
        at = max(0, start - 1)
        if data[start : start + 5] == _FROM and _separates(data, start, dated):
            yield start
            at = start
    while True:
        at = data.find(b"\nFrom ", at, end)
        if at < 0:
            return
        at += 1
        if _separates(data, at, dated):
            yield at


def _separates(data: Buffer, at: int, dated: bool) -> bool:
    before = data[max(0, at - 4) : at]
    blank = not before.strip(b"\r\n") if at < 4 else before.endswith((b"\n\n", b"\n\r\n"))
    if not blank:
        return False
    line = _line(data, at)
    if not _DATE.search(line) and (dated or not _LOOSE.fullmatch(line)):
        return False
    start = at + len(line) + 1
    following = data[start : start + 256]
    return not following or following[:1] in b"\r\n" or bool(_HEADER_LINE.match(following))


def _without_blank(data: Buffer, start: int, end: int) -> int:
    """`end` without the empty line that the file's writer put there, unless that line ends the header."""
    for blank in (b"\r\n", b"\n"):
        cut = end - len(blank)
        if cut > start and data[cut - 1 : end] == b"\n" + blank:
            # A message of nothing but a header: the one empty line that is left is its own.
            return cut if data.find(b"\n" + blank, start - 1, cut) >= 0 else end
    return end


def _declared(data: Buffer, at: int) -> tuple[int, int | None]:
    """Where the body of the message at From_ line `at` begins, and its Content-Length."""
    start = min(len(data), at + len(_line(data, at)) + 1)
    end = min(len(data), start + (10 << 20))
    cuts = [
        (found + len(mark), mark) for mark in (b"\n\n", b"\n\r\n") if (found := data.find(mark, start - 1, end)) >= 0
    ]
    if not cuts:
        return start, None
    body = min(cuts)[0]
    if data.find(b"ontent-", start, body) < 0 and data.find(b"ONTENT-", start, body) < 0:
        return body, None
    value = field_value(data[start:body].replace(b"\r\n", b"\n"), b"Content-Length")
    return body, int(value) if value is not None and value.isdigit() and len(value) < 16 else None


def _landing(data: Buffer, at: int, dated: bool) -> int | None:
    """The next From_ line when `at` is where a message ends: it, or up to two empty lines before it, or the end."""
    if at > len(data):
        return None
    tail = data[at : at + 4]
    stripped = len(tail) - len(tail.lstrip(b"\r\n"))
    if at + stripped >= len(data):
        return len(data)
    target = at + stripped
    if data[target : target + 5] != _FROM or (stripped == 0 and data[at - 1 : at] != b"\n"):
        return None
    line = _line(data, target)
    return target if _DATE.search(line) or (not dated and _LOOSE.fullmatch(line.rstrip(b"\r"))) else None


def _chunks(data: Buffer, start: int, end: int, *, quoted: bool, convert: bool | None = None) -> Iterator[bytes]:
    """A message's bytes in wire form, in slices cut at line ends so that quoting is seen whole.

    `convert`: whether LF stands for CRLF; None lets the first line say it.
    """
    inside = False  # in the middle of a line
    while start < end:
        stop = min(end, start + _SLICE)
        if stop < end:
            stop = data.rfind(b"\n", start, stop) + 1 or stop
        piece = data[start:stop]
        if convert is None:
            convert = not is_wire_form(piece)
        if quoted and b">From " in piece:
            cut = (piece.find(b"\n") + 1 or len(piece)) if inside else 0
            piece = piece[:cut] + _QUOTED.sub(rb"\1", piece[cut:])
        inside = not piece.endswith(b"\n")
        yield to_wire(piece) if convert else piece
        start = stop


# --- flags -----------------------------------------------------------------------------------------------------------

_STATUS: Final[tuple[tuple[bytes, str], ...]] = ((b"R", SEEN),)
_X_STATUS: Final = ((b"A", ANSWERED), (b"F", FLAGGED), (b"T", DRAFT), (b"D", DELETED))
# mozilla/MailNewsTypes2.idl: Read, Replied, Marked, Expunged, Forwarded.
_MOZILLA: Final[tuple[tuple[int, str], ...]] = ((0x1, SEEN), (0x2, ANSWERED), (0x4, FLAGGED), (0x1000, "$Forwarded"))
_MOZILLA_EXPUNGED: Final = 0x8


def status_flags(header: bytes) -> frozenset[str] | None:
    """Flags from the headers that mbox programs keep them in. None: the program's user had deleted it already."""
    flags: set[str] = set()
    if b"X-" not in header:
        return frozenset({SEEN}) if b"R" in (field_value(header, b"Status") or b"") else frozenset()
    for name, letters in ((b"Status", _STATUS), (b"X-Status", _X_STATUS)):
        value = field_value(header, name) or b""
        flags |= {flag for letter, flag in letters if letter in value}
    for name in (b"X-Keywords", b"X-Mozilla-Keys"):
        for value in field_values(header, name):
            flags |= keywords(decode_words(value).replace(",", " ").split())
    mozilla = field_value(header, b"X-Mozilla-Status") or b""
    if re.fullmatch(rb"[0-9a-fA-F]{1,8}", mozilla):
        bits = int(mozilla, 16)
        if bits & _MOZILLA_EXPUNGED:
            return None
        flags |= {flag for bit, flag in _MOZILLA if bits & bit}
    return frozenset(flags)
