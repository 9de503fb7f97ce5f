"""What an export to mbox puts above a message, and an import takes away again: lines of header in front of its own.

mbox keeps flags in header fields of the message, so whoever writes flags changes the message. These lines stand in
front of the message's own first line, in a fixed form, and the last one of them says that they were added:

    Status: RO
    X-Status: AF
    X-Keywords: $Forwarded later
    X-Folder: Work/2024
    X-Mailkeep-Above: date=1700000000; lines=lf; end=open

So every program reads the flags where it looks for them (`Status`, `X-Status`: mutt, Dovecot, Python; `X-Keywords`:
Dovecot, UW imapd), whatever fields of that name the message has of its own; and this one, that knows the form, gets the
message's bytes again. The last line holds what mbox has no place for: the exact date; `lines=crlf` where line ends were
left as they are because LF alone would not lead back to them (a bare LF, or CR CR LF); `end=open` where the message has
no line end at its end and the file had to add one. `X-Folder` is there where the file's name does not say the folder.

A program that rewrites the file may move or drop `Status` and `X-Status` (mutt), or put fields of its own on top
(Thunderbird): what is left is still taken off, and flags are believed where they are found.
"""

import base64
import re
from dataclasses import dataclass
from typing import Final

from mailkeep.errors import ProtocolError
from mailkeep.export.item import Buffer, field_value, field_values
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, canonical
from mailkeep.mail.header import decode_words

_X_STATUS: Final = {ANSWERED: "A", FLAGGED: "F", DRAFT: "T", DELETED: "D"}
_LETTERS: Final = {letter: flag for flag, letter in _X_STATUS.items()}
_MARK: Final = b"X-Mailkeep-Above:"
_FIELDS: Final = (b"Status:", b"X-Status:", b"X-Keywords:", b"X-Folder:", _MARK, b"X-Mozilla-", b"X-Account-Key:")
_BLOCK = re.compile(
    rb"(?P<fields>(?:(?:Status|X-Status|X-Keywords|X-Folder|X-Account-Key|X-Mozilla-[A-Za-z0-9-]{1,20}):"
    rb"[^\n]*\n(?:[ \t][^\n]*\n)*)*)" + _MARK + rb"(?P<facts>[^\n]*)\n"
)
_DATE = re.compile(rb"\bdate=([0-9]{1,12})(?![0-9])")
_DATE_MAX: Final = 253_402_300_799  # the end of the year 9999: later ones have no name in any protocol
_SMALL: Final = 1024
_SIZE_MAX: Final = 1 << 20  # more keywords than an account may have fit into it
_LINE_MAX: Final = 76
_WORD_MAX: Final = 42  # bytes of text in an encoded word: 75 characters in all (RFC 2047 section 2)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was said above a message. `flags` None: the lines that said it are gone, look into the message's header."""

    flags: frozenset[str] | None
    date: int | None  # seconds since 1970, UTC
    folder: str | None = None  # "Work/2024"; None: as the file is called
    as_is: bool = False  # line ends are the message's own; else LF stands for CRLF
    is_open: bool = False  # the last line end is not the message's


def stamped(stamp: Stamp) -> bytes:
    """The lines, each with LF (CRLF for a message that keeps its own)."""
    flags = stamp.flags or frozenset()
    letters = "".join(letter for flag, letter in _X_STATUS.items() if flag in flags)
    # "O", old but not read, is what mutt and Dovecot would write of unread mail; Thunderbird takes it for read.
    lines = ["Status: RO" if SEEN in flags else "Status:", f"X-Status: {letters}".rstrip()]
    if keywords := sorted(flag for flag in flags if not flag.startswith("\\")):
        lines.append(_folded("X-Keywords:", keywords))
    if stamp.folder is not None:
        lines.append(_folded("X-Folder:", _words(stamp.folder)))
    facts = [f"date={stamp.date}"] if stamp.date is not None and 0 <= stamp.date <= _DATE_MAX else []
    facts.append("lines=crlf" if stamp.as_is else "lines=lf")
    if stamp.is_open:
        facts.append("end=open")
    lines.append(f"{_MARK.decode('ascii')} {'; '.join(facts)}")
    text = "\n".join(lines) + "\n"
    return (text.replace("\n", "\r\n") if stamp.as_is else text).encode("ascii", "replace")


def find(data: Buffer, start: int, end: int) -> tuple[Stamp, int] | None:
    """The stamp of the message in [start, end), and where the message's own bytes begin; None when it has none."""
    for size in (_SMALL, _SIZE_MAX):
        head = data[start : min(end, start + size)]
        if not head.startswith(_FIELDS):
            return None
        if (match := _BLOCK.match(head)) is not None:
            return _read(match), start + match.end()
    return None


def _read(match: re.Match[bytes]) -> Stamp:
    facts, fields = match["facts"], match["fields"].replace(b"\r\n", b"\n")
    date = _DATE.search(facts)
    folder = field_value(fields, b"X-Folder")
    return Stamp(
        flags=None if b"X-Mozilla-Status" in fields else _flags(fields),
        date=int(date[1]) if date is not None and int(date[1]) <= _DATE_MAX else None,
        folder=(decode_words(folder) or None) if folder is not None else None,
        as_is=b"lines=crlf" in facts,
        is_open=b"end=open" in facts,
    )


def _flags(fields: bytes) -> frozenset[str] | None:
    status = field_value(fields, b"Status")
    if status is None:
        return None
    found = {SEEN} if b"R" in status else set[str]()
    letters = (field_value(fields, b"X-Status") or b"").decode("latin-1")
    found |= {_LETTERS[letter] for letter in letters if letter in _LETTERS}
    for value in field_values(fields, b"X-Keywords"):
        for word in value.decode("latin-1").split():
            try:
                found.add(canonical(word))
            except ProtocolError:
                continue  # somebody's edit
    return frozenset(found)


def _folded(name: str, words: list[str]) -> str:
    """A field whose words are put on as many lines as they need."""
    lines = [name]
    for word in words:
        if len(lines[-1]) + len(word) >= _LINE_MAX and lines[-1] != name:
            lines.append("")
        lines[-1] += " " + word
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    """Text of a field: as it is where that is safe, else encoded words (RFC 2047)."""
    plain = text.isascii() and text.isprintable() and "=?" not in text and " ".join(text.split()) == text
    if plain and len(text) < _LINE_MAX:
        return [text]
    words, chunk = [], b""
    for letter in text:
        raw = letter.encode("utf-8", "replace")
        if len(chunk) + len(raw) > _WORD_MAX:
            words.append(chunk)
            chunk = b""
        chunk += raw
    return [f"=?utf-8?B?{base64.b64encode(part).decode('ascii')}?=" for part in (*words, chunk)]
