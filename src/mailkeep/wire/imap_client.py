"""The client's side of an IMAP connection: bytes in, answers out; commands in, bytes out (RFC 9051 section 2.2)."""

from dataclasses import dataclass

from mailkeep.wire.imap_answer import Answer
from mailkeep.wire.imap_command import ClientCommand

INLINE_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class ToSend:
    """Write this now: the rest of a command whose literal the server has let in, and what waited behind it."""

    data: bytes


class ImapClient:
    """One connection. `literal_plus`, `literal_minus` and `utf8` are set by the session as the server allows."""

    __slots__ = ("append_waits", "inline_max", "literal_minus", "literal_plus", "tag", "utf8")

    def __init__(self, *, inline_max: int = INLINE_MAX) -> None:
        self.inline_max = inline_max
        self.literal_plus = False
        self.literal_minus = False
        self.utf8 = False
        self.tag = b""  # of the last command
        self.append_waits = False  # the message of the last `start_append` must wait for Continue

    @property
    def buffered(self) -> int:
        """Octets received and not yet given out. Must be 0 for STARTTLS and COMPRESS."""
        raise NotImplementedError

    def next_tag(self) -> bytes:
        """A fresh tag."""
        raise NotImplementedError

    def send(self, command: ClientCommand, tag: bytes | None = None) -> bytes:
        """What to write now (nothing while an earlier literal waits); the rest comes as ToSend. See `tag`."""
        raise NotImplementedError

    def start_append(
        self,
        mailbox: str,
        size: int,
        *,
        flags: tuple[str, ...] = (),
        internaldate: int | None = None,
        utf8: bool = False,
        tag: bytes | None = None,
    ) -> bytes:
        """The head of APPEND. If `append_waits`, the message goes after Continue (a NO ends it instead); else at once."""
        raise NotImplementedError

    def end_append(self) -> bytes:
        """What follows the message."""
        raise NotImplementedError

    def receive(self, data: bytes | memoryview) -> None:
        """Octets from the server."""
        raise NotImplementedError

    def next_event(self) -> Answer | ToSend | None:
        """The next answer; None when more octets are needed. Raises ProtocolError when the stream is out of step."""
        raise NotImplementedError
