"""POP3, the server's side (RFC 1939, 2449, 5034, 6856): bytes in, commands out; replies and multi-line bodies as bytes.

Knows lines, arguments and byte-stuffing; does not know which command is allowed when. Stuffing works on whole slices
of a message with one `replace`; a `Stuffer` remembers the two bytes before a slice, so that a line that begins on the
border is seen too. Only CRLF begins a line: a bare LF is message text.
"""

import re
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from mailkeep.errors import ProtocolError

# RFC 2449 section 4 gives 255 octets; UTF-8 passwords (RFC 6856) may be longer, and nothing needs more.
LINE_MAX: Final = 1024
SASL_LINE_MAX: Final = 12_288  # RFC 5034 section 4

# Verbs with a message number, and how many numbers there must and may be.
_NUMBERS: Final = {b"LIST": (0, 1), b"UIDL": (0, 1), b"RETR": (1, 1), b"DELE": (1, 1), b"TOP": (2, 2)}
_PLAIN: Final = {b"QUIT", b"STAT", b"NOOP", b"RSET", b"CAPA", b"STLS", b"UTF8"}
_DOT: Final = re.compile(rb"\n\.")
_TEXT: Final = {b"USER", b"PASS", b"APOP", b"LANG", b"AUTH"}


@dataclass(slots=True)  # not frozen: one a command, and freezing triples the cost
class Command:
    """`numbers` for LIST, UIDL, RETR, DELE, TOP; `text` for all others, everything after the first space."""

    verb: str  # upper case
    numbers: tuple[int, ...] = ()
    text: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Line:
    """The answer to a challenge, asked for by `expect_line`."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bad:
    """Not understood; the text is for an -ERR."""

    text: str


Event = Command | Line | Bad


class Pop3Server:
    """Feed `receive`, take events until None."""

    __slots__ = ("_buffer", "_line_wanted", "_position", "_skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._line_wanted = False
        self._skipping = False

    @property
    def buffered(self) -> int:
        """Bytes received and not yet turned into events. STLS demands 0."""
        return len(self._buffer) - self._position

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer[self._position :] + data if self.buffered else data
        self._position = 0

    def expect_line(self) -> None:
        self._line_wanted = True

    def next_event(self) -> Event | None:
        buffer, start = self._buffer, self._position
        if start == len(buffer):
            return None
        end = buffer.find(b"\n", start)
        if end < 0:
            if self._skipping or len(buffer) - start > self._limit(start):
                self._skipping = True
                self._position = len(buffer)
            return None
        self._position = end + 1
        if self._skipping or (end - start > LINE_MAX and end - start > self._limit(start)):
            self._skipping = self._line_wanted = False
            return Bad("Line too long")
        # A bare LF is taken as well: people type POP3 by hand, and no relay can be fooled by it.
        line = buffer[start : end - 1] if buffer[end - 1 : end] == b"\r" and end > start else buffer[start:end]
        if self._line_wanted:
            self._line_wanted = False
            return Line(line)
        return _parse(line)

    def _limit(self, start: int) -> int:
        sasl = self._line_wanted or self._buffer[start : start + 5].upper() == b"AUTH "
        return SASL_LINE_MAX if sasl else LINE_MAX


def _parse(line: bytes) -> Command | Bad:
    verb, _, rest = line.partition(b" ")
    verb = verb.upper()
    if b"\0" in line:
        return Bad("NUL is not allowed")
    if verb in _NUMBERS:
        if rest.isdigit() and len(rest) <= 10 and verb != b"TOP":  # nearly all
            return Command(verb.decode(), (int(rest),))
        words = rest.split()
        least, most = _NUMBERS[verb]
        if not least <= len(words) <= most or not all(word.isdigit() and len(word) <= 10 for word in words):
            return Bad("Bad arguments")
        return Command(verb.decode(), tuple(map(int, words)))
    if verb in _PLAIN:
        return Bad("No arguments allowed") if rest.strip() else Command(verb.decode())
    if verb in _TEXT:
        return Command(verb.decode(), text=rest)
    return Bad("Unknown command")


def parse_auth(text: bytes) -> tuple[str, bytes | None]:
    """`AUTH mechanism [initial-response]` → (upper-case name, decoded response). Raises ProtocolError."""
    words = text.split()
    if not 1 <= len(words) <= 2 or not words[0].isascii():
        raise ProtocolError("Syntax: AUTH mechanism [initial-response]")
    if len(words) == 1:
        return words[0].upper().decode(), None
    return words[0].upper().decode(), b"" if words[1] == b"=" else decode_response(words[1])


def decode_response(line: bytes) -> bytes:
    """base64 of a SASL response. Raises ProtocolError."""
    try:
        return b64decode(line, validate=True)
    except ValueError:
        raise ProtocolError("Bad base64") from None


def ok(text: str = "") -> bytes:
    return f"+OK {text}\r\n".encode() if text else b"+OK\r\n"


def err(text: str, code: str = "") -> bytes:
    """`code`: an extended response code (RFC 2449 section 8), e.g. IN-USE."""
    return f"-ERR [{code}] {text}\r\n".encode() if code else f"-ERR {text}\r\n".encode()


def multi_line(text: str, lines: Iterable[str]) -> bytes:
    """A short multi-line response of our own words, none of which begins with a dot."""
    return "".join((f"+OK {text}\r\n", *(f"{line}\r\n" for line in lines), ".\r\n")).encode()


class Stuffer:
    """Byte-stuffing over slices (RFC 1939 section 3). Concatenate all `add`s and `end`."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"  # what stands before the first byte is a line's end

    def add(self, data: bytes) -> bytes:
        tail = self._tail
        if len(data) >= 2:
            self._tail = data[-2:]
        else:
            self._tail = (tail + data)[-2:]
        if data[:1] in {b".", b"\n"}:  # only so can a CRLF "." lie across the border
            return (tail + data).replace(b"\r\n.", b"\r\n..")[len(tail) :]
        return data.replace(b"\r\n.", b"\r\n..")

    def end(self) -> bytes:
        """The closing line. A last line without CRLF gets one: a multi-line response cannot say otherwise."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


def stuffed(data: bytes) -> tuple[bytes, bytes]:
    """A whole message, and its closing line: apart, since few messages need a dot more, and then nothing is copied."""
    if data[:1] == b".":
        data = b"." + data
    if _DOT.search(data):  # a third faster than `replace` finds out that there is nothing to do
        data = data.replace(b"\r\n.", b"\r\n..")
    return data, b".\r\n" if data[-2:] == b"\r\n" or not data else b"\r\n.\r\n"
