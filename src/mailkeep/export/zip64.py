"""Writes a zip of any size as a stream that can be cut back and taken up again, and counts what is in one.

Knows the zip format (PKWARE's APPNOTE 6.3.10; section numbers below are its own), nothing of mail. Python's zipfile
keeps every entry in memory until the end and loses the archive when the process dies; here the central directory grows
in a file of its own beside the archive, and is appended to it at the end. Sizes are known before an entry is written,
so that there are no data descriptors, which some readers cannot do. Where numbers outgrow 32 bits, and only there, the
ZIP64 fields stand: old readers read everything below 4 GiB and 65,535 entries.
"""

import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from mailkeep.errors import UsageError
from mailkeep.export.files import Growing, sync_folder, writing

_LOCAL: Final = struct.Struct("<4s5H3I2H")  # 4.3.7
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_END64: Final = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR: Final = struct.Struct("<4sIQI")  # 4.3.15
_END: Final = struct.Struct("<4s4H2IH")  # 4.3.16
_TIME: Final = struct.Struct("<2HBi")  # extra field 0x5455, Info-ZIP's: the time in UTC

_UTF8: Final = 1 << 11  # 4.4.4
_STORED, _DEFLATED = 0, 8
_MADE_BY: Final = 3 << 8 | 45  # Unix, 4.5: what ZIP64 wants
_MAX16, _MAX32 = 0xFFFF, 0xFFFF_FFFF
_FILE_MODE: Final = 0o100600 << 16
_FOLDER_MODE: Final = 0o040700 << 16 | 0x10
_COPY: Final = 1 << 20
_NO_TIME: Final = (0, 0x21)  # midnight of 1 January 1980
_TAIL_MAX: Final = _END.size + _LOCATOR.size + _END64.size + _MAX16  # with a comment


@dataclass(frozen=True, slots=True)
class Packed:
    """The content of an entry, ready to be written. Made in any thread: it is what costs time."""

    crc: int
    size: int
    method: int
    data: bytes


def pack(data: bytes) -> Packed:
    """Compress, if that makes it smaller."""
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    squeezed = squeezer.compress(data) + squeezer.flush()
    crc = zlib.crc32(data)
    if len(squeezed) >= len(data):
        return Packed(crc, len(data), _STORED, data)
    return Packed(crc, len(data), _DEFLATED, squeezed)


class Zip:
    """An archive that grows. `entries`, `size` and `directory` are all that a later process needs to go on."""

    def __init__(self, path: Path, *, entries: int = 0, size: int = 0, directory: int = 0) -> None:
        """New, or cut back to what it was. Raises CannotWrite; UsageError when what was left is not there any more."""
        self.entries = entries
        self._archive = Growing(path, size)
        try:
            self._directory = Growing(_directory_of(path), directory)
        except BaseException:
            self._archive.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the entries."""
        return self._archive.size

    @property
    def directory(self) -> int:
        """Bytes of the central directory so far."""
        return self._directory.size

    def add(self, name: str, packed: Packed, *, mtime: int) -> None:
        """An entry; `name` with "/" between levels. Raises CannotWrite."""
        self._add(name, packed, mtime=mtime, mode=_FILE_MODE)

    def add_folder(self, name: str) -> None:
        """An entry for a folder, which would not be there otherwise. Raises CannotWrite."""
        self._add(f"{name}/", Packed(0, 0, _STORED, b""), mtime=None, mode=_FOLDER_MODE)

    def _add(self, name: str, packed: Packed, *, mtime: int | None, mode: int) -> None:
        raw = name.encode("utf-8")
        times, extra = _NO_TIME, b""
        if mtime is not None:
            times = _dos_time(mtime)
            extra = _TIME.pack(0x5455, 5, 1, mtime) if -(1 << 31) <= mtime < 1 << 31 else b""
        local_extra, sizes = extra, (len(packed.data), packed.size)
        if max(sizes) >= _MAX32:  # 4.5.3: both, in the local header
            local_extra = struct.pack("<2H2Q", 1, 16, packed.size, len(packed.data)) + extra
            sizes = (_MAX32, _MAX32)
        offset = self._archive.size
        big = [number for number in (packed.size, len(packed.data)) if max(sizes) == _MAX32]
        big += [offset] if offset >= _MAX32 else []
        central_extra = (struct.pack(f"<2H{len(big)}Q", 1, 8 * len(big), *big) if big else b"") + extra
        version = 45 if big else 20
        head = (version, _UTF8, packed.method, *times, packed.crc, *sizes, len(raw))
        self._archive.write(_LOCAL.pack(b"PK\3\4", *head, len(local_extra)) + raw + local_extra)
        self._archive.write(packed.data)
        place = (len(central_extra), 0, 0, 0, mode, min(offset, _MAX32))
        self._directory.write(_CENTRAL.pack(b"PK\1\2", _MADE_BY, *head, *place) + raw + central_extra)
        self.entries += 1

    def sync(self) -> None:
        """Make durable what there is. Raises CannotWrite."""
        self._archive.sync()
        self._directory.sync()
        sync_folder(self._archive.path.parent)

    def finish(self) -> None:
        """Append the directory; the archive is complete and durable. Raises CannotWrite."""
        self._directory.flush()
        start, length, count = self._archive.size, self._directory.size, self.entries
        with writing(self._directory.path), self._directory.path.open("rb") as file:
            while chunk := file.read(_COPY):
                self._archive.write(chunk)
        if count >= _MAX16 or start + length >= _MAX32:
            where = self._archive.size
            end = (_END64.size - 12, _MADE_BY, 45, 0, 0, count, count, length, start)
            self._archive.write(_END64.pack(b"PK\6\6", *end) + _LOCATOR.pack(b"PK\6\7", 0, where, 1))
        count, length, start = min(count, _MAX16), min(length, _MAX32), min(start, _MAX32)
        self._archive.write(_END.pack(b"PK\5\6", 0, 0, count, count, length, start, 0))
        self._archive.sync()
        sync_folder(self._archive.path.parent)
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._archive.close()
        self._directory.close()


def _directory_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.directory")


def _dos_time(mtime: int) -> tuple[int, int]:
    """4.4.6: two seconds are one, from 1980 on. By the letter it is local time; in UTC it is the same everywhere."""
    try:
        when = datetime.fromtimestamp(mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return _NO_TIME
    if not 1980 <= when.year <= 2107:
        return _NO_TIME
    return (
        when.hour << 11 | when.minute << 5 | when.second // 2,
        (when.year - 1980) << 9 | when.month << 5 | when.day,
    )


def count_files(path: Path) -> int:
    """Files in an archive by its central directory, each found again at its place; in constant memory.

    Raises UsageError when it is no zip or damaged.
    """
    try:
        with path.open("rb") as directory, path.open("rb") as entries:
            return _count(directory, entries)
    except (OSError, struct.error) as error:
        raise UsageError(f"{path}: cannot be read as a zip: {error}") from None


def _count(directory: BinaryIO, entries: BinaryIO) -> int:
    start, expected = _find_directory(directory)
    directory.seek(start)
    found = files = 0
    while (head := directory.read(_CENTRAL.size))[:4] == b"PK\1\2":
        fields = _CENTRAL.unpack(head)
        name, extra = directory.read(fields[10]), directory.read(fields[11])
        directory.seek(fields[12], 1)
        offset = fields[16]
        if offset == _MAX32:
            offset = int.from_bytes(extra[4 : 4 + int.from_bytes(extra[2:4], "little")][-8:], "little")
        entries.seek(offset)
        local = _LOCAL.unpack(entries.read(_LOCAL.size))
        if local[0] != b"PK\3\4" or entries.read(local[9]) != name:
            raise struct.error(f"entry {found + 1} is not where the directory says")
        found += 1
        files += not name.endswith(b"/")
    if found != expected:
        raise struct.error(f"{found} entries in the directory, {expected} announced")
    return files


def _find_directory(file: BinaryIO) -> tuple[int, int]:
    """Where the central directory is, and how many entries it has."""
    size = file.seek(0, 2)
    base = max(size - _TAIL_MAX, 0)
    file.seek(base)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise struct.error("there is no end of a central directory")
    end = _END.unpack_from(tail, at)
    locator = tail.rfind(b"PK\6\7", 0, at)
    if locator < 0 or at - locator != _LOCATOR.size:
        return end[6], end[4]
    file.seek(_LOCATOR.unpack_from(tail, locator)[2])
    end64 = _END64.unpack(file.read(_END64.size))
    return end64[9], end64[7]
