"""Writes mail as PDF: one file a message, or one a folder with a bookmark for each message.

Knows files and what is in them, and that an engine may fail on any message; knows nothing of how pages are laid out:
`pdf_pool` drives children with WeasyPrint, `chromium` a browser. What neither can show becomes a page that says so,
with the raw message embedded, and a note.

The hard idea is a folder's file. Nothing of it is finished before its last message, so each batch is joined to a small
PDF in a spool beside the output, and these are joined when the folder ends; or before, when a file has grown to what
readers can open and memory can hold: then it goes on in `Folder (2).pdf`. A state counts the small ones. They are
removed two checkpoints later: the caller may still be killed before it keeps the state that needs them no more.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export import pdf_file
from mailkeep.export.files import Files, writing
from mailkeep.export.names import FolderNames, message_file, subject_of
from mailkeep.export.pdf_engine import Engine, Printed
from mailkeep.export.pdf_file import Part
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.log import Log

MESSAGES_MAX: Final = 1000  # in a folder's file; its joining holds 150 KB of memory for each
BYTES_MAX: Final = 1 << 30
GROUPS_MAX: Final = 250  # joined at once: each is an open file

_log = Log("export")


class _State(msgspec.Struct):
    """Of a folder's file: which folder, how many files of it are done, what is in the spool for the next."""

    folder: str = ""  # its path in the output; "" before the first
    volume: int = 1
    spool: int = 0  # number of the spool's folder
    groups: int = 0
    messages: int = 0
    size: int = 0  # of the groups, in bytes
    written: int = 0  # bytes of all finished files


def make(place: Path, options: Options, state: bytes | None) -> "PdfWriter":
    """A writer into the empty or partly filled folder `place`. Raises CannotWrite."""
    engine: Engine
    if options.engine == "chromium":
        from mailkeep.export.chromium import Chromium

        engine = Chromium()
    else:
        from mailkeep.export.pdf_pool import WeasyPrint

        engine = WeasyPrint()
    return PdfWriter(place, options, engine=engine, state=state)


def count(place: Path) -> int:
    """Messages in a finished output: files, or the bookmarks in them. What is no PDF counts as none."""
    found = 0
    for path in place.rglob("*.pdf"):
        with suppress(OSError, ValueError):
            found += pdf_file.count(path)
    return found


class PdfWriter:
    """See the module."""

    def __init__(self, place: Path, options: Options, *, engine: Engine, state: bytes | None) -> None:
        self._files = Files(place)
        self._per_folder = options.per == "folder"
        self._names = FolderNames(options.folders, suffix=".pdf")
        self._engine = engine
        self._state = msgspec.json.decode(state, type=_State) if state else _State()
        self._before = self._state.written
        self._spool = Files(place.with_name(place.name + ".spool"))
        self._retired: tuple[list[Path], list[Path]] = ([], [])  # before and since the last checkpoint
        self._path = ""
        self._told: set[str] = set()

    @property
    def size(self) -> int:
        """Bytes of files and spool."""
        return self._before + self._files.size + self._state.size

    def folder(self, folder: Folder) -> None:
        """Raises CannotWrite."""
        self._path = self._names.path(folder.path)
        if not self._per_folder:
            self._files.folder(self._path)
        elif self._state.folder != self._path:
            self._close_volume()
            self._state.folder, self._state.volume = self._path, 1

    def write(self, messages: Sequence[Message]) -> list[Written]:
        """Raises CannotWrite, ToolMissing."""
        if self._per_folder:
            return self._write_group(messages)
        written = []
        for message, printed in zip(messages, self._engine.print(messages, names=False), strict=True):
            name = message_file(message, subject_of(message.data), ".pdf")
            file = f"{self._path}/{name}" if self._path else name
            self._files.put(file, printed.pdf, mtime=message.internaldate)
            written.append(self._written(file, printed))
        return written

    def _written(self, file: str, printed: Printed) -> Written:
        fresh = set(printed.packages) - self._told
        if fresh:
            self._told |= fresh
            _log.warning("some text shows as boxes for want of fonts", install=" ".join(sorted(fresh)))
        return Written(file, printed.note)

    def _write_group(self, messages: Sequence[Message]) -> list[Written]:
        state = self._state
        if state.messages and (
            state.messages + len(messages) > MESSAGES_MAX or state.size > BYTES_MAX or state.groups >= GROUPS_MAX
        ):
            self._close_volume()
        file = self._volume()
        parts, written = [], []
        for message, printed in zip(messages, self._engine.print(messages, names=True), strict=True):
            name = message_file(message, subject_of(message.data), "")
            parts.append(Part(printed.pdf, name.rpartition(" (")[0]))
            written.append(self._written(file, printed))
        joined = BytesIO()
        pdf_file.join(parts, joined)
        self._spool.folder("")
        self._spool.put(self._group(state.groups), joined.getbuffer())
        state.groups += 1
        state.messages += len(messages)
        state.size += joined.tell()
        return written

    def _group(self, number: int) -> str:
        return f"{self._state.spool}/{number}.pdf"

    def _volume(self) -> str:
        path, number = self._state.folder or "Mail", self._state.volume
        return f"{path} ({number}).pdf" if number > 1 else f"{path}.pdf"

    def _close_volume(self) -> None:
        """Join what is in the spool to the folder's file."""
        state = self._state
        if not state.groups:
            return
        file = self._volume()
        parts = [Part(self._spool.place / self._group(number)) for number in range(state.groups)]
        with writing(file), self._files.open(file) as out:
            pdf_file.join(parts, out, title=state.folder.rpartition("/")[2])
        self._retired[1].append(self._spool.place / str(state.spool))
        state.volume += 1
        state.spool += 1
        state.groups = state.messages = state.size = 0

    def checkpoint(self) -> bytes:
        """Raises CannotWrite."""
        self._sync()
        for old in self._retired[0]:
            shutil.rmtree(old, ignore_errors=True)
        self._retired = (self._retired[1], [])
        self._state.written = self._before + self._files.size
        return msgspec.json.encode(self._state)

    def _sync(self) -> None:
        if self._per_folder and self._spool.place.exists():
            self._spool.sync()
        self._files.sync()

    def finish(self) -> None:
        """Raises CannotWrite."""
        self._close_volume()
        self._sync()
        self._engine.close()

    def abandon(self) -> None:
        """Harmless at any time."""
        self._engine.close()
