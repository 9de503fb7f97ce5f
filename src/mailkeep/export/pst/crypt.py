"""The cipher of a PST's data, its checksum and its signature; all three are the format's, none is a protection.

Knows bytes only. The hard idea is that there is none: a fixed substitution of bytes, which Outlook calls "compressible
encryption" and which everybody can undo, a CRC-32 with other first and last steps than usual, and 16 bits of offset and
id, so that a block read from the wrong place is noticed.
"""

import zlib
from typing import Final

# Section 5.1: the first third of mpbbCrypt; plain byte → stored byte.
ENCODE: Final = bytes.fromhex(
    """
    41 36 13 62 A8 21 6E BB F4 16 CC 04 7F 64 E8 5D
    1E F2 CB 2A 74 C5 5E 35 D2 95 47 9E 96 2D 9A 88
    4C 7D 84 3F DB AC 31 B6 48 5F F6 C4 D8 39 8B E7
    23 3B 38 8E C8 C1 DF 25 B1 20 A5 46 60 4E 9C FB
    AA D3 56 51 45 7C 55 00 07 C9 2B 9D 85 9B 09 A0
    8F AD B3 0F 63 AB 89 4B D7 A7 15 5A 71 66 42 BF
    26 4A 6B 98 FA EA 77 53 B2 70 05 2C FD 59 3A 86
    7E CE 06 EB 82 78 57 C7 8D 43 AF B4 1C D4 5B CD
    E2 E9 27 4F C3 08 72 80 CF B0 EF F5 28 6D BE 30
    4D 34 92 D5 0E 3C 22 32 E5 E4 F9 9F C2 D1 0A 81
    12 E1 EE 91 83 76 E3 97 E6 61 8A 17 79 A4 B7 DC
    90 7A 5C 8C 02 A6 CA 69 DE 50 1A 11 93 B9 52 87
    58 FC ED 1D 37 49 1B 6A E0 29 33 99 BD 6C D9 94
    F3 40 54 6F F0 C6 73 B8 D6 3E 65 18 44 1F DD 67
    10 F1 0C 19 EC AE 03 A1 14 7B A9 0B FF F8 A3 C0
    A2 01 F7 2E BC 24 68 75 0D FE BA 2F B5 D0 DA 3D
    """
)
DECODE: Final = bytes.maketrans(ENCODE, bytes(range(256)))


def crc(data: bytes) -> int:
    """Section 5.3: CRC-32 that begins with 0 and is not inverted at the end."""
    return zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


def signature(offset: int, bid: int) -> int:
    """Section 5.5: of a block or page with this id, which lies there in the file."""
    mixed = (offset ^ bid) & 0xFFFFFFFF
    return (mixed >> 16 ^ mixed) & 0xFFFF
