"""Files beside a PST in the making, for what is known early and needed at the end: one record after another.

A PST's trees and tables must be written in the order of their keys, in one go, when all is known. What goes into them
would be hundreds of bytes a message, so it waits in files and not in memory. All these lists happen to be in order
already, because ids are given in the order of writing: nothing is ever sorted.

A spool knows no record's meaning. It stays after the end: a run that is killed before its exporter has noted the end
begins again from the last checkpoint, and needs the records from before.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailkeep.errors import CannotWrite
from mailkeep.export.files import Growing, writing

READ_BYTES: Final = 1 << 20


class Spool:
    """A file of records that only grows, cut to `size` bytes when it is opened: more came after a checkpoint.

    Raises CannotWrite, and UsageError for a file that is shorter.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._file = Growing(path, size)
        self.add = self._file.write
        self.sync = self._file.sync
        self.close = self._file.close

    @property
    def size(self) -> int:
        return self._file.size

    def records(self, width: int) -> Iterator[bytes]:
        """All bytes from the beginning, `width` at a time; the last may be shorter."""
        self._file.flush()
        with writing(self._path), self._path.open("rb", buffering=0) as file:
            left = self.size
            while left:
                chunk = _read(file.fileno(), min(left, READ_BYTES // width * width), self._path)
                left -= len(chunk)
                for at in range(0, len(chunk), width):
                    yield chunk[at : at + width]

    def add_framed(self, record: bytes) -> None:
        """Append a record with its length before it, for `framed`."""
        self.add(len(record).to_bytes(4, "little") + record)

    def framed(self, start: int, end: int) -> Iterator[bytes]:
        """The records that were added by `add_framed` between two sizes."""
        self._file.flush()
        with writing(self._path), self._path.open("rb", buffering=READ_BYTES) as file:
            file.seek(start)
            while start < end:
                record = file.read(int.from_bytes(file.read(4), "little"))
                start += 4 + len(record)
                yield record


def _read(descriptor: int, size: int, path: Path) -> bytes:
    """Exactly `size` bytes: the system may give fewer at a time."""
    parts = []
    while size:
        part = os.read(descriptor, size)
        if not part:
            raise CannotWrite(f"{path} is shorter than it was")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
