"""Writes mbox files in the reversible dialect, mboxrd: a file for each folder, or one for all.

A message is its From_ line (sender of the envelope, date in UTC), the lines of `stamp` with its flags, its own lines
with LF, and an empty line. A line that begins with `From `, or with `>`s and `From `, gets one more `>`. A message that
would not come back from LF exactly (it has a bare LF, or CR CR LF) keeps its line ends as they are. So every message
comes back byte for byte, and other programs see only fields that they know.

Folders are directories: `Work.mbox` holds the messages of Work, `Work/` what lies below it.

The hard part is going on after a kill: only appending is needed for that. The state is the length of each file; what
is longer is cut off, and what the state does not know is begun anew.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export.files import EACH_MAX, Growing, sync_file_system, sync_folder, writing
from mailkeep.export.names import FolderNames, safe_name
from mailkeep.export.stamp import Stamp, stamped
from mailkeep.export.writer import Folder, Message, Options, Written

SUFFIX: Final = ".mbox"
_SLICE: Final = 1 << 20
_QUOTE = re.compile(rb"^(?=>*From )", re.MULTILINE)
_PATH = re.compile(rb"^Return-Path:[ \t]*<([!-;=?-~]{1,200})>", re.IGNORECASE | re.MULTILINE)
_SENDER = re.compile(
    rb"^From:[^\n]{0,500}?([!#-;=?A-Z^-~]{1,64}@[A-Za-z0-9.\[\]:_-]{1,190})", re.IGNORECASE | re.MULTILINE
)
_HEAD: Final = 16384
_UNKNOWN: Final = "MAILER-DAEMON"
_YEAR_MAX: Final = 253_402_300_799  # 9999: From_ lines have four digits for it


class State(msgspec.Struct):
    """Bytes of each file, by its path."""

    lengths: dict[str, int] = {}


def make(place: Path, options: Options, state: bytes | None) -> "MboxWriter":
    """A writer of one file (`options.per` "all": `place` is the file) or of a tree of files below `place`."""
    return MboxWriter(place, options, msgspec.json.decode(state, type=State) if state else State())


def count(place: Path) -> int:
    """Messages in an mbox or a tree of them, as the importer finds them."""
    from mailkeep.export import mbox
    from mailkeep.export.item import Skipped
    from mailkeep.export.tree import mapped

    paths = [place] if place.is_file() else sorted(place.rglob(f"*{SUFFIX}"))
    found = 0
    for path in paths:
        if path.is_file():
            with path.open("rb") as stream, mapped(stream) as data:
                found += sum(1 for _ in mbox.read(data, path.name, Skipped(), size_max=1 << 62))
    return found


class MboxWriter:
    """See `writer.Writer`."""

    __slots__ = ("_closed", "_file", "_lengths", "_names", "_path", "_place", "_shown", "_whole", "size")

    def __init__(self, place: Path, options: Options, state: State) -> None:
        self.size = 0
        self._place = place
        self._whole = options.per == "all"
        self._names = FolderNames(options.folders, suffix=SUFFIX)
        self._lengths = state.lengths
        self._closed: list[Path] = []  # written since the last checkpoint, and closed
        self._file: Growing | None = None
        self._path = ""  # of the file, below the place
        self._shown: str | None = None  # the folder, where the file's name does not say it
        if self._whole:
            self._open(place.name)

    def folder(self, folder: Folder) -> None:
        name = "/".join(folder.path)
        if self._whole:
            self._shown = name or folder.name
            return
        path = self._names.path(folder.path)
        self._shown = name if path != name else None
        self._open((path or safe_name(folder.name.rpartition("/")[2])) + SUFFIX)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        file = self._file
        assert file is not None, "folder() comes first"
        before = file.size
        for message in messages:
            for piece in _pieces(message, self._shown):
                file.write(piece)
        self.size += file.size - before
        return [Written(self._path)] * len(messages)

    def checkpoint(self) -> bytes:
        self._sync_closed()
        if self._file is not None:
            self._file.sync()
            self._lengths[self._path] = self._file.size
        return msgspec.json.encode(State(self._lengths))

    def finish(self) -> None:
        self.checkpoint()
        self._close()
        folders = {self._place.parent} if self._whole else {Path(folder) for folder, _, _ in os.walk(self._place)}
        for folder in sorted(folders, reverse=True):
            sync_folder(folder)

    def abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self, path: str) -> None:
        """Go on with a file at the length that it has had, or begin it."""
        if self._file is not None and path == self._path:
            return
        self._close()
        whole = self._place if self._whole else self._place / path
        with writing(whole):
            whole.parent.mkdir(parents=True, exist_ok=True)
        self._file = Growing(whole, self._lengths.get(path, 0))
        self._path = path

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.flush()
            finally:
                file.close()
            self._lengths[self._path] = file.size
            self._closed.append(file.path)

    def _sync_closed(self) -> None:
        """Make durable what was closed: each file, or, of many, the file system at once."""
        with writing(self._place):
            if len(self._closed) <= EACH_MAX or not sync_file_system(self._place):
                for path in self._closed:
                    sync_folder(path)  # a file is made durable like a folder
        self._closed.clear()


def _pieces(message: Message, folder: str | None) -> Iterator[bytes]:
    """A message's bytes in the file, in slices that end with lines."""
    data = message.data
    # LF leads back to CRLF when nothing but CRLF was there, and no LF has another CR before it.
    clean = data.count(b"\n") == data.count(b"\r\n") and b"\r\r\n" not in data
    is_open = not data.endswith(b"\n")
    yield from_line(data, message.internaldate)
    yield stamped(Stamp(message.flags, message.internaldate, folder, as_is=not clean, is_open=is_open))
    start = 0
    while start < len(data):
        stop = min(len(data), start + _SLICE)
        if stop < len(data):
            stop = data.find(b"\n", stop) + 1 or len(data)
        piece = data[start:stop]
        if clean:
            piece = piece.replace(b"\r\n", b"\n")
        if b"\nFrom " in piece or b">From " in piece or piece.startswith(b"From "):
            piece = _QUOTE.sub(b">", piece)
        yield piece
        start = stop
    yield b"\n\n" if is_open else b"\n"


def from_line(data: bytes, internaldate: int) -> bytes:
    """`From sender Tue Jan 20 10:00:00 2026`, with LF. The date is UTC, as RFC 4155 has it."""
    head = data[:_HEAD]
    end = head.find(b"\r\n\r\n")
    head = head[: end + 2] if end >= 0 else head
    match = _PATH.search(head) or _SENDER.search(head)
    sender = match[1].decode("ascii") if match else _UNKNOWN
    return f"From {sender} {time.asctime(time.gmtime(min(max(internaldate, 0), _YEAR_MAX)))}\n".encode("ascii")
