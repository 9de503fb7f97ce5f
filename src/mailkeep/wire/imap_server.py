"""The server's side of an IMAP connection: bytes in, events out (RFC 9051 section 2.2).

Sans-IO: the session feeds `receive`, takes `next_event` until None, and writes what it answers itself. Commands come
strictly in order, so the session stops taking events while a command runs. Knows grammar and limits, not states:
NOOP before log-in is an event like any other.

The hard idea is APPEND: its message is never held. `AppendStart` comes before any octet of it is asked for; after
`accept_append` the message flows as `AppendData`; then comes `AppendEnd`, or `Bad` when what followed spoils the
command, and the session throws away what it staged.
"""

from dataclasses import dataclass

from mailkeep.errors import ProtocolError
from mailkeep.wire import framer
from mailkeep.wire.framer import Announced, Chunk, ChunkEnd, Framer, Lost, Skipped
from mailkeep.wire.imap_command import Append, Command
from mailkeep.wire.imap_parse import parse, parse_append, read_tag
from mailkeep.wire.imap_syntax import CommandRefused

CONTINUE = b"+ OK\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets. `literal_max` bounds all literals of one command together, the message of APPEND apart."""

    line_max: int = framer.LINE_MAX
    literal_max: int = framer.INLINE_MAX
    append_max: int = 64 * 1024 * 1024


@dataclass(slots=True)  # not frozen: one a command, and freezing triples the cost
class CommandReceived:
    tag: bytes
    command: Command


@dataclass(frozen=True, slots=True)
class Continue:
    """Write this now: the client waits for it before it sends a literal."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AppendStart:
    """Decide: `accept_append` or `refuse_append`. No event comes before."""

    tag: bytes
    command: Append


@dataclass(frozen=True, slots=True)
class AppendData:
    data: bytes


@dataclass(frozen=True, slots=True)
class AppendEnd:
    """The command is complete: answer it."""


@dataclass(frozen=True, slots=True)
class Line:
    """The line that `expect_line` asked for, without its end."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Bad:
    """A command that cannot be executed; write `reply`. The stream is in step."""

    tag: bytes | None
    text: str
    code: str = ""  # with a code it was understood, and the answer is NO

    @property
    def reply(self) -> bytes:
        tag = self.tag or b"*"
        if self.code and self.tag:
            return b"%b NO [%b] %b\r\n" % (tag, self.code.encode("ascii"), self.text.encode("ascii"))
        return b"%b BAD %b\r\n" % (tag, self.text.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Fatal:
    """The stream cannot be followed any more: say `* BYE text` and close. No event follows."""

    text: str


Event = CommandReceived | Continue | AppendStart | AppendData | AppendEnd | Line | Bad | Fatal


class ImapServer:
    """One connection. `utf8` is set by the session once UTF8=ACCEPT or IMAP4rev2 is enabled."""

    __slots__ = ("_after_skip", "_append", "_append_nul", "_framer", "_limits", "next_whole", "receive", "utf8")

    def __init__(self, limits: Limits | None = None) -> None:
        self._framer = framer = Framer()
        # The framer's own, for commands by the thousand: bytes in; a command as it came, if it is one line (answer
        # it, or `read` it; None: see what `next_event` says).
        self.receive = framer.receive
        self.next_whole = framer.next_whole
        self.limits = limits or Limits()
        self.utf8 = False
        self._append: AppendStart | None = None  # announced, or flowing
        self._append_nul = False
        self._after_skip: Bad | None = None  # to be said once a refused command has passed by

    @property
    def limits(self) -> Limits:
        """May be set between commands: strangers get less than users."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._framer.line_max = limits.line_max
        self._framer.inline_max = limits.literal_max
        # Of what is refused we swallow what we would have taken, so that a refusal need not end the session.
        self._framer.skip_max = max(limits.append_max, 16 * limits.line_max)

    @property
    def buffered(self) -> int:
        """Octets received and not yet given out as events. Must be 0 for STARTTLS (RFC 9051 section 6.2.1)."""
        return self._framer.buffered

    def next_event(self) -> Event | None:
        """The next event; None when more octets are needed, or a decision on APPEND."""
        if self._framer.raw:
            return self._line()
        while True:
            frame = self._framer.next()
            if frame.__class__ is not bytes:
                if frame is None:
                    return None
                event = self._frame(frame)
                if event is None:
                    continue
                return event
            return self.read(frame)

    def read(self, text: bytes) -> "CommandReceived | Bad":
        """What a finished command says."""
        try:
            tag, command = parse(text, self.utf8)
        except ProtocolError as error:
            return _bad(read_tag(text), error)
        return CommandReceived(tag, command)

    def expect_line(self) -> None:
        """The next line is no command: a SASL response, or IDLE's DONE. It comes as `Line`."""
        self._framer.raw = True

    def accept_append(self) -> bytes:
        """Take the announced message. Returns what to write now: the continuation, or nothing if none is awaited."""
        assert self._append is not None
        waits = self._framer.stream()
        return CONTINUE if waits else b""

    def refuse_append(self) -> None:
        """Do not take it: the session answers the tag. Octets already under way are swallowed."""
        assert self._append is not None
        self._append = None
        self._framer.refuse()

    # --- inside ---

    def _line(self) -> Event | None:
        line = self._framer.next_line()
        if line is None:
            return None
        self._framer.raw = False
        return Line(line) if isinstance(line, bytes) else Fatal(line.reason)

    def _frame(self, frame: Announced | Chunk | ChunkEnd | Skipped | Lost | bytes) -> Event | None:
        """The event for a frame that is no finished command; None: look at the next frame."""
        if isinstance(frame, Announced):
            return self._announced(frame)
        if isinstance(frame, Chunk):
            if b"\0" in frame.data:
                self._append_nul = True
            return AppendData(frame.data)
        if isinstance(frame, ChunkEnd):
            return self._append_end(frame.tail)
        if isinstance(frame, Skipped):
            return self._skipped(frame)
        assert isinstance(frame, Lost)
        return Fatal(frame.reason)

    def _announced(self, announced: Announced) -> Event | None:
        try:
            head = parse_append(announced.parts, self.utf8)
            if head is None:
                self._framer.inline()
                return Continue(CONTINUE) if announced.waits else None
        except ProtocolError as error:
            return self._refuse(_bad(read_tag(announced.parts[0]), error))
        start = AppendStart(*head)
        if announced.size > self._limits.append_max:
            return self._refuse(Bad(start.tag, "Message is too large", "TOOBIG"))
        self._append = start
        self._append_nul = False
        return start

    def _refuse(self, bad: Bad) -> Bad | None:
        """Refuse the announced literal with its command: at once if the client waits, else when all has passed by."""
        if self._framer.refuse():
            return bad
        self._after_skip = bad
        return None

    def _skipped(self, frame: Skipped) -> Event | None:
        bad, self._after_skip = self._after_skip, None
        if frame.reason is None:
            return bad
        # Of a long line there is but the beginning; without a space it is no tag.
        tag = read_tag(frame.head) if b" " in frame.head else None
        if self._append is not None:
            tag = self._append.tag
        self._append = None
        return Bad(tag, frame.reason)

    def _append_end(self, tail: bytes) -> Event:
        assert self._append is not None
        start, self._append = self._append, None
        # What follows the message: nothing, or the parenthesis of UTF8 (…) (RFC 6855 section 4).
        if tail.strip(b" ") != (b")" if start.command.utf8 else b""):
            return Bad(start.tag, "Unexpected text after the message")
        if self._append_nul and not start.command.binary:
            return Bad(start.tag, "NUL octet in a literal; a literal8 may carry it")
        return AppendEnd()


def _bad(tag: bytes | None, error: ProtocolError) -> Bad:
    if isinstance(error, CommandRefused):
        return Bad(tag, error.text, error.code)
    return Bad(tag, error.text)
