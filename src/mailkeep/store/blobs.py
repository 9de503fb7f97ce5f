"""Packs: where message bytes live, and the journal from which everything else can be rebuilt.

An account's `packs/` holds files `<n>.pack`. A pack is a 16-byte head (PACK_MAGIC, a random salt u32, its complement
u32) and then records, each a 64-byte header and its stored bytes, nothing between. It only grows; only garbage
collection removes bytes, by writing the records worth keeping to a new pack. Exactly one process appends to a pack at
a time, and holds an exclusive flock on it while it does; readers take no lock.

    header (big-endian)  magic "MKR1" · kind u8 · codec u8 · 0 u16 · length u64 · size u64 · digest 32 · crc u32 ·
                         header crc u32

`length` counts the stored bytes that follow, `size` those after decoding (codec RAW: the same; ZSTD: one zstd frame).
`digest` is the SHA-256 of the decoded bytes. `crc` is the CRC-32 of the stored bytes, `header crc` that of the 60
header bytes before it, started from the pack's salt, so that a walker can trust `length`, and after damage finds the
next record by its magic. The salt is why bytes inside a message can never pass for a record, whoever wrote them.

**BLOB** records hold one message as received. **JOURNAL** records hold a msgpack `Journal`: what one transaction
did. Both are written before the transaction's commit; for anything but flag changes they are synced before it, so a
committed row never points at bytes that a power cut can take. A flag-only journal is not synced (nor is its commit).

**Replay.** Ops carry modseqs, one each, that rise through the account's life. A journal may be there whose
transaction never committed (killed between the sync and the commit); its modseqs, and then perhaps its UIDs, were
given again to another transaction. `txn` and `parent` tell them apart: `parent` is the txn of the transaction that
was committed before. Of two journals whose modseqs overlap, the one that is a later journal's parent committed; if
neither is, the later `at` is to be believed. Kept so, an unacknowledged message may come back, an acknowledged one is
never lost, and a UID that any journal names, committed or not, is never given again.

Garbage collection carries JOURNAL records over to the new pack: an op dropped there (a removal) could leave its
counterpart standing in another pack.

**A half-written tail** (killed, or no space) is recognised by its CRCs. Its next owner cuts it off before the first
append; the `pack` table says from where on to look.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec
import zstandard

from mailkeep.errors import MessageMissing, StoreCorrupt, StoreReadOnly
from mailkeep.store.failure import translate, translated

PACK_MAGIC: Final = b"MKPACK1\n"
PACK_HEAD_SIZE: Final = 16
RECORD_MAGIC: Final = b"MKR1"
PACK_SIZE_MAX: Final = 256 << 20  # no record starts past this: what garbage collection rewrites at once
HEADER: Final = struct.Struct(">4sBBHQQ32sII")
HEADER_SIZE: Final = HEADER.size
assert HEADER_SIZE == 64
_HEADER_BODY: Final = struct.Struct(">4sBBHQQ32sI")
_BIG: Final = 1 << 20  # stored bytes above which a record is not gathered in memory
_PENDING_MAX: Final = 4 << 20  # gathered bytes before they are written (not synced) ahead of the flush
_GAP_MAX: Final = 4096  # bytes between two records that are read over rather than jumped
_READ_MAX: Final = 1 << 20
_VECTORS_MAX: Final = 512  # of IOV_MAX (1024)
_OPEN_PACKS_MAX: Final = 8  # read handles kept per account

BLOB: Final = 1
JOURNAL: Final = 2

RAW: Final = 0
ZSTD: Final = 1

Buffer = bytes | bytearray | memoryview | mmap


# The journal. Arrays on the wire, tagged by their first element; fields may be added at the end, with a default. Not
# tracked by the cyclic collector: a COPY of ten thousand would make it stop all threads for tens of milliseconds.


class Created(msgspec.Struct, frozen=True, array_like=True, tag="create", gc=False):
    """A mailbox came into being."""

    modseq: int
    mailbox: int
    name: str
    uidvalidity: int
    special_use: list[str]
    at: int


class Renamed(msgspec.Struct, frozen=True, array_like=True, tag="rename", gc=False):
    modseq: int
    mailbox: int
    name: str


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag="delete", gc=False):
    """A mailbox is gone; its messages are in a Removed beside it."""

    modseq: int
    mailbox: int
    at: int
    kept: bool = False  # what went with it keeps its origins (earlier, all there lost theirs)


class Revived(msgspec.Struct, frozen=True, array_like=True, tag="revive", gc=False):
    """A deleted mailbox is back under this name (undelete)."""

    modseq: int
    mailbox: int
    name: str


class Subscribed(msgspec.Struct, frozen=True, array_like=True, tag="subscribe", gc=False):
    modseq: int
    name: str
    on: bool


class Placed(msgspec.Struct, frozen=True, array_like=True, tag="place", gc=False):
    """A message is in a mailbox under a UID: by append, copy, move or undelete."""

    modseq: int
    mailbox: int
    uid: int
    sha256: bytes
    internaldate: int
    savedate: int
    flags: list[str]
    origin: bytes | None


class Flagged(msgspec.Struct, frozen=True, array_like=True, tag="flags", gc=False):
    """These messages now have exactly these flags."""

    modseq: int
    mailbox: int
    uids: bytes  # an IMAP sequence set
    flags: list[str]


class Removed(msgspec.Struct, frozen=True, array_like=True, tag="remove", gc=False):
    modseq: int
    mailbox: int
    uids: bytes  # an IMAP sequence set
    fate: int  # schema.Fate
    at: int


class Restored(msgspec.Struct, frozen=True, array_like=True, tag="restore", gc=False):
    """These tombstones were undeleted: their fate is now RESTORED. Their new places are in Placed ops beside it."""

    modseq: int
    mailbox: int
    uids: bytes  # an IMAP sequence set


class Rekeyed(msgspec.Struct, frozen=True, array_like=True, tag="rekey", gc=False):
    """These messages, tombstones among them, now have these origins."""

    modseq: int
    keys: list[int]  # mailbox << 32 | uid
    origins: list[bytes | None]


class Known(msgspec.Struct, frozen=True, array_like=True, tag="uidl", gc=False):
    """POP3 clients know these messages by these UIDLs; None: by our own again."""

    modseq: int
    mailbox: int
    uids: list[int]
    uidls: list[str | None]


class Reserved(msgspec.Struct, frozen=True, array_like=True, tag="uidnext", gc=False):
    """No message of this mailbox will get a UID below this one."""

    modseq: int
    mailbox: int
    uidnext: int


Op = (
    Created
    | Renamed
    | Deleted
    | Revived
    | Subscribed
    | Placed
    | Flagged
    | Removed
    | Restored
    | Rekeyed
    | Known
    | Reserved
)


class Journal(msgspec.Struct, frozen=True, array_like=True):
    """What one transaction did. See *Replay* above."""

    txn: int
    parent: int
    at: float  # Unix seconds
    ops: list[Op]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Journal)


def encode_journal(journal: Journal) -> bytes:
    return _encoder.encode(journal)


def decode_journal(data: bytes) -> Journal:
    """Raises StoreCorrupt."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt("A journal record cannot be read") from error


@dataclass(frozen=True, slots=True)
class Record:
    """One record's header, as found at `offset` (of the header) in a pack."""

    offset: int
    kind: int
    codec: int
    length: int
    size: int
    digest: bytes
    crc: int

    @property
    def end(self) -> int:
        return self.offset + HEADER_SIZE + self.length


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [offset, end) of a pack that are no sound record. `tail`: nothing sound follows, as after a kill."""

    offset: int
    end: int
    tail: bool


def pack_path(packs: Path, number: int) -> Path:
    return packs / f"{number}.pack"


def pack_numbers(packs: Path) -> list[int]:
    """Numbers of the packs that are there, rising."""
    with translated():
        names = os.listdir(packs)
    return sorted(int(name[:-5]) for name in names if name.endswith(".pack") and name[:-5].isdigit())


def _pack_head(salt: int) -> bytes:
    return PACK_MAGIC + salt.to_bytes(4, "big") + (salt ^ 0xFFFF_FFFF).to_bytes(4, "big")


def read_salt(fd: int) -> int | None:
    """The salt of an open pack; None when its head is damaged."""
    with translated():
        head = os.pread(fd, PACK_HEAD_SIZE, 0)
    salt = int.from_bytes(head[8:12], "big")
    return salt if head == _pack_head(salt) else None


def _record_header(salt: int, kind: int, codec: int, *, length: int, size: int, digest: bytes, crc: int) -> bytes:
    body = _HEADER_BODY.pack(RECORD_MAGIC, kind, codec, 0, length, size, digest, crc)
    return body + zlib.crc32(body, salt).to_bytes(4, "big")


def _parse_header(data: bytes, offset: int, salt: int) -> Record | None:
    if len(data) < HEADER_SIZE or data[:4] != RECORD_MAGIC:
        return None
    if zlib.crc32(data[:60], salt) != int.from_bytes(data[60:64], "big"):
        return None
    _, kind, codec, _, length, size, digest, crc, _ = HEADER.unpack_from(data)
    return Record(offset, kind, codec, length, size, digest, crc)


def read_header(fd: int, offset: int) -> Record | None:
    """The record's header at `offset`; None if none is there."""
    salt = read_salt(fd)
    with translated():
        return None if salt is None else _parse_header(os.pread(fd, HEADER_SIZE, offset), offset, salt)


def _stored_crc(fd: int, record: Record) -> int:
    crc, at, left = 0, record.offset + HEADER_SIZE, record.length
    while left > 0:
        chunk = os.pread(fd, min(left, 1 << 20), at)
        if not chunk:
            return -1
        crc = zlib.crc32(chunk, crc)
        at += len(chunk)
        left -= len(chunk)
    return crc


def decode(codec: int, stored: bytes, size: int) -> bytes:
    """Stored bytes → the bytes as received. Raises StoreCorrupt."""
    if codec == RAW:
        return stored
    if codec != ZSTD:
        raise StoreCorrupt("A stored message has an unknown encoding")
    try:
        data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(size, 1))
    except zstandard.ZstdError as error:
        raise StoreCorrupt("A stored message cannot be read") from error
    if len(data) != size:
        raise StoreCorrupt("A stored message has the wrong size")
    return data


def read_record(fd: int, record: Record) -> bytes:
    """The decoded bytes of a record, checked against its CRC and digest. Raises StoreCorrupt."""
    with translated():
        stored = os.pread(fd, record.length, record.offset + HEADER_SIZE)
    if len(stored) != record.length or zlib.crc32(stored) != record.crc:
        raise StoreCorrupt("A stored message fails its checksum")
    data = decode(record.codec, stored, record.size)
    if hashlib.sha256(data).digest() != record.digest:
        raise StoreCorrupt("A stored message fails its checksum")
    return data


def walk(fd: int, start: int = 0, *, verify: bool = True) -> Iterator[Record | Damage]:
    """Every record of an open pack from `start` (0, or a record's offset) on, and every stretch that is none.

    With `verify` the stored bytes are read and their CRC checked; the digest is `read_record`'s to check. A pack whose
    head is damaged is one Damage: its salt is lost.
    """
    salt = read_salt(fd)
    with translated():
        end = os.fstat(fd).st_size
        if salt is None:
            yield Damage(0, end, tail=False)
            return
        at = max(start, PACK_HEAD_SIZE)
        while at < end:
            record = _sound(fd, at, end, salt=salt, verify=verify)
            if record is not None:
                yield record
                at = record.end
                continue
            after = _next_record(fd, at + 1, end, salt=salt, verify=verify)
            yield Damage(at, end if after is None else after, tail=after is None)
            if after is None:
                return
            at = after


def _sound(fd: int, at: int, end: int, *, salt: int, verify: bool) -> Record | None:
    record = _parse_header(os.pread(fd, HEADER_SIZE, at), at, salt)
    if record is None or record.end > end:
        return None
    if verify and _stored_crc(fd, record) != record.crc:
        return None
    return record


def _next_record(fd: int, start: int, end: int, *, salt: int, verify: bool) -> int | None:
    at = start
    while at < end:
        chunk = os.pread(fd, 1 << 20, at)
        found = chunk.find(RECORD_MAGIC)
        while found >= 0:
            if _sound(fd, at + found, end, salt=salt, verify=verify) is not None:
                return at + found
            found = chunk.find(RECORD_MAGIC, found + 1)
        if at + len(chunk) >= end or not chunk:
            return None
        at += len(chunk) - len(RECORD_MAGIC) + 1
    return None


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record was put: pack number, offset of its header, stored length."""

    pack: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + HEADER_SIZE + self.length


class PackWriter:
    """The one writer of one pack. Records gather in memory and go out together; `flush` makes them durable.

    Used by one thread at a time. After a failed write the pack is cut back to where the last flush left it, so that no
    half record ever stands in the middle, and `lost` is set: the places given since then are void. When even that
    fails `broken` is set, and the owner goes on with a new pack.
    """

    __slots__ = ("_fd", "_flushed", "_pending", "_pending_size", "_salt", "_written", "broken", "end", "lost", "number")

    def __init__(self, fd: int, number: int, *, salt: int, end: int) -> None:
        self._fd = fd
        self._salt = salt
        self.number = number
        self.end = end  # where the next record goes, pending ones counted
        self._written = end  # where the file ends
        self._flushed = end  # what a failure cuts back to
        self._pending: list[Buffer] = []
        self._pending_size = 0
        self.broken = False
        self.lost = False

    @classmethod
    def create(cls, packs: Path) -> "PackWriter":
        """A new, empty pack, durable in its directory and locked."""
        with translated():
            numbers = pack_numbers(packs)
            salt = int.from_bytes(os.urandom(4), "big")
            number = numbers[-1] + 1 if numbers else 1
            while True:
                try:
                    fd = os.open(pack_path(packs, number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                except FileExistsError:
                    number += 1
                    continue
                break
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.pwrite(fd, _pack_head(salt), 0)
                os.fsync(fd)
                _sync_directory(packs)
            except BaseException:
                os.close(fd)
                # Nobody can have used it: it is empty, and its number is in no database.
                with contextlib.suppress(OSError):
                    os.unlink(pack_path(packs, number))
                raise
        return cls(fd, number, salt=salt, end=PACK_HEAD_SIZE)

    @classmethod
    def open(cls, packs: Path, known_end: Callable[[int], int | None]) -> "PackWriter":
        """A pack that no other process is writing and that has room, its half-written tail cut off; else a new one.

        `known_end(number)` is how far the account's database knows that pack to be synced and whole, None where it
        does not know it, -1 where garbage collection has retired it.
        """
        for number in reversed(pack_numbers(packs)[-8:]):
            writer = cls._claim(packs, number, known_end)
            if writer is not None:
                return writer
        return cls.create(packs)

    @classmethod
    def _claim(cls, packs: Path, number: int, known_end: Callable[[int], int | None]) -> "PackWriter | None":
        path = pack_path(packs, number)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise translate(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stat = os.fstat(fd)
            # Unlinked: garbage collection was faster. Short: killed while it was being made.
            if stat.st_nlink == 0 or not PACK_HEAD_SIZE <= stat.st_size < PACK_SIZE_MAX:
                os.close(fd)
                return None
            salt = read_salt(fd)
            known = known_end(number)
            end = None if known == -1 else _cut_tail(fd, known)
            if salt is None or end is None:
                os.close(fd)
                return None
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EWOULDBLOCK:
                return None
            raise translate(error) from error
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, number, salt=salt, end=end)

    def add(self, kind: int, data: Buffer, digest: bytes, *, crc: int | None = None) -> Place:
        """Put a record at the end, as it is (codec RAW). Durable after `flush`. Raises StoreFull, StoreReadOnly."""
        size = len(data)
        return self.add_stored(kind, RAW, data, size=size, digest=digest, crc=zlib.crc32(data) if crc is None else crc)

    def add_stored(self, kind: int, codec: int, stored: Buffer, *, size: int, digest: bytes, crc: int) -> Place:
        """Put a record whose bytes are already encoded by `codec`."""
        length = len(stored)
        place = Place(self.number, self.end, length)
        if length > _BIG:
            header = _record_header(self._salt, kind, codec, length=length, size=size, digest=digest, crc=crc)
            self._add_big(header, stored)
            return place
        self._pending.append(_record_header(self._salt, kind, codec, length=length, size=size, digest=digest, crc=crc))
        self._pending.append(stored)
        self._pending_size += HEADER_SIZE + length
        self.end += HEADER_SIZE + length
        if self._pending_size > _PENDING_MAX:
            self._write()
        return place

    def _add_big(self, header: bytes, stored: Buffer) -> None:
        # Written at once, after what waits: should only this one find no space, only this one fails.
        self._write()
        start = self._written
        try:
            self._written = _write_all(self._fd, [header, stored], start)
        except OSError as error:
            self._cut(start)
            raise translate(error) from error
        self.end = self._written

    @property
    def flushed(self) -> int:
        """Where the last flush ended."""
        return self._flushed

    @property
    def full(self) -> bool:
        return self.end >= PACK_SIZE_MAX

    def rollback(self, end: int) -> None:
        """Take back what was added since the writer's `end` was this, and not flushed."""
        if end >= self.end:  # nothing, or a failed write took back even more
            return
        assert self._flushed <= end
        while self._pending and self.end > end:
            size = len(self._pending.pop())
            self.end -= size
            self._pending_size -= size
        if self.end > end:  # some was written ahead
            self.end = end
            self._cut(end)

    def flush(self, *, sync: bool) -> None:
        """Write what is pending; with `sync` make all of the pack durable. Raises StoreFull, StoreReadOnly."""
        self._write()
        if sync:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                # What the failed sync left on the disk cannot be known: nothing more goes into this pack.
                self.broken = True
                self._fail()
                raise translate(error) from error
        self._flushed = self.end

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        self._pending_size = 0
        try:
            for start in range(0, len(pending), _VECTORS_MAX):
                self._written = _write_all(self._fd, pending[start : start + _VECTORS_MAX], self._written)
        except OSError as error:
            self._fail()
            raise translate(error) from error

    def _fail(self) -> None:
        self._pending.clear()
        self._pending_size = 0
        self.end = self._flushed
        self.lost = True
        self._cut(self._flushed)

    def _cut(self, end: int) -> None:
        self._written = end
        try:
            os.ftruncate(self._fd, end)
        except OSError:
            self.broken = True

    def close(self) -> None:
        """Give up the pack (and its lock). What is pending is dropped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _cut_tail(fd: int, known_end: int | None) -> int | None:
    """Where the pack's sound part ends, after cutting off what a killed writer left. None: not fit for appending."""
    start = 0 if known_end is None else known_end
    end = start or PACK_HEAD_SIZE
    for found in walk(fd, start):
        if isinstance(found, Record):
            end = found.end
        elif found.tail:
            os.ftruncate(fd, end)
        else:
            return None  # damage in the middle: left as it is for `verify` and `repair` to look at
    if os.fstat(fd).st_size != end:
        return None  # shorter than the database knows it: lost bytes, for `verify` to tell
    return end


def _write_all(fd: int, buffers: Sequence[Buffer], at: int) -> int:
    views = [memoryview(buffer) for buffer in buffers]
    index = 0
    try:
        while index < len(views):
            count = os.pwritev(fd, views[index:], at)
            at += count
            while index < len(views) and count >= len(views[index]):
                count -= len(views[index])
                index += 1
            if count:
                rest = views[index][count:]
                views[index].release()
                views[index] = rest
    finally:
        for view in views:
            view.release()
    return at


class PackReader:
    """Reads records by place; keeps the handles of the last few packs open. Used by one thread at a time."""

    __slots__ = ("_fds", "_packs")

    def __init__(self, packs: Path) -> None:
        self._packs = packs
        self._fds: dict[int, int] = {}

    def fd(self, number: int) -> int:
        """A handle on a pack. Raises MessageMissing when garbage collection took it: look its place up again."""
        fd = self._fds.get(number)
        if fd is None:
            try:
                fd = os.open(pack_path(self._packs, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise MessageMissing("The message's bytes are gone") from None
            except OSError as error:
                raise StoreReadOnly("The mail store cannot be read") from error
            if len(self._fds) >= _OPEN_PACKS_MAX:
                os.close(self._fds.pop(next(iter(self._fds))))
        else:
            del self._fds[number]  # most recently used goes last
        self._fds[number] = fd
        return fd

    def read(self, place: Place, start: int, length: int) -> bytes:
        """Stored bytes [start, start+length) of a RAW record. A read of the whole is checked against its CRC.

        Raises StoreCorrupt, MessageMissing.
        """
        fd = self.fd(place.pack)
        try:
            if start or length != place.length:
                data = os.pread(fd, length, place.offset + HEADER_SIZE + start)
            else:
                both = os.pread(fd, HEADER_SIZE + length, place.offset)
                data = both[HEADER_SIZE:]
                if len(data) == length and both[56:60] != zlib.crc32(data).to_bytes(4, "big"):
                    raise StoreCorrupt("A stored message fails its checksum")
        except OSError as error:
            raise StoreCorrupt("A stored message cannot be read") from error
        if len(data) != length:
            raise StoreCorrupt("A stored message is cut short")
        return data

    def read_near(self, places: Sequence[tuple[int, int, int]]) -> list[bytes | None]:
        """Whole RAW records by (pack, offset, length), in that order; None for one that fails its CRC.

        Neighbours that follow each other, in the pack and here, are one read. Raises StoreCorrupt, MessageMissing.
        """
        found: list[bytes | None] = []
        start, count = 0, len(places)
        while start < count:
            pack, first, length = places[start]
            end, furthest = first + HEADER_SIZE + length, first + _READ_MAX
            stop = start + 1
            while stop < count:
                other, offset, length = places[stop]
                after = offset + HEADER_SIZE + length
                if other != pack or not 0 <= offset - end <= _GAP_MAX or after > furthest:
                    break
                end = after
                stop += 1
            try:
                data = os.pread(self.fd(pack), end - first, first)
            except OSError as error:
                raise StoreCorrupt("A stored message cannot be read") from error
            for _, offset, length in places[start:stop]:
                at = offset - first + HEADER_SIZE
                stored = data[at : at + length]
                sound = crc32(stored).to_bytes(4, "big") == data[at - 8 : at - 4]
                found.append(stored if sound and len(stored) == length else None)
            start = stop
        return found

    def forget(self, number: int) -> None:
        """Close the handle on a pack that is gone."""
        fd = self._fds.pop(number, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
