"""What the manifest of an export says of its files, for the import that brings them back.

A file .eml is the bytes of a message and nothing else: its flags, when it came, and what its folder is called where
that could not be the name of a directory, stand in the manifest. Knows the lines of the manifest; not where files lie.

**The hard idea** is whom to believe: a line counts for a file only if the file has the very bytes that the line has
the hash of. A mail that was put there since, or edited, is a mail like any other.

A manifest may have millions of lines: they are looked up in a database without a name, on the disk.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final

import apsw
import msgspec

from mailkeep.export.item import keywords
from mailkeep.export.manifest import LINE_MAX, Head, Line
from mailkeep.mail.flags import SYSTEM_FLAGS

_FLAGS_MAX: Final = 1000

_head: Final = msgspec.json.Decoder(Head).decode
_line: Final = msgspec.json.Decoder(Line).decode


@dataclass(frozen=True, slots=True)
class Known:
    """Of a message: the levels of its folder, its flags, and when it came."""

    levels: tuple[str, ...]
    flags: frozenset[str]
    internaldate: int | None


class Recorded:
    """The messages of one manifest. `source` is where its files lie, as the user sees it."""

    def __init__(self, source: str, head: Head, lines: Iterator[bytes]) -> None:
        self.source = source
        self._into = tuple(level for level in head.into.split("/") if level)
        self._lines = apsw.Connection("")
        self._lines.execute("CREATE TABLE line (file TEXT PRIMARY KEY, line BLOB) WITHOUT ROWID")
        with self._lines:
            self._lines.executemany("INSERT OR IGNORE INTO line VALUES (?, ?)", _by_file(lines))

    def find(self, source: str, data: bytes) -> Known | None:
        """What is known of a file with these bytes."""
        file = unicodedata.normalize("NFC", source.removeprefix(f"{self.source}/").encode("utf-8", "replace").decode())
        for (found,) in self._lines.execute("SELECT line FROM line WHERE file = ?", (file,)):
            line = _line(found)
            if line.size == len(data) and line.sha256 == hashlib.sha256(data).hexdigest():
                levels = [level if level.strip(".") else "_" for level in line.folder.split("/")]
                return Known((*self._into, *levels), _flags(line), _seconds(line.internaldate))
        return None


def recorded(source: str, stream: IO[bytes]) -> Recorded | None:
    """The manifest in a stream; None when it is not one of .eml files."""
    try:
        head = _head(stream.readline(LINE_MAX))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if head.mailkeep != "export" or head.format != "eml":
        return None
    return Recorded(source, head, iter(lambda: stream.readline(LINE_MAX), b""))


def _by_file(lines: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    for data in lines:
        try:
            line = _line(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # the last line, or damage
        if line.file:
            yield unicodedata.normalize("NFC", line.file), data


def _flags(line: Line) -> frozenset[str]:
    flags = (line.flags or [])[:_FLAGS_MAX]
    return frozenset(flag for flag in flags if flag in SYSTEM_FLAGS) | keywords(
        [flag for flag in flags if not flag.startswith("\\")]
    )


def _seconds(text: str) -> int | None:
    """The reverse of `iso_date`."""
    try:
        seconds = int(text[1:]) if text.startswith("@") else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 1 << 40 else None
