"""POP3, the client's side (RFC 1939, 2449, 5034): commands as bytes, what the server says as events. Mirror of `pop3`.

Knows lines, multi-line responses and their byte-stuffing; does not know which command comes when, nor what to make of
a refusal. Replies come in the order of the commands, so commands may be sent ahead (PIPELINING): each `send` says what
kind of answer it awaits.

The hard idea is where a message ends. Whole slices are searched and unstuffed at once, never line by line; only the
few bytes that may be the beginning of an end are held back. What servers do wrong, and what is made of it:

| fault | seen with | what happens |
|---|---|---|
| lines end in LF | servers written as scripts | the status line's end tells; the message becomes CRLF |
| CRLF in replies, LF in messages | gateways that send files as they are | the message's first line tells; the same |
| a last line in LF, then `.` CRLF | the same, for mail from elsewhere | `lenient_end`, for a message tried once more |
| `.x` where `..x` should be | servers that never stuff | only `..` loses a dot, `.x` stays as it is |
| no final dot | servers that close after a message, or wait | `End(complete=False)`, `give_up` |
| `+ok`, `+OK` alone, blank lines between replies | various | taken for what they mean |
| junk in UIDL and LIST | various | that line is left out: `parse_uidl`, `parse_list` |

A bare LF in a message of CRLF lines is text: it begins no line and ends no message, as in `pop3`.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from mailkeep.errors import PeerLimitError, ProtocolError

LINE_MAX: Final = 16_384  # of a status line; RFC 2449 gives 512, a SASL challenge may have 12,288 (RFC 5034 section 4)
UIDL_MAX: Final = 1000  # RFC 1939 gives 70; what is longer is no identifier but junk
UIDL_LINE_MAX: Final = 2 * UIDL_MAX
CAPABILITIES_MAX: Final = 200

# What a command awaits.
SINGLE: Final = 0
MULTI: Final = 1
EXCHANGE: Final = 2  # AUTH: challenges may come before the reply

# "[" resp-level *("/" resp-level) "]" (RFC 2449 section 8)
_CODE: Final = re.compile(r"\[([A-Za-z][A-Za-z/-]{0,63})\] ?")
# The greeting's timestamp is a msg-id (RFC 1939 section 7); only what can be one is signed (CVE-2007-1558).
_TIMESTAMP: Final = re.compile(r"<[\x21-\x3b\x3d\x3f\x41-\x7e]{1,200}@[\x21-\x3b\x3d\x3f\x41-\x7e]{1,200}>")
_LIST_LINE: Final = re.compile(rb"^[ \t]*(\d{1,10})[ \t]+(\d{1,15})\b[^\n]*$", re.MULTILINE)
_LINE: Final = re.compile(rb"[^\n]+")
_UIDL_LINE: Final = re.compile(rb"[ \t]*(\d{1,10})[ \t]+([^ \t\r][^\r]*)")  # of a line with no blanks at its end
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_END_LF: Final = re.compile(rb"\n\.\r?\n")
_END_MIXED: Final = re.compile(rb"\n\.\r\n")
_DOT_AT_END: Final = re.compile(rb"(^|\r\n)\.\r?\Z")  # the beginning of an end, when nothing follows
_BEGINNINGS: Final = frozenset({b"\r", b"\r\n", b"\r\n.", b"\r\n.\r", b"\n", b"\n.", b"\n.\r"})
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status line. `code`: the extended response code, upper case without brackets, or ""."""

    ok: bool
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's part of a SASL exchange, decoded; answer with `respond`."""

    data: bytes = field(repr=False)


@dataclass(slots=True)  # not frozen: many a message, and freezing triples the cost
class Chunk:
    """A piece of a multi-line response, unstuffed. Pieces are cut anywhere."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """A multi-line response is over. `size`: bytes of all its chunks. Not `complete`: cut before its end."""

    complete: bool
    size: int


Event = Reply | Challenge | Chunk | End


class Pop3Client:
    """Feed `receive`, take events until None. The greeting is awaited from the start.

    `next_event` raises ProtocolError when the server cannot be understood; the connection is of no use after that.
    """

    __slots__ = (
        "_awaited",
        "_begun",
        "_buffer",
        "_dead",
        "_ended",
        "_given_up",
        "_last",
        "_multi",
        "_over",
        "_position",
        "_sized",
        "_style",
        "_unix",
        "lenient_end",
    )

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._awaited: deque[int] = deque([SINGLE])
        self._multi = False  # inside a multi-line response
        self._begun = False  # … and something of it was given out
        self._over = False  # … and all of it, but for the word that it is over
        self._sized = 0
        self._style: re.Pattern[bytes] | None = None  # how this response ends, where it is not CRLF "." CRLF
        self._unix: bool | None = None  # its lines end in LF; None: not seen yet
        self._last = b""
        self._ended = self._given_up = False
        self._dead: str | None = None
        self.lenient_end = False

    @property
    def buffered(self) -> int:
        """Bytes received and not yet turned into events. STLS demands 0."""
        return len(self._buffer) - self._position

    @property
    def awaited(self) -> int:
        """Commands sent whose answer has not begun."""
        return len(self._awaited)

    # ---- what we say

    def send(self, verb: str, *arguments: int | str | bytes, awaits: int = SINGLE) -> bytes:
        """The bytes of a command. Raises ProtocolError for an argument that would end the line."""
        words = [verb.encode()]
        for argument in arguments:
            word = argument if isinstance(argument, bytes) else str(argument).encode()
            if b"\r" in word or b"\n" in word or b"\0" in word:
                raise ProtocolError("A line end or NUL cannot be part of a POP3 command")
            words.append(word)
        self._awaited.append(awaits)
        return b" ".join(words) + b"\r\n"

    def send_auth(self, mechanism: str, initial: bytes | None) -> bytes:
        """AUTH (RFC 5034). `initial`: the first response when the mechanism begins with the client, else None.

        One too long for a line (255 octets, RFC 5034 section 4) must wait for the empty challenge: give None then.
        """
        arguments = [] if initial is None else [b64encode(initial) or b"="]
        return self.send("AUTH", mechanism, *arguments, awaits=EXCHANGE)

    def respond(self, data: bytes | None) -> bytes:
        """The answer to a challenge; None gives the exchange up."""
        return b"*\r\n" if data is None else b64encode(data) + b"\r\n"

    # ---- what the server says

    def receive(self, data: bytes | memoryview) -> None:
        self._buffer = self._buffer[self._position :] + data if self.buffered else bytes(data)
        self._position = 0

    def end(self) -> None:
        """The server closed the line: what has come of a multi-line response is given out, with `complete` False."""
        self._ended = True

    def give_up(self) -> None:
        """For a server that ends no message: the one that is coming ends here, not complete."""
        self._ended = self._given_up = True

    def next_event(self) -> Event | None:
        if self._dead is not None:
            raise ProtocolError(self._dead)
        try:
            return self._next_of_response() if self._multi else self._next_line()
        except ProtocolError as error:
            self._dead = error.text
            raise

    def _next_line(self) -> Event | None:
        while True:
            buffer, start = self._buffer, self._position
            end = buffer.find(b"\n", start, start + LINE_MAX + 1)
            if end < 0:
                if len(buffer) - start > LINE_MAX:
                    raise PeerLimitError("The server sent a line that is too long")
                return None
            self._position = end + 1
            unix = end == start or buffer[end - 1] != 13
            line = buffer[start : end if unix else end - 1]
            if line.strip():
                return self._parse_line(line, unix=unix)

    def _parse_line(self, line: bytes, *, unix: bool) -> Reply | Challenge:
        awaited = self._awaited[0] if self._awaited else None
        if awaited == EXCHANGE and line[:1] == b"+" and line[1:2] in (b" ", b""):
            try:
                return Challenge(b64decode(line[1:].strip(), validate=True))
            except ValueError:
                raise ProtocolError("The server's challenge is not base64") from None
        word = line[:4].upper()
        if line[:3].upper() == b"+OK" and line[3:4] in (b" ", b"\t", b""):
            ok, rest = True, line[3:]
        elif word == b"-ERR" and line[4:5] in (b" ", b"\t", b""):
            ok, rest = False, line[4:]
        else:
            raise ProtocolError("The server's answer is not POP3")
        text = rest.decode("utf-8", "replace").strip()
        if awaited is None:
            raise ProtocolError("The server spoke without being asked: " + _shown(text))
        self._awaited.popleft()
        if ok and awaited == MULTI:
            self._multi, self._begun, self._sized, self._last = True, False, 0, b""
            self._unix = True if unix else None
            self._style = _END_LF if unix or self.lenient_end else None
        code = _CODE.match(text)
        if code is not None:
            return Reply(ok, text[code.end() :], code[1].upper())
        return Reply(ok, text)

    # ---- multi-line responses

    def _next_of_response(self) -> Chunk | End | None:
        buffer, start = self._buffer, self._position
        if self._over:
            return self._finish(complete=True)
        if start == len(buffer):
            return self._finish(complete=False) if self._ended else None
        if not self._begun and buffer[start] == 46:  # "."
            if buffer.startswith(b".\r\n", start) or (self._style is _END_LF and buffer.startswith(b".\n", start)):
                self._position = start + (3 if buffer[start + 1] == 13 else 2)
                return self._finish(complete=True)
            if len(buffer) - start < 3 and not self._ended:
                return None
        if self._unix is None:
            self._look_at_first_line()
        if self._style is None:
            at = buffer.find(b"\r\n.\r\n", start)
            self._over, stop, after = at >= 0, at + 2, at + 5
        elif found := self._style.search(buffer, start):
            self._over, stop, after = True, found.start() + 1, found.end()
        if not self._over:
            stop = after = len(buffer) if self._ended else self._hold(start)
            if stop == start:
                return None
        self._position = after
        data = buffer[start:stop]
        if self._ended and not self._over:
            data = _DOT_AT_END.sub(rb"\1", data)
        return self._cut(data) if data else self._finish(complete=False)

    def _look_at_first_line(self) -> None:
        """LF or CRLF? The first line that this response brings tells."""
        end = self._buffer.find(b"\n", self._position)
        if end < 0:
            return
        before = self._buffer[end - 1 : end] if end > self._position else self._last
        self._unix = before != b"\r"
        if self._unix and self._style is None:
            self._style = _END_MIXED

    def _hold(self, start: int) -> int:
        """Up to where the buffer can be given out: what follows may be the beginning of an end or of a stuffed dot."""
        buffer, size = self._buffer, len(self._buffer)
        mark = b"\r" if self._style is None else b"\n"
        at = buffer.find(mark, max(start, size - 4))
        while at >= 0:
            if buffer[at:] in _BEGINNINGS:
                return at
            at = buffer.find(mark, at + 1)
        return size

    def _cut(self, data: bytes) -> Chunk:
        if not self._begun and data[:2] == b"..":
            data = data[1:]
        if b"\n.." in data:
            data = data.replace(b"\r\n..", b"\r\n.") if self._style is None else data.replace(b"\n..", b"\n.")
        last, self._last = self._last, data[-1:]
        if self._unix:
            split = last == b"\r" and data[:1] == b"\n"
            data = b"\n" + _BARE_LF.sub(b"\r\n", data[1:]) if split else _BARE_LF.sub(b"\r\n", data)
        self._begun = True
        self._sized += len(data)
        return Chunk(data)

    def _finish(self, *, complete: bool) -> End:
        self._multi = self._over = False
        if self._given_up:  # the line goes on
            self._ended = self._given_up = False
        return End(complete, self._sized)


# ---- what multi-line responses and texts mean


def parse_capabilities(data: bytes) -> dict[str, tuple[str, ...]]:
    """CAPA (RFC 2449 section 5): upper-case name → its arguments, as sent."""
    found: dict[str, tuple[str, ...]] = {}
    for line in data.decode("utf-8", "replace").splitlines()[:CAPABILITIES_MAX]:
        name, *arguments = line.split() or [""]
        if name:
            found[name.upper()] = (*found.get(name.upper(), ()), *arguments)
    return found


def parse_stat(text: str) -> tuple[int, int]:
    """The text of a reply to STAT → (messages, octets). Raises ProtocolError."""
    words = text.split()
    if len(words) < 2 or not all(word.isascii() and word.isdigit() and len(word) < 20 for word in words[:2]):
        raise ProtocolError("The server's answer to STAT has no two numbers")
    return int(words[0]), int(words[1])


def parse_list(data: bytes) -> dict[int, int]:
    """LIST → number → octets, as far as they are numbers. Of a number that comes twice, the first line counts."""
    found: dict[int, int] = {}
    for match in _LIST_LINE.finditer(data):
        found.setdefault(int(match[1]), int(match[2]))
    return found


def parse_uidl(data: bytes) -> dict[int, bytes]:
    """UIDL → number → identifier. Left out: lines without one, and identifiers with control characters or too long.

    More than RFC 1939 section 7 allows is taken (spaces, 8-bit): it only needs to stay the same. They may repeat.
    Line by line, each no longer than it can be: blanks may stand in many places, and a regex over all would try each.
    """
    found: dict[int, bytes] = {}
    for line in _LINE.finditer(data):
        if line.end() - line.start() > UIDL_LINE_MAX:
            continue
        match = _UIDL_LINE.fullmatch(line[0].removesuffix(b"\r").rstrip(b" \t"))
        if match is not None and len(match[2]) <= UIDL_MAX and not _CONTROL.search(match[2]):
            found.setdefault(int(match[1]), match[2])
    return found


def apop_digest(greeting: str, password: str) -> str | None:
    """The second argument of APOP (RFC 1939 section 7); None when the greeting offers none."""
    stamp = _TIMESTAMP.search(greeting)
    if stamp is None:
        return None
    return hashlib.md5((stamp[0] + password).encode(), usedforsecurity=False).hexdigest()


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:100])
