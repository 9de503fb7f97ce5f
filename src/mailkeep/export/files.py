"""Writes the files of a tree, and makes them durable together.

Knows a directory and paths below it; knows no format. A file appears under its name at once or not at all (written
under another name, then renamed), so that a reader never meets half of one. Nothing is durable before `sync`, which is
one flush for thousands of files: an fsync for each would be the bottleneck of any export of single messages.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mailkeep.errors import CannotWrite


class Files:
    """A tree below `place`, which exists. Relative paths have "/" between levels; folders are made as needed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.size = 0  # bytes written through here, by this process

    def put(self, relative: str, data: bytes | bytearray | memoryview, *, mtime: int | None = None) -> None:
        """Write a whole file, over one that is there. `mtime` in seconds since 1970. Raises CannotWrite."""
        with self.open(relative, mtime=mtime) as file:
            file.write(data)

    @contextmanager
    def open(self, relative: str, *, mtime: int | None = None) -> Iterator[BinaryIO]:
        """A new file to write; it takes its name when the block ends without an error. Raises CannotWrite."""
        path = self.place / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(".new").open("wb") as file:
            yield file
            self.size += file.tell()
        path.with_name(".new").replace(path)

    def folder(self, relative: str) -> Path:
        """Make a folder, with those above it. Raises CannotWrite."""
        path = self.place / relative
        path.mkdir(parents=True, exist_ok=True)
        return path

    def sync(self) -> None:
        """Make durable all that was written since the last call. Raises CannotWrite."""
        os.sync()
