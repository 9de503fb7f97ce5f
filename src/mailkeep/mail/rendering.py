"""Messages hashed and rendered for another process: batches come in by one file, what came of it goes out by another.

Knows how both sides frame what they send, and nothing of processes or pipes: who starts a child to work here is
`store.renderer`. It imports next to nothing, so that the child is ready soon.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

import msgspec

from mailkeep.mail.structure import Rendered, render

READY: Final = b"R"
Answer = list[tuple[bytes, int, Rendered]]  # SHA-256, CRC-32, what render says
_LENGTH: Final = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


def send(out: IO[bytes], messages: Sequence[bytes]) -> None:
    """A batch, from the one who asks; in one write, as each would be another chance for other threads to take over."""
    lengths = struct.pack(f">Q{len(messages)}Q", len(messages), *map(len, messages))
    out.write(b"".join((lengths, *messages)))
    out.flush()


def receive(source: IO[bytes]) -> Answer:
    """The answer to a batch. Raises EOFError, msgspec.MsgspecError."""
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    return _decode(_exactly(source, length))


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data


def work(asked: IO[bytes], told: IO[bytes]) -> None:
    """Batch after batch, until nobody asks any more."""
    with suppress(EOFError, BrokenPipeError):
        told.write(READY)
        told.flush()
        while True:
            (count,) = _LENGTH.unpack(_exactly(asked, _LENGTH.size))
            sizes = struct.unpack(f">{count}Q", _exactly(asked, 8 * count))
            answer = []
            for size in sizes:
                data = _exactly(asked, size)
                answer.append((hashlib.sha256(data).digest(), zlib.crc32(data), render(data)))
            encoded = _encode(answer)
            told.write(_LENGTH.pack(len(encoded)) + encoded)
            told.flush()
