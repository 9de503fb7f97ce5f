"""The server's side of LMTP (RFC 2033), and of SMTP (RFC 5321) when that comes: bytes in, events out.

Knows how commands, messages and chunks are cut and what a command says; does not know who may send what to whom, nor
which command may follow which: the session knows that, for it depends on the answers. Replies are formatted here.

The one hard idea is where a message ends. Only CRLF "." CRLF ends DATA (RFC 5321 section 4.1.1.4): a server that also
takes a bare LF on either side lets a sender smuggle a second message past a relay that does not. So message bytes are
never cut into lines; the terminator is searched for as a whole, dot-unstuffing is one `replace` that needs the CRLF
too, and bare CR, LF and NUL pass through as they came.
"""

import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Final

from mailkeep.errors import ProtocolError

# RFC 5321 section 4.5.3.1.4 gives 512 with extensions adding to it; SMTPUTF8, long VERP senders and a base64 initial
# response of AUTH (RFC 4954 section 4: 12,288) ask for more.
LINE_MAX: Final = 2048
AUTH_LINE_MAX: Final = 12_288

_END: Final = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """`250 2.1.0 Ok`; several lines of text are sent as a multi-line reply."""

    code: int
    enhanced: str  # RFC 3463; "" where RFC 2034 has none
    text: str | tuple[str, ...]

    def encode(self) -> bytes:
        lines = (self.text,) if isinstance(self.text, str) else self.text
        prefix = f"{self.enhanced} " if self.enhanced else ""
        head = "".join(f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1])
        return f"{head}{self.code} {prefix}{lines[-1]}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Hello:
    verb: str  # LHLO, EHLO, HELO
    domain: str


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM."""

    sender: bytes  # as between the angle brackets, source route removed; b"" for <>
    size: int | None = None  # RFC 1870
    body: str = "7BIT"  # 7BIT, 8BITMIME (RFC 6152), BINARYMIME (RFC 3030)
    smtputf8: bool = False  # RFC 6531


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO. The local part without its quoting; no domain for `<Postmaster>` and local names."""

    local: str
    domain: str | None

    @property
    def address(self) -> str:
        return self.local if self.domain is None else f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Data:
    """Answer, and call `expect_data` when the answer is 354."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT: `size` bytes follow as Content, whatever the answer will be (RFC 3030 section 2)."""

    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Content:
    """Message bytes, dots removed. `end`: this message, or this chunk, is complete."""

    data: bytes = field(repr=False)
    end: bool


@dataclass(frozen=True, slots=True)
class Rset:
    pass


@dataclass(frozen=True, slots=True)
class Noop:
    pass


@dataclass(frozen=True, slots=True)
class Quit:
    pass


@dataclass(frozen=True, slots=True)
class Vrfy:
    name: str


@dataclass(frozen=True, slots=True)
class Help:
    pass


@dataclass(frozen=True, slots=True)
class StartTls:
    pass


@dataclass(frozen=True, slots=True)
class Auth:
    mechanism: str  # upper case
    initial: bytes | None = field(repr=False)  # decoded; b"" for "="


@dataclass(frozen=True, slots=True)
class Line:
    """The raw line asked for by `expect_line`."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bad:
    """The peer's line is not understood; this is the answer."""

    reply: Reply


Event = Hello | Mail | Rcpt | Data | Chunk | Content | Rset | Noop | Quit | Vrfy | Help | StartTls | Auth | Line | Bad


class SmtpServer:
    """Feed `receive`, take events until None. One event at a time: a session that waits stops asking."""

    __slots__ = ("_buffer", "_chunk_left", "_first", "_in_data", "_line_wanted", "_position", "_skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._in_data = False
        self._first = False  # the buffer begins with a CRLF of ours, so that a dot in the first line is one like all
        self._chunk_left = -1  # bytes of the running BDAT; -1: none
        self._line_wanted = False
        self._skipping = False  # inside a line that was too long

    @property
    def buffered(self) -> int:
        """Bytes received and not yet turned into events. STARTTLS demands 0."""
        return len(self._buffer) - self._position

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer[self._position :] + data if self.buffered else data
        self._position = 0

    def expect_data(self) -> None:
        """354 is being sent: what follows is a message."""
        self._in_data = True
        self._buffer = b"\r\n" + self._buffer[self._position :]
        self._position = 0
        self._first = True

    def expect_line(self) -> None:
        """The next line is an answer to a challenge."""
        self._line_wanted = True

    def next_event(self) -> Event | None:
        if self._in_data:
            return self._content()
        if self._chunk_left >= 0:
            return self._chunk_content()
        return self._command()

    # --- messages ---

    def _content(self) -> Content | None:
        buffer, start = self._buffer, self._position
        end = buffer.find(_END, start)
        if end >= 0:
            self._in_data = False
            self._position = end + len(_END)
            stop = end + 2  # the last line's CRLF belongs to the message
        else:
            stop = self._position = len(buffer) - _held_back(buffer)
        data = buffer[start:stop].replace(b"\r\n.", b"\r\n")
        if self._first and len(data) >= 2:
            data = data[2:]
            self._first = False
        if end < 0:
            return Content(data, end=False) if data else None
        self._first = False
        return Content(data, end=True)

    def _chunk_content(self) -> Content | None:
        data = self._buffer[self._position : self._position + self._chunk_left]
        if not data and self._chunk_left:
            return None
        self._position += len(data)
        self._chunk_left -= len(data)
        if self._chunk_left:
            return Content(data, end=False)
        self._chunk_left = -1
        return Content(data, end=True)

    # --- commands ---

    def _command(self) -> Event | None:
        line = self._line()
        if line is None:
            return None
        if isinstance(line, Bad):
            self._line_wanted = False
            return line
        if self._line_wanted:
            self._line_wanted = False
            return Line(line)
        try:
            event = _parse(line)
        except ProtocolError as error:
            return Bad(Reply(501, "5.5.4", error.text))
        if isinstance(event, Chunk):
            self._chunk_left = event.size
        return event

    def _line(self) -> bytes | Bad | None:
        """The next line without its CRLF; None when it is not there yet."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", start)
        limit = AUTH_LINE_MAX if self._line_wanted or buffer[start : start + 5].upper() == b"AUTH " else LINE_MAX
        if end < 0:
            if self._skipping or len(buffer) - start > limit:
                self._skipping = True
                self._position = len(buffer)
            return None
        self._position = end + 1
        if self._skipping or end - start > limit:
            self._skipping = False
            return Bad(Reply(500, "5.5.6", "Line too long"))
        if end == start or buffer[end - 1] != 0x0D:
            # Accepting it would mean another idea of lines than the relay before us has: the door to smuggling.
            return Bad(Reply(500, "5.5.2", "Lines end with CRLF"))
        return buffer[start : end - 1]


def _held_back(buffer: bytes) -> int:
    """How many bytes at the end may be the beginning of the terminator."""
    for length in (4, 3, 2, 1):
        if buffer.endswith(_END[:length]):
            return length
    return 0


# --- the grammar of commands (RFC 5321 section 4.1.2), widened where real clients are wider ---

# Reverse-path = "<" [ A-d-l ":" ] Mailbox ">" / "<>"; A-d-l is obsolete and ignored (appendix C).
# Local-part = Dot-string / Quoted-string. Wider: dots anywhere (docomo.ne.jp), no domain (local names, Postmaster), a
# space after the colon (old Exchange, hand-written scripts).
_PATH = re.compile(
    rb" *<(?:@[^:<>\"\x00-\x20]*:)?"
    rb"(?P<mailbox>(?P<local>\"(?:[^\"\\\x00-\x1f\x7f]|\\[ -~])*\"|[^\x00-\x20\x7f()<>@,;:\\\"\[\]]+)"
    rb"(?:@(?P<domain>[A-Za-z0-9._\x80-\xff-]+|\[[A-Za-z0-9.:-]+\]))?)?>"
    rb"(?P<parameters>(?: +[^ ]+)*) *"
)
# esmtp-param = esmtp-keyword ["=" esmtp-value]
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")
# Domain / address-literal, widened by the underscore that hosts in the wild have.
_DOMAIN = re.compile(rb"[A-Za-z0-9._:\x80-\xff-]{1,255}|\[[A-Za-z0-9.:-]{1,255}\]")
_BDAT = re.compile(rb" *([0-9]{1,19})( +LAST)? *", re.IGNORECASE)
_BODIES = {b"7BIT", b"8BITMIME", b"BINARYMIME"}

_BARE: Final[dict[bytes, Event]] = {
    b"DATA": Data(),
    b"RSET": Rset(),
    b"QUIT": Quit(),
    b"STARTTLS": StartTls(),
}


def _parse(line: bytes) -> Event:
    """One command line. Raises ProtocolError for bad arguments (501); unknown verbs are a Bad."""
    verb, _, rest = line.partition(b" ")
    verb = verb.upper()
    if verb == b"MAIL" and rest[:5].upper() == b"FROM:":
        return _mail(rest[5:])
    if verb == b"RCPT" and rest[:3].upper() == b"TO:":
        return _rcpt(rest[3:])
    if verb in _BARE:
        if rest.strip():
            raise ProtocolError("No arguments allowed")
        return _BARE[verb]
    if verb == b"BDAT":
        match = _BDAT.fullmatch(rest)
        if match is None:
            raise ProtocolError("Syntax: BDAT size [LAST]")
        return Chunk(int(match[1]), match[2] is not None)
    if verb in {b"LHLO", b"EHLO", b"HELO"}:
        domain = rest.strip()
        if not _DOMAIN.fullmatch(domain):
            raise ProtocolError(f"Syntax: {verb.decode()} domain")
        return Hello(verb.decode(), _utf8(domain))
    if verb == b"NOOP":
        return Noop()
    if verb == b"VRFY":
        return Vrfy(_utf8(rest.strip()))
    if verb == b"HELP":
        return Help()
    if verb == b"AUTH":
        return _auth(rest)
    if verb in {b"MAIL", b"RCPT"}:
        raise ProtocolError("Syntax: MAIL FROM:<address>" if verb == b"MAIL" else "Syntax: RCPT TO:<address>")
    if verb in {b"EXPN", b"TURN", b"ETRN", b"SEND", b"SOML", b"SAML"}:
        return Bad(Reply(502, "5.5.1", "Command not implemented"))
    return Bad(Reply(500, "5.5.1", "Command not recognised"))


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("Not UTF-8") from None


def _parameters(data: bytes) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for word in data.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise ProtocolError("Bad parameter")
        name = match[1].upper()
        if name in found:
            raise ProtocolError("Parameter given twice")
        found[name] = match[2]
    return found


def _mail(rest: bytes) -> Mail | Bad:
    match = _PATH.fullmatch(rest)
    if match is None:
        return Bad(Reply(501, "5.1.7", "Bad sender address"))
    sender = match["mailbox"] or b""
    if not match["parameters"]:
        parameters: dict[bytes, bytes | None] = {}
    else:
        parameters = _parameters(match["parameters"])
    size = parameters.pop(b"SIZE", b"")
    if size is None or (size and (not size.isdigit() or len(size) > 20)):
        raise ProtocolError("Bad SIZE")
    body = parameters.pop(b"BODY", b"7BIT")
    if body is None or body.upper() not in _BODIES:
        raise ProtocolError("Bad BODY")
    smtputf8 = b"SMTPUTF8" in parameters
    if parameters.pop(b"SMTPUTF8", None) is not None:
        raise ProtocolError("SMTPUTF8 takes no value")
    parameters.pop(b"AUTH", None)  # RFC 4954 section 5: may be ignored by who does not relay
    if parameters:
        return Bad(Reply(555, "5.5.4", "Unknown parameter"))
    _utf8(sender)
    if not smtputf8 and not sender.isascii():
        return Bad(Reply(553, "5.6.7", "Such an address needs SMTPUTF8"))
    return Mail(sender, int(size) if size else None, body.upper().decode(), smtputf8)


def _rcpt(rest: bytes) -> Rcpt | Bad:
    match = _PATH.fullmatch(rest)
    if match is None or match["local"] is None:
        return Bad(Reply(501, "5.1.3", "Bad recipient address"))
    if match["parameters"] and _parameters(match["parameters"]):
        return Bad(Reply(555, "5.5.4", "Unknown parameter"))
    local = match["local"]
    if local.startswith(b'"'):
        local = re.sub(rb"\\(.)", rb"\1", local[1:-1])
    if not local:
        return Bad(Reply(501, "5.1.3", "Bad recipient address"))
    domain = match["domain"]
    return Rcpt(_utf8(local), None if domain is None else _utf8(domain))


def _auth(rest: bytes) -> Auth:
    words = rest.split()
    if not 1 <= len(words) <= 2 or not words[0].isascii():
        raise ProtocolError("Syntax: AUTH mechanism [initial-response]")
    initial: bytes | None = None
    if len(words) == 2:
        try:
            initial = b"" if words[1] == b"=" else b64decode(words[1], validate=True)
        except ValueError:
            raise ProtocolError("Bad base64") from None
    return Auth(words[0].upper().decode(), initial)
