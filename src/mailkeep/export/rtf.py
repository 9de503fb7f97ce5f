"""Compressed RTF as Outlook keeps it ([MS-OXRTFCP]): unpacked only, for nothing here writes it.

A header of 16 bytes (compressed size, size, "LZFu" or "MELA", CRC), then runs of eight items, each run led by a byte of
flags: a literal, or two bytes that point into a ring of 4096 bytes. The ring begins with what every RTF begins like.
What the sender says of the size is not believed.
"""

from typing import Final

_START: Final = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par "
    b"\\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_HEADER: Final = 16
_RING: Final = 4096
_COMPRESSED: Final = b"LZFu"
_PLAIN: Final = b"MELA"


def decompress(data: bytes, *, size_max: int = 64 << 20) -> bytes:
    """The RTF. What is cut short gives what is there. Raises ValueError for other data and for more than `size_max`."""
    if len(data) < _HEADER:
        raise ValueError("too short for compressed rich text")
    kind = data[8:12]
    end = min(len(data), int.from_bytes(data[0:4], "little") + 4)
    if kind == _PLAIN:
        plain = data[_HEADER : _HEADER + int.from_bytes(data[4:8], "little")]
        if len(plain) > size_max:
            raise ValueError(f"rich text of more than {size_max >> 20} MiB")
        return plain
    if kind != _COMPRESSED:
        raise ValueError("not compressed rich text")
    return _unpacked(data, end, size_max)


def _unpacked(data: bytes, end: int, size_max: int) -> bytes:
    # Instead of a ring, all that came out stands behind the first text: a place in the ring is then a way back.
    out = bytearray(_START)
    at = _HEADER
    while at < end:
        flags = data[at]
        at += 1
        for bit in range(8):
            if at >= end:
                break
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 2 > end:
                at = end
                break
            offset = data[at] << 4 | data[at + 1] >> 4
            length = (data[at + 1] & 15) + 2
            at += 2
            back = (len(out) - offset) % _RING
            if back == 0:  # the place that is written next: the end
                return bytes(out[len(_START) :])
            _copy(out, back, length)
        if len(out) > size_max:
            raise ValueError(f"rich text of more than {size_max >> 20} MiB")
    return bytes(out[len(_START) :])


def _copy(out: bytearray, back: int, length: int) -> None:
    """Repeat what stands `back` bytes before the end; what is not written yet of it is what is written now."""
    start = len(out) - back
    if start < 0:  # a part of the ring that nothing was ever written to
        zeros = min(length, -start)
        out += bytes(zeros)
        start, length = 0, length - zeros
        if length <= 0:
            return
    piece = out[start : start + length]
    while len(piece) < length:
        piece += piece[: length - len(piece)]
    out += piece
