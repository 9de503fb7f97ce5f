"""The client's side of an IMAP connection: bytes in, answers out; commands in, bytes out (RFC 9051 section 2.2).

Sans-IO, the mirror of imap_server: the session writes what `send` returns, feeds `receive`, and takes `next_event`
until None. Knows grammar, literals and limits; which answer belongs to which command, and what it means, is the
session's business.

Two hard ideas. First, cutting an answer out of the stream, in time linear in its size however small the pieces: a
literal is waited for, not looked through; octets that hold no line end are put aside unjoined; of a long answer the
part already looked at is moved away. A body over `inline_max` is never held: it goes by as BodyChunks. Second, commands
with literals that wait for the server's `+`: what is sent behind one is kept back, and comes out of `next_event` as
ToSend once the server has let the literal in, or has refused its command.

What cannot be read between `*` and the line's end is Unknown. A line that is no answer at all means that we are no
longer in step: what then looks like an answer may be somebody's mail, so that is a ProtocolError, for good.
"""

import re
from collections import deque
from dataclasses import dataclass

from mailkeep.errors import PeerLimitError, ProtocolError
from mailkeep.mail.ids import UID_MAX
from mailkeep.wire.imap_answer import Answer, BodyChunk, BodyStart, Continue, Fetched, Status, Unknown
from mailkeep.wire.imap_answer_fetch import (
    BODY_HEAD,
    FETCH_HEAD,
    FLAGS_LINE,
    STREAMED_TOKEN,
    fetch_head,
    flag_names,
    parse_body,
    parse_fetch,
)
from mailkeep.wire.imap_answer_parse import TEXTUAL, UNKNOWN_MAX, parse_answer
from mailkeep.wire.imap_command import Append, ClientCommand
from mailkeep.wire.imap_format import format_command

INLINE_MAX = 1 << 20
ANSWER_MAX = 64 << 20  # octets: SEARCH in a mailbox of six million messages
LITERAL_MINUS_MAX = 4096  # RFC 7888 section 5
_MOVED_MIN = 64 << 10  # octets: what is less is joined again rather than moved

# literal = "{" number64 ["+"] "}" ; literal8 = "~{" … ; at the end of a line, behind one of these on the same line
_ANNOUNCED = re.compile(rb"[ ()\]>](~?\{([0-9]{1,40})\+?\})\Z")
_ANNOUNCED_MAX = 48  # octets
_NON_SYNC = re.compile(rb"\{([0-9]+)\+\}\r\n")


@dataclass(frozen=True, slots=True)
class ToSend:
    """Write this now: the rest of a command whose literal the server has let in, and what waited behind it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a command."""

    tag: bytes
    data: bytes
    waits: bool  # the server must say + before anything else is written


class ImapClient:
    """One connection. `literal_plus`, `literal_minus` and `utf8` are set by the session as the server allows.

    `inline_max`: octets of a body that come in one piece; `answer_max`: of any whole answer, streamed bodies apart.
    """

    __slots__ = (
        "_append", "_append_tail", "_data", "_has_end", "_lost", "_moved", "_moved_size", "_number", "_pieces",
        "_pos", "_queue", "_scan", "_stream_left", "_to_send", "_waiting", "answer_max",
        "append_waits", "inline_max", "literal_minus", "literal_plus", "tag", "utf8",
    )  # fmt: skip

    def __init__(self, *, inline_max: int = INLINE_MAX, answer_max: int = ANSWER_MAX) -> None:
        self.inline_max = inline_max
        self.answer_max = answer_max
        self.literal_plus = False
        self.literal_minus = False
        self.utf8 = False
        self.tag = b""  # of the last command
        self.append_waits = False  # the message of the last `start_append` must wait for Continue
        # outwards
        self._number = 0
        self._queue: deque[_Piece] = deque()
        self._waiting: bytes | None = None  # the tag of the command whose literal waits for +
        self._append: bytes | None = None  # the tag of an APPEND between start and end
        self._append_tail = b""
        self._to_send = b""
        # inwards
        self._data = b""
        self._pos = 0  # where the answer begins, or what of it is not moved
        self._scan = 0  # where its next line begins; past the end of _data while a literal arrives
        self._pieces = bytearray()  # received behind _data, not joined yet
        self._has_end = False  # there is a line end in one of them
        self._moved: list[bytes] = []  # the beginning of a long answer
        self._moved_size = 0
        self._stream_left = 0  # octets of a streamed literal still to come
        self._lost = ""

    # --- outwards ---

    def next_tag(self) -> bytes:
        """A fresh tag."""
        self._number += 1
        return b"A%d" % self._number

    def send(self, command: ClientCommand, tag: bytes | None = None) -> bytes:
        """What to write now (nothing while an earlier literal waits); the rest comes as ToSend. See `tag`."""
        self.tag = tag = tag or self.next_tag()
        line = format_command(tag, command, utf8=self.utf8)
        if b"+}\r\n" not in line and self._waiting is None and self._append is None:
            return line
        self._queue += self._split(tag, line)
        return self._flush()

    def start_append(
        self,
        mailbox: str,
        size: int,
        *,
        flags: tuple[str, ...] = (),
        internaldate: int | None = None,
        utf8: bool = False,
        binary: bool = False,
        tag: bytes | None = None,
    ) -> bytes:
        """The head of APPEND. If `append_waits`, the message goes after Continue (a NO ends it instead), else now.

        Commands sent before `end_append` are kept back until then. `utf8`: the message has UTF-8 headers and the
        server takes them (RFC 6855); `binary`: it has NULs and the server takes those (RFC 3516).
        """
        assert self._append is None, "one APPEND at a time"
        self.tag = tag = tag or self.next_tag()
        held = self._waiting is not None
        head = format_command(
            tag, Append(mailbox, flags, internaldate, size, utf8=utf8, binary=binary or utf8), utf8=self.utf8
        )
        pieces = self._split(tag, head)
        last = pieces[-1]
        if not last.waits and (held or len(pieces) > 1):
            # The message would have to be written before its head: let the server say when.
            pieces[-1] = _Piece(tag, last.data.removesuffix(b"+}\r\n") + b"}\r\n", waits=True)
        self.append_waits = pieces[-1].waits
        self._append_tail = b")\r\n" if utf8 else b"\r\n"
        self._queue += pieces
        self._append = tag
        return self._flush()

    def end_append(self) -> bytes:
        """What follows the message, and what was kept back meanwhile."""
        assert self._append is not None
        self._append = None
        return self._append_tail + self._flush()

    @property
    def appending(self) -> bool:
        """Between `start_append` and `end_append`; False too when the server refused the message unseen."""
        return self._append is not None

    def _split(self, tag: bytes, line: bytes) -> list[_Piece]:
        """A command cut behind each literal's announcement that must wait, rewritten as one that does."""
        most = (1 << 63) if self.literal_plus else LITERAL_MINUS_MAX if self.literal_minus else -1
        pieces: list[_Piece] = []
        start = pos = 0
        # A quoted string holds no line end, so outside of a literal's octets this is always an announcement.
        while (match := _NON_SYNC.search(line, pos)) is not None:
            size = int(match[1])
            if size > most:
                pieces.append(_Piece(tag, line[start : match.end(1)] + b"}\r\n", waits=True))
                start = match.end()
            pos = match.end() + size
        if start < len(line):
            pieces.append(_Piece(tag, line[start:], waits=False))
        return pieces

    def _flush(self) -> bytes:
        """What of the queue may be written."""
        out = []
        while self._queue and self._waiting is None and (self._append is None or self._head_is_queued()):
            piece = self._queue.popleft()
            out.append(piece.data)
            if piece.waits:
                self._waiting = piece.tag
        return b"".join(out)

    def _head_is_queued(self) -> bool:
        """Whether some of the APPEND's own head is still to be written."""
        return any(piece.tag == self._append for piece in self._queue)

    def _let_in(self, answer: Continue) -> Answer | ToSend:
        """`+`: for a literal of ours, or for the session."""
        if self._waiting is None:
            return answer
        tag, self._waiting = self._waiting, None
        if tag == self._append and not self._head_is_queued():
            return answer  # the message itself is wanted
        data = self._flush()
        return ToSend(data) if data else answer

    def _answered(self, status: Status) -> None:
        """A tagged answer: the end of a command, perhaps before its literal was let in."""
        if status.tag != self._waiting:
            return
        self._waiting = None
        self._queue = deque(piece for piece in self._queue if piece.tag != status.tag)
        if self._append == status.tag:
            self._append = None
        self._to_send = self._flush()

    # --- inwards ---

    @property
    def buffered(self) -> int:
        """Octets received and not yet given out. Must be 0 for STARTTLS and COMPRESS (RFC 9051 section 6.2.1)."""
        return self._moved_size + len(self._data) - self._pos + len(self._pieces)

    def receive(self, data: bytes | memoryview) -> None:
        """Octets from the server."""
        if self._lost:
            return
        if not isinstance(data, bytes):
            data = bytes(data)
        if self._pos == len(self._data) and not self._pieces:
            self._scan -= self._pos
            self._pos = 0
            self._data = data
        else:
            self._pieces += data
            self._has_end = self._has_end or b"\n" in data

    def next_event(self) -> Answer | ToSend | None:
        """The next answer; None when more octets are needed. Raises ProtocolError when the stream is out of step."""
        data, pos = self._data, self._pos
        if pos == self._scan and not self._stream_left:
            match = FLAGS_LINE.match(data, pos)
            if match is not None and not self._moved and not self._to_send:
                self._pos = self._scan = match.end()
                seq, uid, flags, uid_behind, modseq = match.groups()
                number = int(uid or uid_behind or 0)
                return Fetched(
                    int(seq),
                    number if 0 < number <= UID_MAX else None,
                    flag_names(flags),
                    None if modseq is None else int(modseq),
                )
        if self._lost:
            raise ProtocolError(self._lost)
        if self._to_send:
            out, self._to_send = self._to_send, b""
            return ToSend(out)
        if self._stream_left:
            return self._chunk()
        try:
            return self._next()
        except ProtocolError as error:
            self._lost = error.text
            self._data, self._pos, self._scan = b"", 0, 0
            self._moved, self._moved_size = [], 0
            self._pieces, self._has_end = bytearray(), False
            raise

    def _next(self) -> Answer | ToSend | None:
        while True:
            if self._pieces and not self._join():
                return None
            data, scan = self._data, self._scan
            if not self._moved:
                head = BODY_HEAD.match(data, self._pos)
                if head is not None and (after := head.end() + int(head[8]) + 3) <= len(data):
                    stop = after - 3
                    if data.startswith(b")\r\n", stop) and stop - head.end() <= self.inline_max:
                        self._pos = self._scan = after
                        if after == len(data):
                            self._data, self._pos, self._scan = b"", 0, 0
                        return parse_body(head, data, head.end(), stop)
            end = data.find(b"\n", scan) if scan <= len(data) else -1
            if end < 0:
                self._unfinished()
                return None
            stop = end - 1 if end > scan and data[end - 1] == 13 else end
            if stop > scan and data[stop - 1] == 125:  # "}"
                match = _ANNOUNCED.search(data, max(scan, stop - _ANNOUNCED_MAX), stop)
                if match is not None and not self._is_words(stop):
                    started = self._literal(match, end + 1)
                    if started is not None:
                        return started
                    continue
            start = self._pos
            self._pos = self._scan = end + 1
            if self._moved:
                text = b"".join((*self._moved, data[start:stop]))
                self._moved, self._moved_size = [], 0
                answer = self._read(text, 0, len(text))
            elif start == stop:  # an empty line between answers, from servers that count a literal short by it
                continue
            else:
                answer = self._read(data, start, stop)
            if self._pos == len(data):
                self._data, self._pos, self._scan = b"", 0, 0
            return answer

    def _is_words(self, stop: int) -> bool:
        """Whether the answer ends in words for people, in which braces announce nothing."""
        match = TEXTUAL.match(self._moved[0]) if self._moved else TEXTUAL.match(self._data, self._pos, stop)
        return match is not None

    def _join(self) -> bool:
        """Whether there is anything new to look at: a whole literal, a line end."""
        size = len(self._data) + len(self._pieces)
        if size < self._scan or not (self._has_end or self._scan > len(self._data)):
            self._check_size(size - self._pos)
            return False
        self._data = self._data[self._pos :] + self._pieces
        self._scan -= self._pos
        self._pos = 0
        self._pieces = bytearray()
        self._has_end = False
        return True

    def _check_size(self, size: int) -> None:
        if self._moved_size + size > self.answer_max:
            raise PeerLimitError("The server's answer is too long")

    def _unfinished(self) -> None:
        size = len(self._data) - self._pos
        self._check_size(max(size, self._scan - self._pos))
        looked_at = self._scan - self._pos
        if _MOVED_MIN < looked_at <= size:
            self._moved.append(self._data[self._pos : self._scan])
            self._moved_size += looked_at
            self._data, self._pos, self._scan = self._data[self._scan :], 0, 0

    def _literal(self, match: re.Match[bytes], after: int) -> BodyStart | None:
        """A literal is announced; its octets begin at `after`. None: it stays in its answer."""
        size = int(match[2])
        if size > self.inline_max:
            text = b"".join((*self._moved, self._data[self._pos : match.start(1)]))
            head = fetch_head(text)
            if head is not None:
                self._moved = [text + STREAMED_TOKEN]
                self._moved_size = len(self._moved[0])
                self._check_size(0)
                self._pos = self._scan = after
                self._stream_left = size
                return BodyStart(head[0], size, head[1])
        self._check_size(after + size - self._pos)
        self._scan = after + size
        return None

    def _chunk(self) -> BodyChunk | None:
        if self._pos == len(self._data) and self._pieces:
            self._data = bytes(self._pieces)
            self._pos = self._scan = 0
            self._pieces, self._has_end = bytearray(), False
        data, pos = self._data, self._pos
        piece = data if pos == 0 and len(data) <= self._stream_left else data[pos : pos + self._stream_left]
        if not piece:
            return None
        self._stream_left -= len(piece)
        self._pos = self._scan = pos + len(piece)
        if self._pos == len(data):
            self._data, self._pos, self._scan = b"", 0, 0
        return BodyChunk(piece)

    def _read(self, data: bytes, start: int, stop: int) -> Answer | ToSend:
        """The answer in data[start:stop]."""
        untagged = data[start] == 42  # "*"
        try:
            if untagged and FETCH_HEAD.match(data, start, stop):
                return parse_fetch(data, start, stop)
            answer = parse_answer(data[start:stop], self.utf8)
        except ProtocolError as error:
            if not untagged:
                raise ProtocolError("The server is out of step") from None
            return Unknown(data[start : min(stop, start + UNKNOWN_MAX)], error.text)
        if isinstance(answer, Continue):
            return self._let_in(answer)
        if isinstance(answer, Status) and not untagged:
            self._answered(answer)
        return answer
