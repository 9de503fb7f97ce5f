"""One Maildir folder: flags from file names, dates from files, keywords from Dovecot's file beside them.

A message is a file in `cur` (a client has seen it) or `new`. Its name is `unique:2,FLAGS` with the letters
D F P R S T for Draft, Flagged, Passed, Replied, Seen, Trashed, and with Dovecot the lower case letters a … z for the
keywords that `dovecot-keywords` numbers 0 … 25. The file's time of change is INTERNALDATE: that is where deliverers and
Dovecot keep it. Programs that copied the files without their times are found out by a date in the name (`1718000000.…`)
that is older.

Our own export adds two things that other programs pass over: `,L=asis` in the name of a message whose line ends are to
be left alone, and a file `mailkeep-folder` with the folder's name where a directory could not be called so.

Maildir++ keeps folders flat beside `cur`, as `.A.B`, with names in modified UTF-7; the file-system layout nests
directories. Both are read, see tree.py.
"""

import re
from collections.abc import Iterable
from typing import Final

from mailkeep.errors import ProtocolError
from mailkeep.export.item import keyword
from mailkeep.mail.dates import plausible
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.mailbox_name import decode_utf7

AS_IS: Final = ",L=asis"
FOLDER_FILE: Final = "mailkeep-folder"
_LETTERS: Final = {"D": DRAFT, "F": FLAGGED, "P": "$Forwarded", "R": ANSWERED, "S": SEEN, "T": DELETED}
# ":2," on Unix; ";2," and "!2," where a colon cannot be in a file name (Windows, zips made there).
_INFO = re.compile(r"[:;!_\-]2,([A-Za-z]*)")
_TIME = re.compile(r"(\d{9,11})\.(?:M(\d{1,12}))?")
_KEYWORD_LINE = re.compile(r"(\d+)\s+(\S.*)")


def is_message(name: str) -> bool:
    """Whether a name in cur or new is a message: dot files and Courier's and Dovecot's own files are not."""
    return not name.startswith((".", "dovecot", "courier"))


def is_as_is(name: str) -> bool:
    """Whether the message's line ends are to be left alone."""
    return AS_IS in name.partition(":")[0]


def flags(name: str, keywords: dict[int, str]) -> frozenset[str]:
    match = _INFO.search(name)
    if match is None:
        return frozenset()
    found = {_LETTERS[letter] for letter in match[1] if letter in _LETTERS}
    found |= {keywords[ord(letter) - 97] for letter in match[1] if letter.islower() and ord(letter) - 97 in keywords}
    return frozenset(found)


def read_keywords(text: str) -> dict[int, str]:
    """A `dovecot-keywords` file: lines of `number keyword`."""
    found: dict[int, str] = {}
    for line in text.splitlines():
        if (match := _KEYWORD_LINE.fullmatch(line.strip())) and (made := keyword(match[2])):
            found[int(match[1])] = made
    return found


def date(name: str, mtime: int) -> int | None:
    """INTERNALDATE by the file's time; by its name when that is older, for a copy has the time of the copying."""
    match = _TIME.match(name)
    delivered = plausible(int(match[1])) if match else None
    # Within a day the file's time is the better one: IMAP APPEND sets it to the date that the client gave.
    if delivered is not None and mtime > delivered + 86400:
        return delivered
    return plausible(mtime)


def order(names: Iterable[str]) -> list[str]:
    """In the order of arrival, as far as names tell it, so that UIDs follow it too."""

    def key(name: str) -> tuple[int, int, str]:
        match = _TIME.match(name)
        return (int(match[1]), int(match[2] or 0), name) if match else (1 << 62, 0, name)

    return sorted(names, key=key)


def folder_name(directory: str) -> tuple[str, ...]:
    """`.Work.2024` → ("Work", "2024"). Bytes that are no modified UTF-7 stay as they are."""
    try:
        text = decode_utf7(directory.encode("ascii"))
    except (ProtocolError, UnicodeEncodeError):
        text = directory
    return tuple(level.replace("/", "_") for level in text.strip(".").split(".") if level)


def real_name(text: str) -> tuple[str, ...]:
    """A `mailkeep-folder` file: the levels of the folder's name."""
    return tuple(level for level in text.strip("\r\n").split("/") if level)
