"""Lines of vCard and iCalendar (RFC 6350 section 3, RFC 5545 section 3.1): escaped, folded, with CRLF."""

import re
from collections.abc import Iterable
from typing import Final

_LINE_MAX: Final = 75  # octets
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

Line = tuple[str, str]  # name with its parameters, value as it stands in the file


def written(lines: Iterable[Line]) -> bytes:
    """The file. Lines without a value are left out."""
    return b"".join(_folded(f"{name}:{value}") for name, value in lines if value)


def text(value: str) -> str:
    """A text as a value: backslashes, commas, semicolons and line ends escaped."""
    value = _CONTROL.sub(" ", value.replace("\r\n", "\n").replace("\r", "\n"))
    return value.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def structured(*values: str) -> str:
    """Components of one value; "" when none of them is there."""
    return ";".join(map(text, values)) if any(values) else ""


def parameter(value: str) -> str:
    """A parameter's value in quotes; what cannot stand in them is left out."""
    return '"' + _CONTROL.sub(" ", value.replace('"', "'").replace("\r", " ").replace("\n", " ")) + '"'


def _folded(line: str) -> bytes:
    """In lines of 75 octets, no character cut in two."""
    raw = line.encode("utf-8", "replace")
    pieces: list[bytes] = []
    at, room = 0, _LINE_MAX
    while len(raw) - at > room:
        stop = at + room
        while raw[stop] & 0xC0 == 0x80:
            stop -= 1
        pieces.append(raw[at:stop])
        at, room = stop, _LINE_MAX - 1
    pieces.append(raw[at:])
    return b"\r\n ".join(pieces) + b"\r\n"
