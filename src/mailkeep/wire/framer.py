"""Cuts IMAP's bytes into commands before any grammar runs.

Knows line ends, literals and limits (RFC 9051 section 4.3, RFC 7888); knows nothing of verbs. A finished command is
one `bytes`: its text without the last line end, small literals inside it as on the wire (`{4}\\r\\nfred`), every line
end made CRLF. So the grammar needs one cursor over one string, and what it sees is bounded.

The hard idea: staying in step. A literal may be announced inside a command that we refuse. If the client waits for our
go-ahead (`{n}`), refusing means that its bytes never come. If it does not wait (`{n+}`), they are already under way:
they are swallowed with all that follows up to the end of that command. What cannot be swallowed within the limits
loses the stream for good: `Lost`.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from mailkeep.errors import PeerLimitError

LINE_MAX = 64 * 1024
LITERALS_MAX = 1000
INLINE_MAX = 1024 * 1024
SKIP_MAX = 64 * 1024 * 1024

# literal = "{" number64 ["+"] "}" ; literal8 = "~{" number64 ["+"] "}". Found at the end of a line only, where no
# quoted string can reach. More digits than number64 has are still an announcement, of more than we take.
_ANNOUNCED = re.compile(rb"(~?)\{([0-9]{1,40})(\+?)\}\Z")
_TAIL = 64  # longest announcement, for lines of which only the end is kept
_HEAD = 1024  # enough of a refused command to read its tag


@dataclass(frozen=True, slots=True)
class Announced:
    """A literal is announced. The framer stands still until `inline`, `stream` or `refuse`."""

    parts: tuple[bytes, ...]  # the command so far: texts and literals in turn; the last ends with the announcement
    size: int
    waits: bool  # the client sends nothing before our continuation


@dataclass(frozen=True, slots=True)
class Chunk:
    """Octets of a streamed literal."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """The streamed literal is complete, and so is the line after it: `tail` without its line end."""

    tail: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A refused command has passed by. `reason` is set when a limit of the framer's own refused it."""

    head: bytes  # its first octets
    reason: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream cannot be followed any more: close."""

    reason: str


Frame = bytes | Announced | Chunk | ChunkEnd | Skipped | Lost


class _State(Enum):
    LINE = auto()
    DECIDE = auto()  # announced, waiting for the caller
    INLINE = auto()  # collecting a small literal
    STREAM = auto()
    TAIL = auto()  # the line after a streamed literal
    SKIP_LITERAL = auto()
    SKIP_LINE = auto()
    LOST = auto()


class Framer:
    """Bytes in with `receive`, frames out with `next`, until it returns None.

    `line_max` bounds the text of a command, `inline_max` its literals together, `skip_max` what is swallowed of a
    refused command; all in octets, and all may be changed between commands.
    """

    __slots__ = (
        "_announced", "_data", "_head", "_inline_size", "_left", "_literal", "_literals", "_parts", "_pos",
        "_reason", "_scan", "_skip_left", "_state", "_text_size", "inline_max", "line_max", "raw", "skip_max",
    )  # fmt: skip

    def __init__(self, *, line_max: int = LINE_MAX, inline_max: int = INLINE_MAX, skip_max: int = SKIP_MAX) -> None:
        self.line_max = line_max
        self.skip_max = skip_max
        self.inline_max = inline_max
        self.raw = False  # the caller wants the next line as it is, by `next_line`
        self._data = b""
        self._pos = 0  # everything before is consumed
        self._scan = 0  # no line end between _pos and here: a slow sender must not cost quadratic time
        self._state = _State.LINE
        self._announced: Announced | None = None
        self._left = 0  # octets of the literal still to come
        self._literal = bytearray()  # those that came
        self._head = b""
        self._reason: str | None = None
        self._skip_left = 0
        self._parts: list[bytes] = []
        self._text_size = self._inline_size = self._literals = 0

    @property
    def buffered(self) -> int:
        """Octets received and not yet given out."""
        return len(self._data) - self._pos

    def receive(self, data: bytes) -> None:
        if self._state is _State.LOST:
            return
        if self._pos == len(self._data):
            self._data = data
            self._pos = self._scan = 0
        else:
            self._scan -= self._pos
            self._data = self._data[self._pos :] + data
            self._pos = 0

    def next(self) -> Frame | None:
        """The next frame, or None when more bytes (or a decision) are needed."""
        if self._state is not _State.LINE:
            return self._step()
        data = self._data
        end = data.find(b"\n", self._scan)
        if end < 0:
            return self._unfinished() if data else None
        pos = self._pos
        # A bare LF ends a line too: people type at a server, and scripts forget the CR.
        line = data[pos : end - 1] if end > pos and data[end - 1] == 13 else data[pos:end]
        self._pos = self._scan = end + 1
        if self._parts or len(line) > self.line_max or line.endswith(b"}"):
            return self._odd_line(line, pos)
        return line

    def next_whole(self) -> bytes | None:
        """The next frame if it is a command of one line; None: see what `next` says. For commands by the thousand."""
        data, pos = self._data, self._pos
        end = data.find(b"\n", self._scan)
        if end <= pos or end - pos > self.line_max or self.raw or self._parts or self._state is not _State.LINE:
            return None
        line = data[pos : end - 1] if data[end - 1] == 13 else data[pos:end]
        if line.endswith(b"}"):
            return None
        end += 1
        if end == len(data):  # nothing is left to look at: the next question is answered at once
            self._data, end = b"", 0
        self._pos = self._scan = end
        return line

    def next_line(self) -> bytes | Lost | None:
        """A line as it is: no literal is looked for (AUTHENTICATE, IDLE). Only between commands."""
        end = self._data.find(b"\n", self._scan)
        if (end if end >= 0 else len(self._data)) - self._pos > self.line_max + 1:
            return self._lose("Line too long")
        if end < 0:
            self._trim()
            self._scan = len(self._data)
            return None
        line = self._data[self._pos : end]
        self._pos = self._scan = end + 1
        return line.removesuffix(b"\r")

    # --- decisions after Announced ---

    def inline(self) -> None:
        """Take the announced literal into the command. Raises PeerLimitError; then `refuse`."""
        announced = self._decided()
        self._literals += 1
        self._inline_size += announced.size
        if self._literals > LITERALS_MAX:
            raise PeerLimitError("Too many literals")
        if self._inline_size > self.inline_max:
            raise PeerLimitError("Literal too large")
        self._left = announced.size
        self._state = _State.INLINE

    def stream(self) -> bool:
        """Give the announced literal out as Chunks, then ChunkEnd. True when the client waits for a continuation."""
        announced = self._decided()
        self._finish()
        self._left = announced.size
        self._state = _State.STREAM
        return announced.waits

    def refuse(self) -> bool:
        """Refuse the literal and its command. True: it is forgotten, since the client waits and will not send it.

        False: it is under way; it and the rest of its command are swallowed, then comes Skipped, or Lost if that is
        too much.
        """
        announced = self._decided()
        if announced.waits:
            self._finish()
        else:
            self._start_skip(announced.parts[0], None)
            self._skip_literal(announced.size)
        return announced.waits

    def _decided(self) -> Announced:
        assert self._state is _State.DECIDE and self._announced is not None
        return self._announced

    # --- inside ---

    def _finish(self) -> None:
        self._state = _State.LINE
        self._announced = None
        self._parts = []
        self._text_size = self._inline_size = self._literals = 0

    def _lose(self, reason: str) -> Lost:
        self._state = _State.LOST
        self._reason = reason
        self._data = b""
        self._pos = self._scan = 0
        return Lost(reason)

    def _odd_line(self, line: bytes, start: int) -> Frame | None:
        """A line with literals before it or after it, or too long a one; it began at `start`."""
        self._text_size += len(line)
        if self._text_size > self.line_max:
            self._start_skip(self._parts[0] if self._parts else line, "Command line too long")
            self._pos = self._scan = start
            return self._skip()
        match = _ANNOUNCED.search(line, max(len(line) - _TAIL, 0))
        if match is None:
            text = b"".join(self._parts) + line
            self._finish()
            return text
        parts = (*self._parts, line)
        self._parts.append(line + b"\r\n")
        self._announced = Announced(parts, int(match[2]), not match[3])
        self._state = _State.DECIDE
        return self._announced

    def _unfinished(self) -> Frame | None:
        self._trim()
        self._scan = len(self._data)
        if self._scan + self._text_size <= self.line_max + 1:  # + 1: a CR may be the last octet
            return None
        self._start_skip(self._parts[0] if self._parts else self._data, "Command line too long")
        return self._skip()

    def _trim(self) -> None:
        """Let go of what is consumed: an idle connection must not keep its last read, nor a password in it."""
        if self._pos:
            self._data = self._data[self._pos :]
            self._scan -= self._pos
            self._pos = 0

    def _step(self) -> Frame | None:
        state = self._state
        if state is _State.INLINE:
            if not self._collect():
                return None
            self._state = _State.LINE
            return self.next()
        if state is _State.STREAM:
            return self._chunk()
        if state is _State.TAIL:
            return self._tail()
        if state is _State.SKIP_LITERAL or state is _State.SKIP_LINE:
            return self._skip()
        return None

    def _take(self) -> bytes:
        """What is there of the literal, at most what is left of it."""
        data, pos = self._data, self._pos
        piece = data if pos == 0 and len(data) <= self._left else data[pos : pos + self._left]
        self._left -= len(piece)
        self._pos = self._scan = pos + len(piece)
        if self._pos == len(data):
            self._trim()
        return piece

    def _collect(self) -> bool:
        self._literal += self._take()
        if self._left:
            return False
        self._parts.append(bytes(self._literal))
        self._literal.clear()
        return True

    def _chunk(self) -> Frame | None:
        piece = self._take()
        if not self._left:
            self._state = _State.TAIL
        if piece:
            return Chunk(piece)
        return self._tail() if self._state is _State.TAIL else None

    def _tail(self) -> Frame | None:
        line = self.next_line()
        if not isinstance(line, bytes):
            return line
        match = _ANNOUNCED.search(line, max(len(line) - _TAIL, 0))
        self._finish()
        if match is not None and match[3]:
            # One literal too many, already under way: get past it, then say so.
            self._start_skip(line, "Unexpected literal")
            self._skip_literal(int(match[2]))
            return self._skip()
        return ChunkEnd(line)

    # --- getting past a refused command ---

    def _start_skip(self, head: bytes, reason: str | None) -> None:
        self._finish()
        self._head = head[: min(_HEAD, self.line_max)]
        self._reason = reason
        self._skip_left = self.skip_max
        self._state = _State.SKIP_LINE

    def _skip_literal(self, size: int) -> None:
        self._skip_left -= size
        self._left = size
        self._state = _State.SKIP_LITERAL

    def _skip(self) -> Frame | None:
        """Go on skipping. A loop: a line of `{0+}` after another must not recurse."""
        while True:
            if self._state is _State.SKIP_LITERAL:
                if self._skip_left < 0:
                    return self._lose("Literal too large")
                self._take()
                if self._left:
                    return None
                self._state = _State.SKIP_LINE
            end = self._skip_line()
            if self._skip_left < 0:
                return self._lose("Command line too long")
            if end is None:
                return None
            if not self._goes_on(end):
                self._finish()
                return Skipped(self._head, self._reason)

    def _skip_line(self) -> bytes | None:
        """The end of the line that is skipped; None when it has not come yet."""
        data, pos = self._data, self._pos
        end = data.find(b"\n", self._scan)
        if end < 0:
            self._skip_left -= max(len(data) - pos - _TAIL, 0)
            self._data = data[max(pos, len(data) - _TAIL) :]
            self._pos, self._scan = 0, len(self._data)
            return None
        self._skip_left -= end - pos
        self._pos = self._scan = end + 1
        return data[max(pos, end - _TAIL) : end].removesuffix(b"\r")

    def _goes_on(self, end: bytes) -> bool:
        """Whether a skipped line that ends so announces a literal that is under way."""
        match = _ANNOUNCED.search(end)
        if match is None or not match[3]:
            return False
        self._skip_literal(int(match[2]))
        return True
