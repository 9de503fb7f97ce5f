"""The manifest of an export: a line of JSON for each message, so that anybody can check what came out.

    {"mailkeep":"export","version":1,"account":"anna@example.org","format":"eml", …}                      the first
    {"number":1,"folder":"INBOX","uidvalidity":7,"uid":3,"sha256":"…","size":812,"internaldate":"2026-01-20T10:00:00Z",
     "flags":["\\Seen"],"file":"INBOX/2026-01-20 Hello (3).eml"}                                          a message
    {"number":2,"folder":"INBOX","uidvalidity":7,"uid":4,"missing":"the message is gone"}                 not exported
    {"messages":2,"exported":1,"missing":1,"bytes":812}                                                   the last

`sha256` and `size` are of the message as the account has it, whatever the format makes of it. `file` is relative to the
output; `part` names the output where there are several files. Knows these lines, and nothing of where they lie.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from mailkeep.errors import UsageError

VERSION: Final = 1
LINE_MAX: Final = 1 << 20


class Head(msgspec.Struct, omit_defaults=True, frozen=True):
    """The first line. `listed`: when the list of messages was made."""

    account: str
    format: str
    per: str
    listed: str
    messages: int
    filters: str = ""
    into: str = ""
    split: str = ""
    mailkeep: str = "export"
    version: int = VERSION

    def line(self) -> bytes:
        facts: dict[str, Any] = {"mailkeep": self.mailkeep, "version": self.version, **msgspec.to_builtins(self)}
        return _encode(facts) + b"\n"


class Line(msgspec.Struct, omit_defaults=True, frozen=True):
    """A message. Either `file` or `missing`, the reason why there is none, is set."""

    number: int
    folder: str
    uidvalidity: int
    uid: int
    sha256: str = ""
    size: int = -1
    internaldate: str = ""
    flags: list[str] | None = None
    file: str = ""
    part: str = ""
    note: str = ""
    missing: str = ""


class Tail(msgspec.Struct, frozen=True):
    """The last line."""

    messages: int
    exported: int
    missing: int
    bytes: int


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Line).decode


def encode_line(line: Line | Tail) -> bytes:
    return _encode(line) + b"\n"


def iso_date(seconds: int) -> str:
    """`2026-01-20T10:00:00Z`; a date beyond the years 1 to 9999 as "@" and its seconds since 1970."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()[:19] + "Z"
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}"


def read_lines(path: Path) -> Iterator[Line]:
    """The messages of a manifest. Raises UsageError where it is not one."""
    try:
        with path.open("rb") as file:
            file.readline(LINE_MAX)
            while line := file.readline(LINE_MAX):
                if line.startswith(b'{"messages":'):
                    return
                yield _decode(line)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a manifest: {error}") from None
