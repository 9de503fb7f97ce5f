"""Messages as they are: a tree of .eml files, or one zip of the same tree. Byte for byte what came in.

Knows names and places. In the tree a file has the time of its message, and a folder without messages is there too.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export.files import Files
from mailkeep.export.names import FolderNames, message_file, subject_of
from mailkeep.export.writer import Folder, Message, Options, Writer, Written
from mailkeep.export.zip64 import Packed, Zip, count_files, pack

SUFFIX: Final = ".eml"
_PACKERS: Final = min(os.cpu_count() or 1, 4)
_APART_MIN: Final = 64 << 10  # bytes of a batch from which more threads are worth their while


def make(place: Path, options: Options, state: bytes | None) -> Writer:
    """A tree below `place`; per "all" a zip at `place`. Raises CannotWrite."""
    if options.per == "all":
        return ZipOfMail(place, options, state)
    return TreeOfMail(place, options, state)


def count(place: Path) -> int:
    """Messages in either."""
    if place.is_dir():
        return sum(name.endswith(SUFFIX) for _, _, names in os.walk(place) for name in names)
    return count_files(place)


class TreeOfMail:
    """A file for each message."""

    def __init__(self, place: Path, options: Options, state: bytes | None) -> None:
        self._files = Files(place)
        self._names = FolderNames(options.folders)
        self._before = 0 if state is None else msgspec.json.decode(state, type=int)
        self._folder = ""

    @property
    def size(self) -> int:
        return self._before + self._files.size

    def folder(self, folder: Folder) -> None:
        self._folder = self._names.path(folder.path)
        self._files.folder(self._folder)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        written = []
        for message in messages:
            file = f"{self._folder}/{message_file(message, subject_of(message.data), SUFFIX)}"
            self._files.put(file, message.data, mtime=message.internaldate)
            written.append(Written(file))
        return written

    def checkpoint(self) -> bytes:
        self._files.sync()
        return msgspec.json.encode(self.size)

    def finish(self) -> None:
        self._files.sync()

    def abandon(self) -> None:
        pass


class _ZipState(msgspec.Struct):
    entries: int = 0
    size: int = 0
    directory: int = 0
    folder: tuple[str, ...] | None = None  # the last one, that has its entry


class ZipOfMail:
    """One zip, with the paths that the tree would have."""

    def __init__(self, place: Path, options: Options, state: bytes | None) -> None:
        before = _ZipState() if state is None else msgspec.json.decode(state, type=_ZipState)
        self._zip = Zip(place, entries=before.entries, size=before.size, directory=before.directory)
        self._names = FolderNames(options.folders)
        self._at = before.folder
        self._folder = ""
        self._packers: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int:
        return self._zip.size + self._zip.directory

    def folder(self, folder: Folder) -> None:
        self._folder = self._names.path(folder.path)
        if folder.path != self._at:
            self._zip.add_folder(self._folder)
            self._at = folder.path

    def write(self, messages: Sequence[Message]) -> list[Written]:
        written = []
        for message, packed in zip(messages, self._packed(messages), strict=True):
            file = f"{self._folder}/{message_file(message, subject_of(message.data), SUFFIX)}"
            self._zip.add(file, packed, mtime=message.internaldate)
            written.append(Written(file))
        return written

    def _packed(self, messages: Sequence[Message]) -> Sequence[Packed]:
        datas = [message.data for message in messages]
        if len(datas) < 2 or _PACKERS < 2 or sum(map(len, datas)) < _APART_MIN:
            return list(map(pack, datas))
        if self._packers is None:
            self._packers = ThreadPoolExecutor(_PACKERS, "zip")
        return list(self._packers.map(pack, datas))

    def checkpoint(self) -> bytes:
        self._zip.sync()
        return msgspec.json.encode(_ZipState(self._zip.entries, self._zip.size, self._zip.directory, self._at))

    def finish(self) -> None:
        self._zip.finish()
        self._rest()

    def abandon(self) -> None:
        self._zip.close()
        self._rest()

    def _rest(self) -> None:
        if self._packers is not None:
            self._packers.shutdown()
            self._packers = None
