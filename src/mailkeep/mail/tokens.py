"""The lexical tokens of RFC 5322 (section 3.2) and RFC 2045 (section 5.1), read leniently from header values.

Everything that looks inside a structured header (addresses, Content-Type, Content-Disposition …) reads it through a
Cursor. It knows nothing of what the tokens mean. The hard idea: real mail breaks the grammar everywhere, so no method
raises; each says how it ended, and the caller keeps what was read so far. What is accepted follows Dovecot, so that
two servers give a client the same answer for the same broken header.

Each method moves forward only and reads each byte a fixed number of times.
"""

import re

# How a token ended: more input follows, the input is used up, or the grammar is broken.
MORE, END, BROKEN = 1, 0, -1

# atext = ALPHA / DIGIT / "!#$%&'*+-/=?^_`{|}~" ; plus all 8-bit bytes, which real mail has raw (and RFC 6532 allows).
ATEXT = rb"!#$%&'*+\-/0-9=?A-Z^_`a-z{|}~\x80-\xff"
# token = any CHAR but SPACE, CTLs and tspecials: as atext without "/", "?", "=", but with ".".
TOKEN = rb"!#$%&'*+\-.0-9A-Z^_`a-z{|}~\x80-\xff"

_ATOM = re.compile(rb"[" + ATEXT + rb"]+")
_ATOM_OR_DOT = re.compile(rb"[." + ATEXT + rb"]*")
_TOKEN = re.compile(rb"[" + TOKEN + rb"]*")
_WSP = re.compile(rb"[ \t\r\n]*")
_COMMENT_PART = re.compile(rb"[^()\\]*")
_QUOTED = re.compile(rb'[^"\\]*')
_LITERAL = re.compile(rb"[^\]\\]*")
_FOLD = re.compile(rb"\r?\n")
_UNQUOTED_VALUE = re.compile(rb"[^; \t\r\n]*")
_IS_WORD_START = re.compile(rb'[".' + ATEXT + rb"]")


PARAMETERS_MAX = 128  # of one field


class Cursor:
    """A place in a header value."""

    __slots__ = ("comment", "data", "end", "pos")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0
        self.end = len(data)
        self.comment = b""  # the last comment skipped, without its parentheses

    def at(self, char: bytes) -> bool:
        """Whether the next byte is `char`."""
        return self.data.startswith(char, self.pos)

    @property
    def more(self) -> bool:
        return self.pos < self.end

    def skip_comment(self) -> int:
        """Skip a comment, nested ones included; the cursor is at its "("."""
        data, pos, depth = self.data, self.pos + 1, 1
        pieces: list[bytes] = []
        while True:
            match = _COMMENT_PART.match(data, pos)
            assert match is not None
            pieces.append(match[0])
            pos = match.end()
            if pos >= self.end:
                self.pos = self.end
                return BROKEN
            char = data[pos : pos + 1]
            if char == b"\\":
                pieces.append(data[pos + 1 : pos + 2])
                pos += 2
                continue
            pos += 1
            depth += 1 if char == b"(" else -1
            if depth == 0:
                self.comment = b"".join(pieces)
                self.pos = pos
                return MORE if pos < self.end else END
            pieces.append(char)

    def skip_space(self) -> int:
        """Skip [CFWS]: white space, folds and comments."""
        while True:
            match = _WSP.match(self.data, self.pos)
            assert match is not None
            self.pos = match.end()
            if not self.at(b"("):
                return MORE if self.pos < self.end else END
            if self.skip_comment() == BROKEN:
                return BROKEN

    def atom(self, out: list[bytes]) -> int:
        """atom = 1*atext [CFWS]."""
        match = _ATOM.match(self.data, self.pos)
        if match is None:
            return BROKEN
        self.pos = match.end()
        out.append(match[0])
        return self.skip_space()

    def dot_atom(self, out: list[bytes]) -> int:
        """dot-atom = 1*atext *("." 1*atext) [CFWS]; RFC 822 allowed white space around the dots, and so do we."""
        match = _ATOM.match(self.data, self.pos)
        if match is None:
            return BROKEN
        while True:
            if match is not None:
                out.append(match[0])
                self.pos = match.end()
            state = self.skip_space()
            if state != MORE:
                return state
            if not self.at(b"."):
                return MORE
            out.append(b".")
            self.pos += 1
            state = self.skip_space()
            if state != MORE:
                return state
            match = _ATOM.match(self.data, self.pos)

    def token(self, out: list[bytes]) -> int:
        """token (RFC 2045) [CFWS]; may be empty."""
        match = _TOKEN.match(self.data, self.pos)
        assert match is not None
        out.append(match[0])
        self.pos = match.end()
        return self.skip_space() if self.pos < self.end else END

    def quoted_string(self, out: list[bytes]) -> int:
        """quoted-string [CFWS]; the cursor is at its first quote. Folds and escapes are undone."""
        data, pos = self.data, self.pos + 1
        while True:
            match = _QUOTED.match(data, pos)
            assert match is not None
            text = match[0]
            out.append(_FOLD.sub(b"", text) if b"\n" in text else text)
            pos = match.end()
            if pos >= self.end:
                self.pos = self.end
                return BROKEN
            if data[pos] == 0x22:
                self.pos = pos + 1
                return self.skip_space()
            if pos + 1 >= self.end:
                self.pos = self.end
                return BROKEN
            out.append(data[pos + 1 : pos + 2])
            pos += 2

    def phrase(self, out: list[bytes]) -> int:
        """phrase = 1*word / obs-phrase ; words come out joined by single spaces."""
        if self.pos >= self.end:
            return END
        if self.at(b"."):
            return BROKEN
        while True:
            if self.at(b'"'):
                state = self.quoted_string(out)
            else:
                match = _ATOM_OR_DOT.match(self.data, self.pos)
                assert match is not None
                out.append(match[0])
                self.pos = match.end()
                state = self.skip_space() if self.pos < self.end else END
            if state != MORE:
                return state
            if _IS_WORD_START.match(self.data, self.pos) is None:
                return MORE
            out.append(b" ")

    def domain(self, out: list[bytes]) -> int:
        """domain = dot-atom / domain-literal ; the cursor is at the "@" before it."""
        self.pos += 1
        if self.skip_space() != MORE:
            return BROKEN
        if not self.at(b"["):
            return self.dot_atom(out)
        data, start, pos = self.data, self.pos, self.pos
        while True:
            match = _LITERAL.match(data, pos)
            assert match is not None
            pos = match.end()
            if pos >= self.end:
                self.pos = self.end
                return BROKEN
            if data[pos] == 0x5D:
                self.pos = pos + 1
                out.append(data[start : pos + 1])
                return self.skip_space()
            pos += 2

    def parameter(self) -> tuple[int, bytes, bytes]:
        """One `";" attribute "=" value` → (how it ended, attribute, value)."""
        if self.pos >= self.end:
            return END, b"", b""
        if not self.at(b";"):
            return BROKEN, b"", b""
        self.pos += 1
        name: list[bytes] = []
        if self.skip_space() != MORE or self.token(name) != MORE or not self.at(b"="):
            return BROKEN, b"", b""
        self.pos += 1
        value: list[bytes] = []
        state = self.skip_space()
        if state == MORE:
            if self.at(b'"'):
                state = self.quoted_string(value)
            elif self.at(b"="):
                # Broken senders write name==?utf-8?b?…?= without quotes.
                match = _UNQUOTED_VALUE.match(self.data, self.pos)
                assert match is not None
                value.append(match[0])
                self.pos = match.end()
            else:
                state = self.token(value)
        return (BROKEN if state == BROKEN else MORE), b"".join(name), b"".join(value)

    def parameters(self) -> tuple[tuple[bytes, bytes], ...]:
        """All parameters that follow, RFC 2231 continuations joined; without broken ones and those past the limit."""
        plain: list[tuple[bytes, bytes]] = []
        pieces: list[tuple[bytes, int, bool, bytes]] = []
        while len(plain) + len(pieces) < PARAMETERS_MAX:
            state, name, value = self.parameter()
            if state == END:
                break
            if state == BROKEN:
                if self.pos >= self.end:
                    break
                # Look for the next ";" that starts a parameter.
                following = self.data.find(b";", self.pos + (0 if not self.at(b";") else 1))
                if following < 0:
                    break
                self.pos = following
                continue
            match = _CONTINUED.fullmatch(name)
            if match is None:
                plain.append((name, value))
            else:
                pieces.append((match[1], int(match[2] or 0), match[3] is not None or not match[2], value))
        return (*plain, *_join_continuations(pieces)) if pieces else tuple(plain)


# attribute *1("*" 1*DIGIT) *1("*") (RFC 2231 section 7), in the two shapes that carry a star
_CONTINUED = re.compile(rb"([^*]*)\*(?:([0-9]{1,9})(\*)?)?")


def _join_continuations(pieces: list[tuple[bytes, int, bool, bytes]]) -> list[tuple[bytes, bytes]]:
    """RFC 2231: `name*0*=…; name*1=…` → `name*=…`. A set with gaps stays as it was written."""
    pieces.sort(key=lambda piece: (piece[0].lower(), piece[1]))
    joined: list[tuple[bytes, bytes]] = []
    start = 0
    while start < len(pieces):
        key = pieces[start][0].lower()
        stop = start
        while stop < len(pieces) and pieces[stop][0].lower() == key:
            stop += 1
        group = pieces[start:stop]
        start = stop
        if [piece[1] for piece in group] != list(range(len(group))):
            joined += [(b"%s*%d%s" % (name, index, b"*" if ext else b""), text) for name, index, ext, text in group]
        elif any(piece[2] for piece in group):
            # Mixed: the plain pieces are escaped, so that the whole can be read as an extended value.
            text = b"".join(value if ext else value.replace(b"%", b"%25") for _, _, ext, value in group)
            joined.append((group[0][0] + b"*", text if group[0][2] else b"''" + text))
        else:
            joined.append((group[0][0], b"".join(piece[3] for piece in group)))
    return joined
