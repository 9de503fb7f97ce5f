"""Mailbox names: modified UTF-7, what a name may be, and LIST patterns.

Names are text inside, with "/" between levels; the wire has modified UTF-7 (RFC 3501 section 5.1.3) or UTF-8 (RFC 9051
section 5.1). Knows nothing of which mailboxes exist. The hard idea is LIST matching: `*a*a*a*b` against `aaaa…` must
not blow up, so a pattern is never handed to a backtracking engine.
"""

import binascii
import re
import unicodedata
from collections.abc import Callable

from mailkeep.errors import NotAllowed, ProtocolError

SEPARATOR = "/"
INBOX = "INBOX"
LEVEL_MAX = 255  # bytes of UTF-8: a level fits into a file name, which backups and exports need
NAME_MAX = 1000  # bytes of UTF-8 in all

# A shifted run: "&" modified-base64 "-" ; "&-" is the ampersand itself.
_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_PRINTABLE = re.compile(r"[\x20-\x25\x27-\x7e]+")


def decode_utf7(name: bytes) -> str:
    """The text of a modified UTF-7 name. Raises ProtocolError for anything but its one canonical encoding."""
    text: list[str] = []
    pos = 0
    while pos < len(name):
        if name[pos] != 0x26:
            stop = name.find(b"&", pos)
            stop = len(name) if stop < 0 else stop
            text.append(_plain(name[pos:stop]))
            pos = stop
            continue
        match = _SHIFTED.match(name, pos)
        if match is None:
            raise ProtocolError("Bad modified UTF-7 in mailbox name")
        text.append(_unshift(match[1]) if match[1] else "&")
        pos = match.end()
    decoded = "".join(text)
    if encode_utf7(decoded) != name:
        raise ProtocolError("Bad modified UTF-7 in mailbox name")
    return decoded


def _plain(run: bytes) -> str:
    if not run.isascii():
        raise ProtocolError("8-bit character in mailbox name")
    return run.decode("ascii")


def _unshift(run: bytes) -> str:
    try:
        raw = binascii.a2b_base64(run.replace(b",", b"/") + b"=" * (-len(run) % 4))
        return raw.decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise ProtocolError("Bad modified UTF-7 in mailbox name") from None


def encode_utf7(name: str) -> bytes:
    """The name in modified UTF-7."""
    out: list[bytes] = []
    pos = 0
    while pos < len(name):
        match = _PRINTABLE.match(name, pos)
        if match is not None:
            out.append(match[0].encode("ascii"))
            pos = match.end()
        elif name[pos] == "&":
            out.append(b"&-")
            pos += 1
        else:
            stop = pos + 1
            while stop < len(name) and name[stop] != "&" and not " " <= name[stop] <= "~":
                stop += 1
            raw = name[pos:stop].encode("utf-16-be", "surrogatepass")
            packed = binascii.b2a_base64(raw, newline=False).rstrip(b"=").replace(b"/", b",")
            out.append(b"&" + packed + b"-")
            pos = stop
    return b"".join(out)


def check_name(name: str) -> str:
    """The name as the store keeps it: NFC, INBOX in capitals. Raises NotAllowed when it cannot be a mailbox name."""
    clean = unicodedata.normalize("NFC", name)
    if not clean:
        raise NotAllowed("Mailbox name is empty")
    if any(unicodedata.category(char) in ("Cc", "Cs") or char in "\u2028\u2029" for char in clean):
        raise NotAllowed("Mailbox name has a control character")
    levels = clean.split(SEPARATOR)
    if not all(levels):
        raise NotAllowed("Mailbox name has an empty level")
    if any(level in (".", "..") for level in levels):
        raise NotAllowed("Mailbox name has a level of dots only")
    if len(clean.encode()) > NAME_MAX or any(len(level.encode()) > LEVEL_MAX for level in levels):
        raise NotAllowed("Mailbox name is too long")
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    return SEPARATOR.join(levels)


def compile_pattern(reference: str, pattern: str) -> Callable[[str], bool]:
    """A test for LIST: `*` matches anything, `%` anything but the separator; INBOX compares without case.

    Time is the name's length times the number of wildcards at worst, for any pattern.
    """
    full = unicodedata.normalize("NFC", reference + pattern)
    if full[:5].upper() == INBOX and full[5:6] in ("", SEPARATOR, "*", "%"):
        full = INBOX + full[5:]
    if "*" not in full and "%" not in full:
        return full.__eq__
    if full == "*":
        return lambda name: True
    if full == "%":
        return lambda name: SEPARATOR not in name
    tokens = _tokens(full)
    # A pattern such as "inb%" means INBOX too, since that one name has no case (RFC 9051 section 5.1).
    has_inbox = _match(_tokens(full.upper()), INBOX)
    return lambda name: has_inbox if name == INBOX else _match(tokens, name)


def _tokens(pattern: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[*%]+|[^*%]+", pattern))


def _match(tokens: tuple[str, ...], name: str) -> bool:
    """Whether the tokens (wildcard runs and literals) match the whole name: a set of reachable positions, one pass."""
    reachable = {0}
    for token in tokens:
        if not reachable:
            return False
        if token[0] not in "*%":
            width = len(token)
            reachable = {pos + width for pos in reachable if name.startswith(token, pos)}
        elif "*" in token:
            reachable = set(range(min(reachable), len(name) + 1))
        else:
            grown: set[int] = set()
            for pos in sorted(reachable):
                if pos in grown:
                    continue
                stop = name.find(SEPARATOR, pos)
                grown.update(range(pos, (len(name) if stop < 0 else stop) + 1))
            reachable = grown
    return len(name) in reachable
