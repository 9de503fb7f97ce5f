"""A pack's head, found again when it is damaged: 16 bytes that must not cost 256 MiB of mail.

The head holds the salt that every record header's CRC starts from (blobs.py); without it no record can be told from
bytes that only look like one. But a CRC can be run backwards: each record header tells the salt that it was written
with. Where the records agree, that is the salt. Bytes inside a message could pretend to be records; they cover less
of the pack than the records around them, so the salt that covers most is taken.
"""

import mmap
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Final

from mailkeep.store.blobs import HEADER, HEADER_SIZE, PACK_HEAD_SIZE, PACK_MAGIC, RECORD_MAGIC, read_salt

_POLYNOMIAL: Final = 0xEDB8_8320  # of CRC-32 as zlib has it, bits reversed
_HEADER_BODY: Final = HEADER_SIZE - 4


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = (register >> 1) ^ (_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return tuple(table)


_TABLE: Final = _table()
_BY_TOP_BYTE: Final = {entry >> 24: index for index, entry in enumerate(_TABLE)}  # a CRC table's top bytes all differ


def implied_salt(header: bytes) -> int:
    """The salt from which this record header's CRC was started.

    Two CRCs of the same bytes differ by what the difference of their starts becomes over as many zero bytes; a step
    over a zero byte, D → T[D & 255] ^ (D >> 8), is undone by looking T's entry up by its top byte.
    """
    register = zlib.crc32(header[:_HEADER_BODY]) ^ int.from_bytes(header[_HEADER_BODY:HEADER_SIZE], "big")
    for _ in range(_HEADER_BODY):
        index = _BY_TOP_BYTE[register >> 24]
        register = ((register ^ _TABLE[index]) << 8) & 0xFFFF_FFFF | index
    return register


def mend_head(path: Path) -> bool:
    """Write a damaged pack head anew. False: it was sound, or there is no record to tell it from."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size < PACK_HEAD_SIZE + HEADER_SIZE or read_salt(fd) is not None:
            return False
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            covered = _salts(data)
        if not covered:
            return False
        salt = covered.most_common(1)[0][0]
        os.pwrite(fd, PACK_MAGIC + salt.to_bytes(4, "big") + (salt ^ 0xFFFF_FFFF).to_bytes(4, "big"), 0)
        os.fsync(fd)
        return True
    finally:
        os.close(fd)


def _salts(data: mmap.mmap) -> Counter[int]:
    """Salts that records in the pack were written with, each with the bytes that its records cover."""
    covered: Counter[int] = Counter()
    at = data.find(RECORD_MAGIC)
    while at >= 0 and at + HEADER_SIZE <= len(data):
        header = data[at : at + HEADER_SIZE]
        length, crc = HEADER.unpack(header)[4], HEADER.unpack(header)[7]
        end = at + HEADER_SIZE + length
        sound = end <= len(data) and zlib.crc32(data[at + HEADER_SIZE : end]) == crc
        if sound:
            covered[implied_salt(header)] += end - at
        at = data.find(RECORD_MAGIC, end if sound else at + 1)
    return covered
