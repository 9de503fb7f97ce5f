"""A message on its way in: gathered, then hashed and rendered once, before any lock is taken.

Up to MEMORY_MAX it stays in memory; above, in a file in root/tmp that has no name, so that nothing is left behind
whatever happens. Knows bytes and rendering, nothing of accounts: what is staged may be appended to several.
"""

import hashlib
import os
import tempfile
import zlib
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Final

from mailkeep.mail.structure import Rendered, render
from mailkeep.store.failure import translated

MEMORY_MAX: Final = 1 << 20


class Staged:
    """A message ready to be appended. Keep it open until the append has been answered, then `close` it."""

    __slots__ = ("_data", "crc", "rendered", "sha256", "size")

    def __init__(
        self, data: bytes | mmap, rendered: Rendered, *, sha256: bytes | None = None, crc: int | None = None
    ) -> None:
        self._data = data
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).digest() if sha256 is None else sha256
        self.crc = zlib.crc32(data) if crc is None else crc
        self.rendered = rendered

    @classmethod
    def of(cls, data: bytes) -> "Staged":
        """A message that is in memory already."""
        return cls(data, render(data))

    def data(self) -> bytes | mmap:
        # A closed one written as the message that its hash names would be damaged, and so would be its next copies.
        if len(self._data) != self.size:
            raise RuntimeError("The message was let go before it was stored")
        return self._data

    def close(self) -> None:
        if isinstance(self._data, mmap):
            self._data.close()
        self._data = b""


class Staging:
    """Takes a message in pieces. Raises StoreFull or StoreReadOnly where a piece cannot be kept."""

    __slots__ = ("_buffer", "_prefix", "_size", "_tmp")

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._buffer: IO[bytes] = BytesIO()
        self._size = 0
        self._prefix = b""

    @property
    def size(self) -> int:
        """Bytes so far, those put before them counted."""
        return self._size + len(self._prefix)

    def write(self, data: bytes | memoryview) -> None:
        with translated():
            if self._size + len(data) > MEMORY_MAX and isinstance(self._buffer, BytesIO):
                self._spill()
            self._buffer.write(data)
        self._size += len(data)

    def _spill(self) -> None:
        spilled = tempfile.TemporaryFile(dir=self._tmp)  # noqa: SIM115  # it lives on as the buffer
        try:
            spilled.write(self._buffer.getvalue())  # type: ignore[attr-defined]  # a BytesIO, as the caller checked
        except BaseException:
            spilled.close()
            raise
        self._buffer.close()
        self._buffer = spilled

    def prepend(self, data: bytes) -> None:
        """Put bytes before all that is there: trace headers."""
        self._prefix = data + self._prefix

    def finish(self) -> Staged:
        """Hash and render. Heavy for a big message: in a thread then. The staging is used up."""
        try:
            data = self._gather()
        finally:
            self._buffer.close()
        try:
            return Staged(data, render(data))
        except BaseException:
            if isinstance(data, mmap):
                data.close()
            raise

    def _gather(self) -> bytes | mmap:
        if isinstance(self._buffer, BytesIO):
            return self._prefix + self._buffer.getvalue()
        with translated():
            if self._prefix:
                self._move_up()
            self._buffer.flush()
            return mmap(self._buffer.fileno(), 0, access=ACCESS_READ)

    def _move_up(self) -> None:
        with tempfile.TemporaryFile(dir=self._tmp) as moved:
            moved.write(self._prefix)
            moved.flush()
            self._buffer.flush()
            source, target = self._buffer.fileno(), moved.fileno()
            offset = 0
            os.lseek(target, 0, os.SEEK_END)
            while offset < self._size:
                offset += os.sendfile(target, source, offset, self._size - offset)
            self._buffer.close()
            self._buffer = os.fdopen(os.dup(target), "r+b")

    def discard(self) -> None:
        """Forget it. Harmless after `finish`."""
        self._buffer.close()
