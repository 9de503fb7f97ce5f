"""The framer alone: where commands end, and every limit."""

import sys

import pytest

from mailkeep.errors import PeerLimitError
from mailkeep.wire.framer import Announced, Chunk, ChunkEnd, Frame, Framer, Lost, Skipped
from tests.wire.feeding import pieces


def frames(chunks: list[bytes], framer: Framer, decide: str) -> list[Frame]:
    """All frames; every announced literal is decided alike. Chunks are joined."""
    seen: list[Frame] = []
    for chunk in chunks:
        framer.receive(chunk)
        while (frame := framer.next()) is not None:
            if isinstance(frame, Chunk) and seen and isinstance(seen[-1], Chunk):
                seen[-1] = Chunk(seen[-1].data + frame.data)
            else:
                seen.append(frame)
            if isinstance(frame, Announced):
                getattr(framer, decide)()
    return seen


def announced(size: int, *parts: bytes, waits: bool = False) -> Announced:
    return Announced(parts, size, waits)


CASES = [
    (b"a NOOP\r\n", "inline", [b"a NOOP"]),
    (b"a NOOP\n", "inline", [b"a NOOP"]),
    (b"a\r\n\r\nb\r\n", "inline", [b"a", b"", b"b"]),
    (b"a b\rc\r\n", "inline", [b"a b\rc"]),
    (b'a "x{3}"\r\nb\r\n', "inline", [b'a "x{3}"', b"b"]),
    (b"a {x}\r\nb {3} \r\n", "inline", [b"a {x}", b"b {3} "]),
    (b"a }\r\nb {}\r\nc {+}\r\n", "inline", [b"a }", b"b {}", b"c {+}"]),
    (b"a {3}\r\nx\r\n y\r\n", "inline", [announced(3, b"a {3}", waits=True), b"a {3}\r\nx\r\n y"]),
    (b"a {3+}\nx\r\n\n", "inline", [announced(3, b"a {3+}"), b"a {3+}\r\nx\r\n"]),
    (
        b"a {1+}\r\nx {0+}\r\n ~{2+}\r\n{1\r\n",
        "inline",
        [
            announced(1, b"a {1+}"),
            announced(0, b"a {1+}\r\n", b"x", b" {0+}"),
            announced(2, b"a {1+}\r\n", b"x", b" {0+}\r\n", b"", b" ~{2+}"),
            b"a {1+}\r\nx {0+}\r\n ~{2+}\r\n{1",
        ],
    ),
    (b"a {5+}\r\nb\r\nc\n)\r\n", "stream", [announced(5, b"a {5+}"), Chunk(b"b\r\nc\n"), ChunkEnd(b")")]),
    (b"a {0+}\r\n\r\nb\r\n", "stream", [announced(0, b"a {0+}"), ChunkEnd(b""), b"b"]),
    (b"a {1+}\r\nx {2}\r\nb\r\n", "stream", [announced(1, b"a {1+}"), Chunk(b"x"), ChunkEnd(b" {2}"), b"b"]),
    (
        b"a {1+}\r\nx {2+}\r\nyz\r\nb\r\n",
        "stream",
        [announced(1, b"a {1+}"), Chunk(b"x"), Skipped(b" {2+}", "Unexpected literal"), b"b"],
    ),
    (b"a {3}\r\nb\r\n", "refuse", [announced(3, b"a {3}", waits=True), b"b"]),
    (b"a {3+}\r\nb\r\nc {2+}\r\n\r\nd\r\ne\r\n", "refuse", [announced(3, b"a {3+}"), Skipped(b"a {3+}", None), b"e"]),
    (b"a {3+}\r\nxyz {9}\r\nb\r\n", "refuse", [announced(3, b"a {3+}"), Skipped(b"a {3+}", None), b"b"]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "decide", "expected"), CASES)
def test_cuts(data: bytes, decide: str, expected: list[Frame]) -> None:
    for name, chunks in pieces(data):
        assert frames(chunks, Framer(), decide) == expected, name
    assert frames([data + b"t x\r\n"], Framer(), decide) == [*expected, b"t x"]
    assert frames([data + b"t x"], Framer(), decide) == expected


LONG = "Command line too long"
LIMITED = [
    (b"a 345678\r\nb\r\n", [b"a 345678", b"b"]),
    (b"a 3456789\r\nb\r\n", [Skipped(b"a 345678", LONG), b"b"]),
    (b"a 34567 {1+}\r\nx{1+}\r\nyz\r\nb\r\n", [Skipped(b"a 34567 ", LONG), b"b"]),
    (b"a 34567 {1}\r\nb\r\n", [Skipped(b"a 34567 ", LONG), b"b"]),
    (b"a {2+}\r\nxxbc\r\nc\r\n", [announced(2, b"a {2+}"), b"a {2+}\r\nxxbc", b"c"]),
    (b"a {2+}\r\nxxbcd\r\nc\r\n", [announced(2, b"a {2+}"), Skipped(b"a {2+}\r\n", LONG), b"c"]),
    (b"a {2+}\r\nxx b{0+}\r\nd\r\nc\r\n", [announced(2, b"a {2+}"), Skipped(b"a {2+}\r\n", LONG), b"c"]),
    (b"a" * 99 + b"\r\nb\r\n", [Skipped(b"a" * 8, LONG), b"b"]),
    (b"a" * 299 + b" {101+}\r\n", [Lost("Command line too long")]),
    (b"a 34567 {101+}\r\n", [Lost("Literal too large")]),
    (b"a 34567 {" + b"9" * 40 + b"+}\r\n", [Lost("Literal too large")]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), LIMITED)
def test_limits(data: bytes, expected: list[Frame]) -> None:
    for name, chunks in pieces(data):
        seen = frames(chunks, Framer(line_max=8, skip_max=100), "inline")
        assert seen == expected, name


def test_an_endless_line_is_not_kept() -> None:
    framer = Framer(line_max=100, skip_max=10**9)
    for _ in range(1000):
        framer.receive(b"x" * 1000)
        assert framer.next() is None
        assert framer.buffered <= 100


def test_literals_of_one_command_are_bounded_together() -> None:
    framer = Framer(inline_max=10)
    framer.receive(b"a {8+}\r\n12345678 {2+}\r\n12 {1+}\r\n1\r\nb\r\n")
    framer.next()
    framer.inline()
    framer.next()
    framer.inline()
    assert isinstance(framer.next(), Announced)
    with pytest.raises(PeerLimitError):
        framer.inline()
    assert framer.refuse() is False
    assert framer.next() == Skipped(b"a {8+}\r\n", None)
    assert framer.next() == b"b"


def test_the_number_of_literals_is_bounded() -> None:
    framer = Framer()
    framer.receive(b"a " + b"{0+}\r\n" * 2000 + b"\r\nb\r\n")
    count = 0
    with pytest.raises(PeerLimitError):
        while isinstance(framer.next(), Announced):
            framer.inline()
            count += 1
    assert count == 1000
    framer.refuse()
    assert isinstance(framer.next(), Skipped)
    assert framer.next() == b"b"


def test_nothing_comes_while_a_literal_is_undecided() -> None:
    framer = Framer()
    framer.receive(b"a {1+}\r\nx\r\nb\r\n")
    assert isinstance(framer.next(), Announced)
    assert framer.next() is None
    framer.receive(b"c\r\n")
    assert framer.next() is None
    framer.inline()
    assert [framer.next() for _ in range(4)] == [b"a {1+}\r\nx", b"b", b"c", None]


def test_nothing_is_kept_after_the_stream_is_lost() -> None:
    framer = Framer(skip_max=10)
    framer.receive(b"a {11+}\r\n")
    framer.next()
    framer.refuse()
    assert framer.next() == Lost("Literal too large")
    framer.receive(b"b\r\n" * 1000)
    assert framer.next() is None
    assert framer.buffered == 0


def test_what_is_consumed_is_let_go() -> None:
    framer = Framer()
    block = b"a LOGIN fred secret\r\n" * 3000
    for step in (framer.next, framer.next_line):
        framer.receive(block + b"b")
        while step() is not None:
            pass
        assert sys.getsizeof(framer._data) < 100
        framer.receive(b"\r\n")
        assert step() == b"b"


def test_raw_lines() -> None:
    framer = Framer(line_max=10)
    framer.receive(b"DONE {3+}\r\nx\n")
    assert [framer.next_line() for _ in range(3)] == [b"DONE {3+}", b"x", None]
    framer.receive(b"01234567890\r\n")
    assert framer.next_line() == Lost("Line too long")
